//! What a change of policies, or of the labels of a namespace, would refuse of the pods that are there: warned of
//! when the change is made, in the form of Pod Security Admission.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Operation, Request};
use crate::{
    api::{ClusterSecurityPolicy, HardeningMode, SecurityPolicy},
    hardening::{ClusterWide, Covering, Kept, Origin, Policies, Requirement, findings},
};

/// Warnings of one change; the API server cuts what is longer than 4096 characters in all.
const LINES: usize = 16;

/// A change, and what it would refuse.
#[derive(Debug)]
pub struct Preview {
    /// The one namespace that it is about, or all of them.
    pub namespace: Option<String>,
    asked: Vec<Asked>,
    /// Every policy, as it will be.
    known: Policies,
    /// Pods that violate alike: the first by name, and how many.
    violating: BTreeMap<(usize, String), (String, u32)>,
    namespaces: BTreeSet<String>,
    /// What covers a namespace, with the exceptions that are permitted there.
    coverings: BTreeMap<String, Vec<(usize, Covering)>>,
}

/// What comes to be enforced.
#[derive(Debug)]
struct Asked {
    covering: Covering,
    /// Which namespaces it covers, where that is not known by now.
    wide: Option<ClusterWide>,
}

fn read<T: DeserializeOwned>(object: Option<&RawValue>) -> Option<T> {
    serde_json::from_str(object?.get()).ok()
}

impl Preview {
    /// What a request would come to enforce; `None` where it enforces nothing else than before.
    #[must_use]
    pub fn of(request: &Request<'_>, known: &Policies) -> Option<Self> {
        let name = || request.name.as_deref().unwrap_or_default().to_owned();
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return None;
        }
        let (namespace, asked) = match (&*request.kind.group, &*request.kind.kind) {
            (crate::GROUP, "SecurityPolicy") => {
                let requirement = |object| Requirement::try_from(&read::<SecurityPolicy>(object)?.spec.hardening?).ok();
                let (new, old) = (requirement(request.object())?, requirement(request.old_object));
                let new = changed(new, old.as_ref(), enforces_the_same)?;
                let namespace = request.namespace.as_deref().unwrap_or_default().to_owned();
                (Some(namespace), vec![Asked::new(Origin::SecurityPolicy(name()), new, None)])
            }
            (crate::GROUP, "ClusterSecurityPolicy") => {
                let wide = |object| ClusterWide::try_from(&read::<ClusterSecurityPolicy>(object)?).ok();
                let new = changed(wide(request.object())?, wide(request.old_object).as_ref(), enforces_the_same_there)?;
                let origin = Origin::ClusterSecurityPolicy(name());
                (None, vec![Asked::new(origin, new.requirement.clone(), Some(new))])
            }
            ("", "Namespace") => {
                let labels = |object| Some(read::<Namespace>(object)?.metadata.labels.unwrap_or_default());
                let (new, old) = (labels(request.object())?, labels(request.old_object)?);
                let covers = |policy: &ClusterWide| policy.covers(&name(), &new) && !policy.covers(&name(), &old);
                let newly = known.wide.iter().filter(|(_, policy)| covers(policy));
                let asked = newly.map(|(of, it)| {
                    Asked::new(Origin::ClusterSecurityPolicy(of.clone()), it.requirement.clone(), None)
                });
                (Some(name()), asked.collect())
            }
            _ => return None,
        };
        let asked: Vec<Asked> = asked.into_iter().filter(Asked::enforces).collect();
        let mut known = known.clone();
        for Asked { covering, wide } in &asked {
            if let (Origin::ClusterSecurityPolicy(name), Some(wide)) = (&covering.origin, wide) {
                Arc::make_mut(&mut known.wide).insert(name.clone(), wide.clone());
            }
        }
        (!asked.is_empty()).then(|| Self {
            namespace,
            asked,
            known,
            violating: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            coverings: BTreeMap::new(),
        })
    }

    /// Judges a pod that is there.
    pub fn judge(&mut self, (namespace, name): (&str, &str), pod: &Kept, now: Timestamp) {
        let Ok(seen) = pod.seen(true) else { return };
        if !self.coverings.contains_key(namespace) {
            self.coverings.insert(namespace.into(), self.covering(namespace));
        }
        for (index, covering) in self.coverings.get(namespace).into_iter().flatten() {
            for finding in findings(std::slice::from_ref(covering), &seen, now) {
                let (first, pods) =
                    self.violating.entry((*index, finding.reasons())).or_insert_with(|| (name.to_owned(), 0));
                if name < first.as_str() {
                    name.clone_into(first);
                }
                *pods = pods.saturating_add(1);
                self.namespaces.insert(namespace.to_owned());
            }
        }
    }

    fn covering(&self, namespace: &str) -> Vec<(usize, Covering)> {
        let labels = self.known.labels_of(namespace);
        let covers = |asked: &Asked| asked.wide.as_ref().is_none_or(|wide| wide.covers(namespace, labels));
        let asked = self.asked.iter().enumerate().filter(|(_, asked)| covers(asked));
        asked.map(|(index, asked)| (index, self.known.excepting(namespace, asked.covering.clone()))).collect()
    }

    /// What the author is told; `checked` of `total` pods have been judged.
    #[must_use]
    pub fn warnings(&self, checked: usize, total: usize) -> Vec<String> {
        let mut warnings = vec![];
        for (index, Asked { covering, .. }) in self.asked.iter().enumerate() {
            let of: Vec<_> = self.violating.iter().filter(|((asked, _), _)| *asked == index).collect();
            if of.is_empty() {
                continue;
            }
            let place = match &self.namespace {
                Some(namespace) => format!("namespace {namespace:?}"),
                None if self.namespaces.len() == 1 => "1 namespace".into(),
                None => format!("{} namespaces", self.namespaces.len()),
            };
            let policy = covering.origin.named().map(|(kind, name)| format!("{kind} {name}")).unwrap_or_default();
            warnings.push(format!("existing pods in {place} violate what {policy} comes to enforce"));
            for ((_, reasons), (pod, pods)) in of.iter().take(LINES) {
                let shown = match (&self.namespace, pods.saturating_sub(1)) {
                    // Whoever reaches the webhook may ask this, and must not hear names of every namespace.
                    (None, 0) => "1 pod".to_owned(),
                    (None, _) => format!("{pods} pods"),
                    (Some(_), 0) => pod.clone(),
                    (Some(_), 1) => format!("{pod} (and 1 other pod)"),
                    (Some(_), others) => format!("{pod} (and {others} other pods)"),
                };
                warnings.push(format!("{shown}: {reasons}"));
            }
            if let Some(more) = of.len().checked_sub(LINES).filter(|more| *more > 0) {
                warnings.push(format!("and {more} more kinds of violations"));
            }
        }
        if checked < total {
            warnings.push(format!("only the first {checked} of {total} existing pods have been checked"));
        }
        warnings
    }
}

