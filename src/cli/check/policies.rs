//! What manifests are judged by: flags, or policies from files, as the operator would hold them.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use rampart_reach::{NAMESPACE_NAME, Selector};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    GROUP,
    api::{ClusterSecurityPolicy, HardeningMode, PolicyException, SecurityPolicy, selector},
    cli::{
        fields::refuse_malformed,
        source::{self, Found, Object, Unreadable, group_kind},
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
    /// Policies, and of ClusterSecurityPolicies that read labels of namespaces besides their name, by their names, what
    /// they ask of that.
    Files(Policies, BTreeMap<String, Selector>),
}

/// Labels of namespaces.
pub(super) type Labels = HashMap<String, Arc<BTreeMap<String, String>>>;

impl From<Policies> for Judges {
    fn from(policies: Policies) -> Self {
        let asking = policies.wide.iter().filter(|(_, it)| it.requirement.mode != HardeningMode::Disabled);
        let by_labels = asking.filter_map(|(name, it)| Some((name.clone(), of_name(&it.selector)?))).collect();
        Self::Files(policies, by_labels)
    }
}

/// What a selector asks of a namespace's name, if it reads other labels too.
fn of_name(selector: &LabelSelector) -> Option<Selector> {
    let mut of_name = selector.clone();
    if let Some(labels) = &mut of_name.match_labels {
        labels.retain(|key, _| key == NAMESPACE_NAME);
    }
    if let Some(expressions) = &mut of_name.match_expressions {
        expressions.retain(|it| it.key == NAMESPACE_NAME);
    }
    if of_name == *selector { None } else { selector::parse(&of_name, "spec.namespaceSelector").ok() }
}

impl Judges {
    /// What covers a namespace.
    pub(super) fn of_namespace(&self, namespace: &str) -> Arc<[Covering]> {
        match self {
            Self::Flags(covering) => covering.clone(),
            Self::Files(policies, _) => policies.covering(namespace, policies.labels_of(namespace)),
        }
    }

    /// Whether labels of namespaces decide which policies cover them.
    pub(super) fn read_labels(&self) -> bool {
        matches!(self, Self::Files(_, by_labels) if !by_labels.is_empty())
    }

    /// ClusterSecurityPolicies of which nobody knows whether they cover a namespace: its labels are not known.
    pub(super) fn open(&self, namespace: &str) -> Vec<&str> {
        let Self::Files(policies, by_labels) = self else { return vec![] };
        if policies.labels.contains_key(namespace) {
            return vec![];
        }
        let heard = |name: &str| policies.wide.get(name).is_some_and(|policy| policy.leaves_in(namespace));
        let none = BTreeMap::new();
        let open = by_labels.iter().filter(|(name, asked)| heard(name) && asked.matches_namespace(namespace, &none));
        open.map(|(name, _)| name.as_str()).collect()
    }

    /// Takes labels of namespaces that are not known yet.
    pub(super) fn learn(&mut self, labels: Labels) {
        let Self::Files(policies, _) = self else { return };
        let known = Arc::make_mut(&mut policies.labels);
        for (namespace, labels) in labels {
            known.entry(namespace).or_insert(labels);
        }
    }
}

/// What is found of policies, before it is put together.
#[derive(Default)]
pub(in crate::cli) struct Read {
    own: BTreeMap<String, Vec<Covering>>,
    wide: BTreeMap<String, ClusterWide>,
    labels: Labels,
    exceptions: HashMap<String, Vec<Exception>>,
}

/// Reads policies, exceptions, and namespaces for their labels. What can't be read is bad input, and so is a field that
/// its kind does not have: without it, a policy may ask for less.
pub(super) fn read(paths: &[PathBuf], namespace: &str) -> (Policies, Vec<Unreadable>) {
    let mut found = source::read_all(paths);
    refuse_malformed(&mut found);
    let Found { objects, mut unreadable } = found;
    let (policies, more) = of(&objects, namespace);
    unreadable.extend(more);
    let is_policy = |it: &Object| matches!(group_kind(&it.value), (GROUP, "SecurityPolicy" | "ClusterSecurityPolicy"));
    if unreadable.is_empty() && !objects.iter().any(is_policy) {
        let why = "holds no SecurityPolicy and no ClusterSecurityPolicy: nothing would be refused";
        let nothing = |path: &PathBuf| Unreadable { file: path.display().to_string(), line: None, why: why.into() };
        unreadable.extend(paths.iter().map(nothing));
    }
    (policies, unreadable)
}

