//! What manifests are judged by: flags, or policies from files, as the operator would hold them.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    api::{ClusterSecurityPolicy, PolicyException, SecurityPolicy},
    cli::{
        fields::refuse_unknown,
        source::{self, Found, Object, Unreadable},
        terminal::fit,
    },
    controllers::in_vain,
    hardening::{ClusterWide, Covering, Exception, Origin, Policies, Requirement},
    runtime::clock,
};

/// What judges manifests.
#[derive(Debug)]
pub(super) enum Judges {
    /// One requirement, of every namespace.
    Flags(Arc<[Covering]>),
    /// Policies.
    Files(Policies),
}

impl Judges {
    /// What covers a namespace.
    pub(super) fn of_namespace(&self, namespace: &str) -> Arc<[Covering]> {
        match self {
            Self::Flags(covering) => covering.clone(),
            Self::Files(policies) => policies.covering(namespace, policies.labels_of(namespace)),
        }
    }
}

/// What is found of policies, before it is put together.
#[derive(Default)]
pub(in crate::cli) struct Read {
    own: BTreeMap<String, Vec<Covering>>,
    wide: BTreeMap<String, ClusterWide>,
    labels: HashMap<String, Arc<BTreeMap<String, String>>>,
    exceptions: HashMap<String, Vec<Exception>>,
}

/// Reads policies, exceptions, and namespaces for their labels. What can't be read is bad input, and so is a field that
/// its kind does not have: without it, a policy may ask for less.
pub(super) fn read(paths: &[PathBuf], namespace: &str) -> (Policies, Vec<Unreadable>) {
    let mut found = source::read_all(paths);
    refuse_unknown(&mut found);
    let Found { objects, mut unreadable } = found;
    let (policies, more) = of(&objects, namespace);
    unreadable.extend(more);
    (policies, unreadable)
}

/// The policies among objects that shall be policies, exceptions or namespaces.
pub(in crate::cli) fn of<'o>(
    objects: impl IntoIterator<Item = &'o Object>,
    namespace: &str,
) -> (Policies, Vec<Unreadable>) {
    let (mut read, mut unreadable) = (Read::default(), vec![]);
    for Object { file, line, value, .. } in objects {
        if let Err(why) = read.add(value, namespace) {
            unreadable.push(Unreadable { file: file.clone(), line: Some(*line), why });
        }
    }
    for (namespace, exceptions) in &read.exceptions {
        for exception in exceptions {
            if let Err(why) = exception.permitted(namespace, &read.wide) {
                let said = format!("PolicyException {namespace}/{} is not in force: {why}", exception.name);
                eprintln!("{}", fit(&said));
            }
        }
    }
    let policies = read.policies();
    for said in letting_nothing_pass(&policies, clock::now()) {
        eprintln!("{}", fit(&said));
    }
    (policies, unreadable)
}

/// What is to be said of exceptions that are permitted, and let nothing pass. Of a namespace that is not among the files
/// nobody knows what covers it.
fn letting_nothing_pass(policies: &Policies, now: Timestamp) -> Vec<String> {
    let all = policies.exceptions.iter().flat_map(|(namespace, all)| all.iter().map(move |it| (namespace, it)));
    let said = all.filter_map(|(namespace, exception)| {
        exception.permitted(namespace, &policies.wide).ok()?;
        let rules: Vec<String> = exception.rules().cloned().collect();
        let (_, why) = in_vain(&policies.effect(namespace, exception, now)?, &rules)?;
        Some(format!("PolicyException {namespace}/{} lets nothing pass: {why}", exception.name))
    });
    let mut said: Vec<String> = said.collect();
    said.sort();
    said
}

fn parsed<K: DeserializeOwned>(value: &Value) -> Result<K, String> {
    K::deserialize(value).map_err(|error| error.to_string())
}