/// What is new, unless it is as before.
fn changed<T>(new: T, old: Option<&T>, is_same: impl Fn(&T, &T) -> bool) -> Option<T> {
    old.is_none_or(|old| !is_same(old, &new)).then_some(new)
}

/// Whether pods are refused alike: who refuses them, and whether they are completed before, is another thing.
fn enforces_the_same(one: &Requirement, other: &Requirement) -> bool {
    one.mode == other.mode && one.standard() == other.standard()
}

fn enforces_the_same_there(one: &ClusterWide, other: &ClusterWide) -> bool {
    enforces_the_same(&one.requirement, &other.requirement)
        && (&one.selector, &one.included, &one.exceptions) == (&other.selector, &other.included, &other.exceptions)
}

impl Asked {
    fn new(origin: Origin, requirement: Requirement, wide: Option<ClusterWide>) -> Self {
        Self { covering: Covering { origin, made: None, requirement, exceptions: Arc::default() }, wide }
    }

    fn enforces(&self) -> bool {
        self.covering.requirement.mode == HardeningMode::Enforce
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::admission::Review;

    fn review(kind: (&str, &str), object: &Value, old: &Value) -> String {
        let operation = if old.is_null() { "CREATE" } else { "UPDATE" };
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": {"group": kind.0, "version": "v1", "kind": kind.1}, "operation": operation,
            "name": "it", "namespace": "n", "object": object, "oldObject": old}})
        .to_string()
    }

    fn policy(kind: &str, mode: &str, level: &str) -> Value {
        let mut policy = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": kind, "metadata": {"name": "it"},
            "spec": {"hardening": {"mode": mode, "podSecurity": {"level": level}}}});
        if kind == "ClusterSecurityPolicy" {
            policy["spec"]["namespaceSelector"] = json!({"matchLabels": {"a": "b"}});
        }
        policy
    }

    fn labelled(value: &str) -> Value {
        json!({"metadata": {"name": "it", "labels": {"a": value}}})
    }

    fn known() -> Policies {
        let wide: ClusterSecurityPolicy =
            serde_json::from_value(policy("ClusterSecurityPolicy", "Enforce", "baseline")).unwrap();
        let labels = [("n".to_owned(), Arc::new([("a".to_owned(), "b".to_owned())].into()))].into();
        Policies {
            wide: Arc::new([("wide".to_owned(), ClusterWide::try_from(&wide).unwrap())].into()),
            labels: Arc::new(labels),
            ..Policies::default()
        }
    }

    fn warnings(kind: (&str, &str), object: &Value, old: &Value) -> Option<Vec<String>> {
        let review = review(kind, object, old);
        let mut preview = Preview::of(&Review::parse(review.as_bytes()).unwrap(), &known())?;
        for (namespace, name, host_network) in [("n", "b", true), ("n", "a", true), ("n", "c", false), ("m", "d", true)]
        {
            let spec = json!({"hostNetwork": host_network, "containers": [{"name": "a"}]});
            let pod = Kept::of(&ObjectMeta::default(), json!({"spec": spec}))?;
            preview.judge((namespace, name), &pod, Timestamp::UNIX_EPOCH);
        }
        Some(preview.warnings(4, 4))
    }

    #[test]
    fn violations_are_counted_by_reason_and_the_first_pod_named() {
        let own = warnings(
            ("rampart.dev", "SecurityPolicy"),
            &policy("SecurityPolicy", "Enforce", "baseline"),
            &policy("SecurityPolicy", "Warn", "baseline"),
        );
        // The pods that are asked about are those of the one namespace, which the caller lists.
        let title = "existing pods in namespace \"n\" violate what SecurityPolicy it comes to enforce";
        assert_eq!(own.unwrap(), [title, "a (and 2 other pods): host namespaces"]);
        let wide = warnings(
            ("rampart.dev", "ClusterSecurityPolicy"),
            &policy("ClusterSecurityPolicy", "Enforce", "baseline"),
            &Value::Null,
        );
        let title = "existing pods in 1 namespace violate what ClusterSecurityPolicy it comes to enforce";
        assert_eq!(wide.unwrap(), [title, "2 pods: host namespaces"]);
        let labels = warnings(("", "Namespace"), &labelled("b"), &labelled("c"));
        let title = "existing pods in namespace \"it\" violate what ClusterSecurityPolicy wide comes to enforce";
        assert_eq!(labels.unwrap(), [title, "a (and 2 other pods): host namespaces"]);
    }

    #[rstest]
    #[case::nothing_else_than_before("SecurityPolicy", ["Enforce", "Enforce"], json!({}))]
    #[case::only_warned_of("SecurityPolicy", ["Warn", "Audit"], json!({}))]
    #[case::cluster_wide("ClusterSecurityPolicy", ["Enforce", "Enforce"], json!({}))]
    #[case::another_part("ClusterSecurityPolicy", ["Enforce", "Enforce"], json!({"apiKeys": {"maxTtl": "1h"}}))]
    #[case::who_refuses("SecurityPolicy", ["Enforce", "Enforce"], json!({"hardening": {"mode": "Enforce",
        "podSecurity": {"level": "baseline"}, "admissionPolicy": "None", "fix": "Apply"}}))]
    fn no_pods_are_read_for_what_enforces_nothing_new(
        #[case] kind: &str,
        #[case] modes: [&str; 2],
        #[case] more: Value,
    ) {
        let [mut new, old] = modes.map(|mode| policy(kind, mode, "baseline"));
        new["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(warnings(("rampart.dev", kind), &new, &old), None);
    }

    #[test]
    fn labels_that_change_nothing_read_no_pods() {
        assert_eq!(warnings(("", "Namespace"), &labelled("b"), &labelled("b")), None);
        assert_eq!(warnings(("", "Namespace"), &labelled("c"), &labelled("b")), None);
    }

    #[test]
    fn what_was_left_out_is_said() {
        let review =
            review(("rampart.dev", "SecurityPolicy"), &policy("SecurityPolicy", "Enforce", "baseline"), &Value::Null);
        let preview = Preview::of(&Review::parse(review.as_bytes()).unwrap(), &known()).unwrap();
        assert_eq!(preview.warnings(3000, 4000), ["only the first 3000 of 4000 existing pods have been checked"]);
    }
}
