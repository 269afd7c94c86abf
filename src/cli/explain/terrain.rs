//! Pods and NetworkPolicies, as what is asked of them needs them: pods with their workloads, policies with their
//! owners.

use std::collections::BTreeMap;

use k8s_openapi::{api::networking::v1::NetworkPolicy, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{ResourceExt as _, api::DynamicObject};
use rampart_reach::{Namespace, Pod, Policy};
use serde::Serialize;

use crate::{
    api::labels::{OWNER_KIND, OWNER_NAME},
    cluster::owner::is_managed,
    hardening::Controller,
    network::{Population, Resident, understood},
};

/// The label that a Deployment puts on its ReplicaSets and their pods.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What pods are told by: what made them, or the pod itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Workload {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) kind: String,
}

/// A pod that is there.
#[derive(Debug, Clone)]
pub(super) struct Inhabitant {
    pub(super) resident: Resident,
    pub(super) workload: Workload,
}

impl Inhabitant {
    /// `None` for a pod that has finished.
    pub(super) fn of(pod: &DynamicObject) -> Option<Self> {
        let resident = Resident::of(&pod.metadata, &pod.data)?;
        Some(Self { workload: workload(&pod.metadata), resident })
    }
}

/// A pod's workload, of what the pod itself says.
pub(super) fn workload(metadata: &ObjectMeta) -> Workload {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let Some(controller) = owner.and_then(|owner| Controller::of(&namespace, owner)) else {
        return Workload { namespace, name: metadata.name.clone().unwrap_or_default(), kind: "Pod".into() };
    };
    let hash = metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH));
    let deployment = hash.and_then(|hash| controller.name.strip_suffix(hash)?.strip_suffix('-'));
    match deployment {
        Some(name) => Workload { namespace, name: name.into(), kind: "Deployment".into() },
        None => Workload { namespace, kind: format!("{:?}", controller.kind), name: controller.name },
    }
}

/// A NetworkPolicy by its name, and for whom Rampart made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Named {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Kind and name of the policy that it was made for: `SecurityPolicy web`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
}

impl Named {
    pub(super) fn of(policy: &NetworkPolicy) -> Self {
        Self {
            namespace: policy.namespace().unwrap_or_default(),
            name: policy.name_any(),
            owner: owner(policy.labels()),
        }
    }
}

/// For whom Rampart made an object with these labels.
fn owner(labels: &BTreeMap<String, String>) -> Option<String> {
    let (kind, name) = (labels.get(OWNER_KIND)?, labels.get(OWNER_NAME)?);
    is_managed(labels, kind).then(|| format!("{kind} {name}"))
}

/// Pods by workload.
pub(super) type Counts = BTreeMap<Workload, usize>;

/// Pods and NetworkPolicies.
#[derive(Debug)]
pub(super) struct Terrain<'k> {
    pub(super) population: Population,
    /// What each pod belongs to, by its place.
    workloads: Vec<Workload>,
    /// How many pods each workload has.
    pub(super) counts: Counts,
    /// The same, of pods in the network of their node.
    pub(super) counts_in_host_network: Counts,
    /// NetworkPolicies that the API server would take, as they are written.
    pub(super) written: Vec<&'k NetworkPolicy>,
    /// The same, as they are understood.
    pub(super) policies: Vec<Policy>,
    pub(super) names: Vec<Named>,
}

impl<'k> Terrain<'k> {
    pub(super) fn new(namespaces: Vec<Namespace>, pods: &[Inhabitant], policies: &'k [NetworkPolicy]) -> Self {
        let known = policies.iter().filter_map(|written| Some((written, understood(written)?)));
        let (written, policies): (Vec<_>, Vec<_>) = known.unzip();
        let count = |in_host: bool| {
            let mut counts = Counts::new();
            for pod in pods.iter().filter(|it| it.resident.pod.host_network == in_host) {
                let pods = counts.entry(pod.workload.clone()).or_default();
                *pods = pods.saturating_add(1);
            }
            counts
        };
        Self {
            counts: count(false),
            counts_in_host_network: count(true),
            population: Population::new(namespaces, pods.iter().map(|it| it.resident.clone())),
            workloads: pods.iter().map(|it| it.workload.clone()).collect(),
            names: written.iter().map(|written| Named::of(written)).collect(),
            written,
            policies,
        }
    }

    pub(super) fn pods(&self) -> &[Pod] {
        self.population.index.pods()
    }

    /// Every pod, with its place and its workload.
    pub(super) fn inhabitants(&self) -> impl Iterator<Item = (usize, &Pod, &Workload)> {
        self.pods().iter().zip(&self.workloads).enumerate().map(|(place, (pod, workload))| (place, pod, workload))
    }

    /// A pod, and its workload.
    pub(super) fn inhabitant(&self, place: usize) -> Option<(&Pod, &Workload)> {
        self.pods().get(place).zip(self.workloads.get(place))
    }

    /// The place of a pod.
    pub(super) fn place(&self, namespace: &str, name: &str) -> Option<usize> {
        self.pods().iter().position(|pod| pod.namespace == namespace && pod.name == name)
    }

    /// Places of the pods that a policy selects.
    pub(super) fn selected(&self, policy: &Policy) -> Vec<usize> {
        self.population.index.selected(&policy.namespace, &policy.pods)
    }

    /// Places of the pods of a workload.
    pub(super) fn of_workload(&self, wanted: &Workload) -> Vec<usize> {
        self.inhabitants().filter(|(.., workload)| *workload == wanted).map(|(place, ..)| place).collect()
    }
}

/// Directions that a policy isolates.
pub(super) fn isolates(policy: &Policy) -> Vec<&'static str> {
    let ways = [("ingress", policy.ingress.is_some()), ("egress", policy.egress.is_some())];
    ways.into_iter().filter(|(_, isolates)| *isolates).map(|(way, _)| way).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(metadata: serde_json::Value) -> (String, String) {
        let workload = workload(&serde_json::from_value(metadata).unwrap());
        (workload.kind, workload.name)
    }

    #[test]
    fn pods_are_told_by_what_made_them() {
        let owned = |kind: &str, api: &str, name: &str, labels: serde_json::Value| {
            told(json!({"name": "a", "namespace": "n", "labels": labels, "ownerReferences": [
                {"apiVersion": api, "kind": kind, "name": name, "uid": "u", "controller": true}]}))
        };
        let wanted = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
        let hash = json!({"pod-template-hash": "7d9f"});
        assert_eq!(owned("ReplicaSet", "apps/v1", "web-7d9f", hash.clone()), wanted("Deployment", "web"));
        assert_eq!(owned("ReplicaSet", "apps/v1", "web-other", hash.clone()), wanted("ReplicaSet", "web-other"));
        assert_eq!(owned("StatefulSet", "apps/v1", "db", json!({})), wanted("StatefulSet", "db"));
        assert_eq!(owned("Workflow", "argoproj.io/v1alpha1", "x", hash), wanted("Pod", "a"));
        assert_eq!(told(json!({"name": "a"})), wanted("Pod", "a"));
    }
}
