//! Which updates of a pod matter: those that change what runs in it, and, to rules on that alone, those that change
//! where it may run. All others, a label or the removal of a finalizer, must go through whatever the pod looks like.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use serde::Deserialize;
use serde_json::Value;

use crate::hardening::Moved;

#[derive(Deserialize)]
struct Images<'a> {
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow, default)]
    init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    ephemeral_containers: Option<Vec<Container<'a>>>,
    #[serde(default)]
    node_selector: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    affinity: Option<Affinity>,
    #[serde(default)]
    tolerations: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Affinity {
    #[serde(default)]
    node_affinity: Option<BTreeMap<String, Value>>,
}

impl Spec<'_> {
    /// By what it chooses its nodes.
    fn nodes(self) -> [BTreeMap<String, Value>; 2] {
        let affinity = self.affinity.unwrap_or_default().node_affinity;
        [self.node_selector, affinity].map(Option::unwrap_or_default)
    }
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    image: Cow<'a, str>,
}

/// What else an update changes that changes neither the number nor the image of containers, and adds no ephemeral one.
/// `None` for any other (`isSignificantPodUpdate` of the reference), and for what can't be read.
pub(super) fn insignificant(new: &str, old: &str) -> Option<Moved> {
    let (new, old): (Images<'_>, Images<'_>) = (serde_json::from_str(new).ok()?, serde_json::from_str(old).ok()?);
    let before: HashMap<&str, &str> =
        old.spec.ephemeral_containers.iter().flatten().map(|container| (&*container.name, &*container.image)).collect();
    let same = same_images(new.spec.containers.as_deref(), old.spec.containers.as_deref())
        && same_images(new.spec.init_containers.as_deref(), old.spec.init_containers.as_deref())
        && new
            .spec
            .ephemeral_containers
            .iter()
            .flatten()
            .all(|container| before.get(&*container.name).is_some_and(|image| *image == container.image));
    let tolerated = |spec: &mut Spec<'_>| spec.tolerations.take().unwrap_or_default();
    let (mut new, mut old) = (new.spec, old.spec);
    same.then(|| Moved {
        tolerations: tolerated(&mut new) != tolerated(&mut old),
        node_selector: new.nodes() != old.nodes(),
    })
}

fn same_images(new: Option<&[Container<'_>]>, old: Option<&[Container<'_>]>) -> bool {
    let (new, old) = (new.unwrap_or_default(), old.unwrap_or_default());
    new.len() == old.len() && new.iter().zip(old).all(|(new, old)| new.image == old.image)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::{
        admission::{Review, decide},
        hardening::{Covering, Enforcement, Origin, Requirement},
    };

    const OLD: &str = r#"{"spec": {"containers": [{"name": "a", "image": "x"}], "ephemeralContainers": [{"name": "d", "image": "x"}]}}"#;

    #[rstest]
    #[case::a_label(r#"{"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "x"}], "ephemeralContainers": [{"name": "d", "image": "x"}]}}"#, true)]
    #[case::an_image(r#"{"spec": {"containers": [{"name": "a", "image": "y"}]}}"#, false)]
    #[case::another_container(
        r#"{"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}}"#,
        false
    )]
    #[case::an_init_container(
        r#"{"spec": {"initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "a", "image": "x"}]}}"#,
        false
    )]
    #[case::a_debug_container(r#"{"spec": {"containers": [{"name": "a", "image": "x"}], "ephemeralContainers": [{"name": "d", "image": "x"}, {"name": "e", "image": "x"}]}}"#, false)]
    #[case::another_debug_image(r#"{"spec": {"containers": [{"name": "a", "image": "x"}], "ephemeralContainers": [{"name": "d", "image": "y"}]}}"#, false)]
    #[case::not_a_pod("[]", false)]
    fn what_matters(#[case] new: &str, #[case] insignificant: bool) {
        assert_eq!(super::insignificant(new, OLD).is_some(), insignificant);
    }

    fn affinity(label: &str) -> Value {
        let term = json!({"matchExpressions": [{"key": label, "operator": "Exists"}]});
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}})
    }

    /// The old pod violates the standard, and both rules.
    #[rstest]
    #[case::a_label(json!({"metadata": {"labels": {"a": "b"}}}), None)]
    #[case::no_node(json!({"spec": {"hostNetwork": true}}), None)]
    #[case::a_toleration(json!({"spec": {"tolerations": [{"key": "role"}, {"key": "other"}]}}), Some("tolerations"))]
    #[case::a_good_toleration(json!({"spec": {"tolerations": [{"key": "other"}]}}), None)]
    #[case::a_node(json!({"spec": {"nodeSelector": {"role": "x", "disk": "ssd"}}}), Some("nodeSelector"))]
    #[case::nodes_by_affinity(json!({"spec": {"affinity": affinity("role")}}), Some("nodeSelector"))]
    #[case::other_nodes_by_affinity(json!({"spec": {"nodeSelector": {}, "affinity": affinity("disk")}}), None)]
    #[case::a_good_node(json!({"spec": {"nodeSelector": {"disk": "ssd"}}}), None)]
    fn rules_on_what_is_added_are_judged_alone(#[case] change: Value, #[case] wanted: Option<&str>) {
        let rules = json!({
            "nodeSelector": {"forbid": ["role"]}, "tolerations": {"forbid": ["role"]}, "probes": ["liveness"],
        });
        let hardening = json!({"mode": "Enforce", "podSecurity": {"level": "baseline"}, "rules": rules});
        let requirement = Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap();
        let origin = Origin::SecurityPolicy("p".into());
        let covering = Covering { origin, made: None, requirement, exceptions: Arc::default() };
        let old = json!({"spec": {"hostPID": true, "nodeSelector": {"role": "x"}, "tolerations": [{"key": "role"}],
            "containers": [{"name": "a", "image": "x"}]}});
        let mut new = old.clone();
        for (part, fields) in change.as_object().unwrap() {
            for (field, value) in fields.as_object().unwrap() {
                new[part][field] = value.clone();
            }
        }
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "UPDATE",
            "object": new, "oldObject": old}});
        let text = review.to_string();
        let request = Review::parse(text.as_bytes()).unwrap();
        let answer = decide(&request, &[covering], Enforcement::InForce, Timestamp::UNIX_EPOCH);
        let message = answer.status.map(|status| status.message).unwrap_or_default();
        assert_eq!(answer.allowed, wanted.is_none(), "{message}");
        if let Some(rule) = wanted {
            assert!(message.contains(&format!("forbidden: violates hardening/{rule} (")), "{message}");
            assert_eq!(message.matches("hardening/").count(), 1, "{message}");
        }
    }
}