/// Adds the labels of a Namespace; anything else has none that matter.
pub(super) fn add_labels(labels: &mut Labels, object: &Value) -> Result<(), String> {
    if group_kind(object) != ("", "Namespace") {
        return Ok(());
    }
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let own: Option<Option<_>> = object.pointer("/metadata/labels").map(parsed).transpose()?;
    labels.insert(name.into(), Arc::new(own.flatten().unwrap_or_default()));
    Ok(())
}

/// The policies among objects; of how many objects nothing comes is said.
pub(in crate::cli) fn of<'o>(
    objects: impl IntoIterator<Item = &'o Object>,
    namespace: &str,
) -> (Policies, Vec<Unreadable>) {
    let (mut read, mut unreadable, mut others) = (Read::default(), vec![], 0_usize);
    for object in objects {
        match read.add(&object.value, namespace) {
            Ok(true) => {}
            Ok(false) => others = others.saturating_add(1),
            Err(why) => unreadable.push(object.unreadable(why)),
        }
    }
    if others > 0 {
        let they = if others == 1 { "object is of a kind that says" } else { "objects are of kinds that say" };
        eprintln!("rampart: {others} {they} nothing here");
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
    /// Adds a policy, an exception, or a namespace; whether it is one.
    pub(in crate::cli) fn add(&mut self, value: &Value, namespace: &str) -> Result<bool, String> {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
        let name = text("/metadata/name").unwrap_or_default();
        let namespace = text("/metadata/namespace").unwrap_or_else(|| namespace.into());
        match group_kind(value) {
            (GROUP, "SecurityPolicy") => {
                let policy: SecurityPolicy = parsed(value)?;
                let Some(hardening) = &policy.spec.hardening else { return Ok(true) };
                let requirement = Requirement::try_from(hardening).map_err(|error| error.to_string())?;
                let origin = Origin::SecurityPolicy(name);
                let made = policy.metadata.creation_timestamp.as_ref().map(|time| time.0);
                let covering = Covering { origin, made, requirement, exceptions: Arc::default() };
                self.own.entry(namespace).or_default().push(covering);
            }
            (GROUP, "ClusterSecurityPolicy") => {
                let policy: ClusterSecurityPolicy = parsed(value)?;
                self.wide.insert(name, ClusterWide::try_from(&policy).map_err(|error| error.to_string())?);
            }
            (GROUP, "PolicyException") => {
                let mut exception: PolicyException = parsed(value)?;
                // It would be made now.
                exception.metadata.creation_timestamp.get_or_insert_with(|| Time(clock::now()));
                let exception = Exception::try_from(&exception).map_err(|error| error.to_string())?;
                self.exceptions.entry(namespace).or_default().push(exception);
            }
            ("", "Namespace") => add_labels(&mut self.labels, value)?,
            _ => return Ok(false),
        }
        Ok(true)
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

    const OURS: &str = "rampart.dev/v1alpha1";

    #[test]
    fn kinds_of_others_say_nothing() {
        let spec = json!({"targetRefs": [], "namespaceSelector": {}});
        for (version, kind, is_one) in [
            ("gateway.envoyproxy.io/v1alpha1", "SecurityPolicy", false),
            ("example.com/v1", "Namespace", false),
            (OURS, "ApiKey", false),
            (OURS, "ClusterSecurityPolicy", true),
            ("v1", "Namespace", true),
        ] {
            let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": spec});
            assert_eq!(Read::default().add(&object, "default"), Ok(is_one), "{version} {kind}");
        }
    }

    #[test]
    fn an_exception_that_lets_nothing_pass_is_told() {
        let said = |rule: &str, namespace: &str| {
            let policy = |name: &str| {
                json!({"apiVersion": OURS, "kind": "SecurityPolicy", "metadata": {"name": name, "namespace": "shop"},
                    "spec": {"hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}}}})
            };
            let exception = json!({"apiVersion": OURS, "kind": "PolicyException",
                "metadata": {"name": "e", "namespace": "shop"}, "spec": {
                "policies": [{"kind": "SecurityPolicy", "name": "one"}], "rules": [rule], "images": ["**"],
                "reason": "a test", "expiresAt": "2026-12-31T00:00:00Z"}});
            let mut read = Read::default();
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
            for object in [policy("one"), policy("two"), exception, namespace] {
                read.add(&object, "default").unwrap();
            }
            // Which exceptions of SecurityPolicies are permitted is for ClusterSecurityPolicies to say.
            let permits = json!({"apiVersion": OURS, "kind": "ClusterSecurityPolicy", "metadata": {"name": "permits"}, "spec": {
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
