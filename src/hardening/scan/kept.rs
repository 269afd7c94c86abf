//! What is kept of a pod: all that a policy can look at, without the environment variables and commands of
//! its containers, which may hold secrets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::Controller;
use crate::hardening::Seen;

/// Fields of a pod's spec that no policy looks at, and that can be long; and its node, which the scheduler names.
const UNSEEN: [&str; 4] = ["topologySpreadConstraints", "hostAliases", "dnsConfig", "nodeName"];
/// The same, of its affinity.
const UNSEEN_OF_AFFINITY: [&str; 2] = ["podAffinity", "podAntiAffinity"];
/// The same, of containers.
const UNSEEN_OF_CONTAINERS: [&str; 4] = ["env", "envFrom", "command", "args"];
/// Annotations that the standards look at have one of these in their keys.
const PROFILES: [&str; 2] = ["apparmor.", "seccomp."];

/// A pod, kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    json: Box<str>,
    /// Its UID.
    pub uid: String,
    /// Whether it is being deleted.
    pub ending: bool,
    /// Its controller.
    pub controller: Option<Controller>,
}

impl Kept {
    /// `None` for a pod that has finished: it runs nothing any more.
    #[must_use]
    pub fn of(metadata: &ObjectMeta, mut data: Value) -> Option<Self> {
        let phase = data.pointer("/status/phase").and_then(Value::as_str);
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let mut spec = data.get_mut("spec").map(Value::take).unwrap_or_default();
        strip(&mut spec, &UNSEEN);
        spec.get_mut("affinity").into_iter().for_each(|affinity| strip(affinity, &UNSEEN_OF_AFFINITY));
        for list in ["initContainers", "containers", "ephemeralContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            containers.into_iter().flatten().for_each(|container| strip(container, &UNSEEN_OF_CONTAINERS));
        }
        let mut annotations = metadata.annotations.clone().unwrap_or_default();
        annotations.retain(|key, _| PROFILES.iter().any(|profile| key.contains(profile)));
        let kept = json!({"metadata": {"labels": metadata.labels, "annotations": annotations}, "spec": spec});
        let owners = metadata.owner_references.iter().flatten();
        let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let controller = owner.and_then(|owner| Controller::of(namespace, owner));
        let uid = metadata.uid.clone().unwrap_or_default();
        Some(Self { json: kept.to_string().into(), uid, ending: metadata.deletion_timestamp.is_some(), controller })
    }

    /// The pod as it is judged, with what rules look at where they are asked.
    ///
    /// # Errors
    /// When it has not the shape of a pod.
    pub fn seen(&self, rules: bool) -> serde_json::Result<Seen<'_>> {
        Seen::read(&self.json, rules)
    }
}

fn strip(value: &mut Value, fields: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|field, _| !fields.contains(&field.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_environment_and_finished_pods_are_not_kept() {
        let spec = json!({"containers": [{"name": "a", "env": [{"name": "PASSWORD", "value": "hunter2"}],
            "command": ["sh", "-c", "login hunter2"]}], "hostNetwork": true});
        let kept = Kept::of(&ObjectMeta::default(), json!({"spec": spec})).unwrap();
        assert!(!kept.json.contains("hunter2") && kept.json.contains("hostNetwork"), "{}", kept.json);
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(Kept::of(&ObjectMeta::default(), json!({"spec": spec, "status": {"phase": phase}})), None);
        }
    }
}
