//! What was read of a cluster.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use rampart_reach::Namespace;
use serde::Serialize;
use serde_json::{Value, json};

pub(super) use super::super::reader::Extent;
use super::terrain::Inhabitant;
use crate::{
    api::{
        ClusterLegalHold, ClusterSecurityPolicy, LegalHold, PolicyException, RetentionPolicy, RetentionReport,
        SecurityPolicy,
    },
    cli::check::policies::Read,
    cluster::pause::Pause,
    hardening::Policies,
    network::{Facts, Service},
};

/// What was read of a cluster; of what could not be, `unread` tells.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) namespaces: Vec<Namespace>,
    pub(super) pods: Vec<Inhabitant>,
    pub(super) network_policies: Vec<NetworkPolicy>,
    pub(super) policies: Vec<SecurityPolicy>,
    pub(super) cluster_policies: Vec<ClusterSecurityPolicy>,
    pub(super) exceptions: Vec<PolicyException>,
    pub(super) retention: Vec<RetentionPolicy>,
    /// Plans of retention that may wait for approval, or have it.
    pub(super) plans: Vec<RetentionReport>,
    pub(super) holds: Vec<LegalHold>,
    pub(super) cluster_holds: Vec<ClusterLegalHold>,
    pub(super) services: BTreeMap<(String, String), Service>,
    pub(super) facts: Facts,
    pub(super) pause: Option<Pause>,
    /// Since when no controller works.
    pub(super) away_since: Option<Timestamp>,
    /// What could not be read, and why.
    pub(super) unread: Vec<String>,
    pub(super) seen: Seen,
}

/// How much was seen of what decides: nothing is told of what was not, and what was seen in part is told as such.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) namespaces: Extent,
    pub(super) pods: Extent,
    pub(super) network_policies: Extent,
    /// Policies, exceptions and labels by which hardening decides.
    pub(super) hardening: Extent,
}

impl Known {
    /// The policies of hardening, as the operator holds them, and those that it could not read.
    pub(super) fn hardening(&self) -> (Policies, Vec<String>) {
        let (mut read, mut broken) = (Read::default(), vec![]);
        let namespaces = self.namespaces.iter().map(
            |it| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": it.name, "labels": it.labels}}),
        );
        let objects = wire(&self.policies).chain(wire(&self.cluster_policies)).chain(wire(&self.exceptions));
        for object in namespaces.chain(objects) {
            if let Err(why) = read.add(&object, "") {
                let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                broken.push(format!("{} {}: {why}", text("/kind"), text("/metadata/name")));
            }
        }
        (read.policies(), broken)
    }

    /// Labels of a namespace; none of one that is not known.
    pub(super) fn labels(&self, namespace: &str) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.namespaces.iter().find(|it| it.name == namespace).map_or(&NONE, |it| &it.labels)
    }

    /// SecurityPolicies of a namespace.
    pub(super) fn policies_of(&self, namespace: &str) -> impl Iterator<Item = &SecurityPolicy> {
        self.policies.iter().filter(move |policy| policy.namespace().as_deref() == Some(namespace))
    }
}

fn wire<K: Serialize>(objects: &[K]) -> impl Iterator<Item = Value> {
    objects.iter().filter_map(|object| serde_json::to_value(object).ok())
}