impl Read {
    /// Adds a policy, an exception, or a namespace.
    pub(in crate::cli) fn add(&mut self, value: &Value, namespace: &str) -> Result<(), String> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
        let name = text("/metadata/name").unwrap_or_default();
        let namespace = text("/metadata/namespace").unwrap_or_else(|| namespace.into());
        match text("/kind").unwrap_or_default().as_str() {
            "SecurityPolicy" => {
                let policy: SecurityPolicy = parsed(value)?;
                let Some(hardening) = &policy.spec.hardening else { return Ok(()) };
                let requirement = Requirement::try_from(hardening).map_err(|error| error.to_string())?;
                let origin = Origin::SecurityPolicy(name);
                let made = policy.metadata.creation_timestamp.as_ref().map(|time| time.0);
                let covering = Covering { origin, made, requirement, exceptions: Arc::default() };
                self.own.entry(namespace).or_default().push(covering);
            }
            "ClusterSecurityPolicy" => {
                let policy: ClusterSecurityPolicy = parsed(value)?;
                self.wide.insert(name, ClusterWide::try_from(&policy).map_err(|error| error.to_string())?);
            }
            "PolicyException" => {
                let mut exception: PolicyException = parsed(value)?;
                // It would be made now.
                exception.metadata.creation_timestamp.get_or_insert_with(|| Time(clock::now()));
                let exception = Exception::try_from(&exception).map_err(|error| error.to_string())?;
                self.exceptions.entry(namespace).or_default().push(exception);
            }
            "Namespace" => {
                let labels: Option<Option<_>> = value.pointer("/metadata/labels").map(parsed).transpose()?;
                self.labels.insert(name, Arc::new(labels.flatten().unwrap_or_default()));
            }
            kind => {
                return Err(format!(
                    "{kind} is no SecurityPolicy, ClusterSecurityPolicy, PolicyException or Namespace"
                ));
            }
        }
        Ok(())
    }

    /// Puts it together.
    pub(in crate::cli) fn policies(self) -> Policies {
        Policies {
            own: Arc::new(self.own.into_iter().map(|(namespace, all)| (namespace, all.into())).collect()),
            wide: Arc::new(self.wide),
            labels: Arc::new(self.labels),
            exceptions: Arc::new(self.exceptions),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn an_exception_that_lets_nothing_pass_is_told() {
        let said = |rule: &str, namespace: &str| {
            let policy = |name: &str| {
                json!({"kind": "SecurityPolicy", "metadata": {"name": name, "namespace": "shop"},
                    "spec": {"hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}}}})
            };
            let exception = json!({"kind": "PolicyException", "metadata": {"name": "e", "namespace": "shop"}, "spec": {
                "policies": [{"kind": "SecurityPolicy", "name": "one"}], "rules": [rule], "images": ["**"],
                "reason": "a test", "expiresAt": "2026-12-31T00:00:00Z"}});
            let mut read = Read::default();
            let namespace = json!({"kind": "Namespace", "metadata": {"name": namespace}});
            for object in [policy("one"), policy("two"), exception, namespace] {
                read.add(&object, "default").unwrap();
            }
            // Which exceptions of SecurityPolicies are permitted is for ClusterSecurityPolicies to say.
            let permits = json!({"kind": "ClusterSecurityPolicy", "metadata": {"name": "permits"}, "spec": {
                "namespaceSelector": {}, "exceptions": {"namespaces": ["shop"], "maxDuration": "876000h"}}});
            read.add(&permits, "default").unwrap();
            letting_nothing_pass(&read.policies(), Timestamp::UNIX_EPOCH)
        };
        let told = said("pss/privileged", "shop");
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with("PolicyException shop/e lets nothing pass: ") && told[0].contains("two"),
            "{told:?}"
        );
        assert!(said("hardening/hostPorts", "shop")[0].contains("asks hardening/hostPorts"));
        assert!(said("pss/privileged", "books").is_empty(), "nobody knows what covers its namespace");
    }

    #[test]
    fn the_exception_that_is_shipped_as_a_sample_lets_something_pass() {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/samples");
        let (policies, _) = read(&[samples], "default");
        let (namespace, exceptions) = policies.exceptions.iter().next().unwrap();
        let effect = policies.effect(namespace, &exceptions[0], Timestamp::UNIX_EPOCH).unwrap();
        assert!(effect.lets_pass && effect.refused_by.is_empty(), "{effect:?}");
    }
}
