//! What a NetworkPolicy is: whose, about whom, and the traps that it is in.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use rampart_reach::Policy;
use serde::Serialize;

use super::{
    crowd::Crowd,
    known::{Extent, Known},
    terrain::{Named, Terrain, isolates},
};
use crate::{
    api::labels::{OWNER_UID, PART, RECIPROCAL},
    network::traps,
};

/// What is said of a NetworkPolicy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    /// Kind and name of the policy that it was made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
    /// What to know before the rest.
    pub(super) notes: Vec<String>,
    /// Directions that it isolates.
    pub(super) isolates: Vec<&'static str>,
    /// Pods that it selects.
    pub(super) pods: Crowd,
    /// How many, where they could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) selected: Option<usize>,
    pub(super) traps: Vec<Trapped>,
}

/// A trap that it is in.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trapped {
    pub(super) rule: String,
    pub(super) path: String,
    pub(super) detail: String,
    /// Whether what was read shows it.
    pub(super) certain: bool,
}

/// What there is to say of a NetworkPolicy.
pub(super) fn network_policy(written: &NetworkPolicy, known: &Known, terrain: &Terrain<'_>) -> Written {
    let named = Named::of(written);
    let mut notes = vec![];
    if written.labels().get(PART).is_some_and(|part| part == RECIPROCAL) {
        notes.push("it opens the other end of connections that its owner allows".into());
    }
    if let Some(owner) = &named.owner {
        notes.push("Rampart keeps it: a change by hand is put back while its owner enforces".into());
        let uid = written.labels().get(OWNER_UID);
        let is_there = known.policies_of(&named.namespace).any(|policy| policy.uid().as_ref() == uid);
        if !is_there && owner.starts_with("SecurityPolicy ") {
            notes.push(format!("{owner}, for which it was made, was not found"));
        }
    }
    let Some(place) = terrain.names.iter().position(|it| *it == named) else {
        notes.push("it can't be read".into());
        return Written {
            owner: named.owner,
            notes,
            isolates: vec![],
            pods: Crowd::default(),
            selected: None,
            traps: vec![],
        };
    };
    let policy = terrain.policies.get(place);
    let pods = policy.map(|policy| terrain.selected(policy)).unwrap_or_default();
    Written {
        owner: named.owner,
        notes,
        isolates: policy.map(isolates).unwrap_or_default(),
        pods: Crowd::of_pods(terrain, &pods),
        selected: (known.seen.pods != Extent::Nothing).then_some(pods.len()),
        traps: policy.map(|policy| trapped(written, policy, terrain)).unwrap_or_default(),
    }
}

fn trapped(written: &NetworkPolicy, policy: &Policy, terrain: &Terrain<'_>) -> Vec<Trapped> {
    let all: Vec<&Policy> = terrain.policies.iter().collect();
    let told = traps(written, policy, &all).into_iter().map(|(trap, caught)| Trapped {
        rule: trap.rule(),
        path: caught.path,
        detail: caught.detail,
        certain: caught.is_certain,
    });
    told.collect()
}
