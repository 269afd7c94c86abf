//! What a policy is about, and what is true of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt as _};
use serde::Serialize;

use super::{
    crowd::Crowd,
    known::{Extent, Known},
    terrain::Terrain,
};
use crate::{
    api::{
        ClusterSecurityPolicy, Direction, Enforcer, Hardening, HardeningMode, HardeningStatus, KeyCaps, Level, Network,
        NetworkMode, NetworkStatus, PodCounts, Sample, SecurityPolicy, condition::Type,
    },
    hardening::ClusterWide,
    policy,
};

/// What is said of a SecurityPolicy or ClusterSecurityPolicy.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Policy {
    /// What to know before the rest.
    pub(super) notes: Vec<String>,
    /// Conditions that tell of trouble.
    pub(super) conditions: Vec<Told>,
    /// Namespaces that a ClusterSecurityPolicy covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespaces: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hardening: Option<Asked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<Intended>,
    /// What ApiKeys there may ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api_keys: Option<KeyCaps>,
}

/// A condition.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Told {
    pub(super) fn of(it: &Condition) -> Self {
        Self {
            kind: it.type_.clone(),
            status: it.status.clone(),
            reason: it.reason.clone(),
            message: it.message.clone(),
        }
    }
}

/// What is asked of pods.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    pub(super) mode: HardeningMode,
    pub(super) level: Level,
    pub(super) version: String,
    pub(super) enforced_by: Vec<Enforcer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pods: Option<PodCounts>,
    pub(super) violating: Vec<Sample>,
    pub(super) more_violating: u32,
}

/// What is intended of the network.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Intended {
    pub(super) mode: NetworkMode,
    pub(super) isolate: Vec<Direction>,
    /// Pods that it is about.
    pub(super) pods: Crowd,
    /// How many, where they could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) selected: Option<usize>,
    /// The rest, as the status says it.
    #[serde(flatten)]
    pub(super) status: NetworkStatus,
}

/// What there is to say of a SecurityPolicy.
pub(super) fn security_policy(policy: &SecurityPolicy, known: &Known, terrain: &Terrain<'_>) -> Policy {
    let sees_pods = known.seen.pods != Extent::Nothing;
    let status = policy.status.clone().unwrap_or_default();
    let mut told = Policy {
        conditions: trouble(&status.conditions),
        notes: notes(policy, status.observed_generation, policy.spec.suspend),
        hardening: policy.spec.hardening.as_ref().map(|it| asked(it, status.hardening)),
        ..Policy::default()
    };
    let namespace = policy.namespace().unwrap_or_default();
    let selected = match policy::intent(policy, &namespace) {
        Ok(intent) => intent.map(|intent| intent.selected(&terrain.population.index, &namespace)),
        Err(refused) => {
            told.notes.push(format!("it can't be read: {refused}"));
            None
        }
    };
    let intended = |network: &Network| {
        let selected = selected.unwrap_or_default();
        Intended {
            mode: network.mode,
            isolate: network.isolate.clone(),
            pods: Crowd::of_pods(terrain, &selected),
            selected: sees_pods.then_some(selected.len()),
            status: status.network.unwrap_or_default(),
        }
    };
    told.network = policy.spec.network.as_ref().map(intended);
    told
}

/// What there is to say of a ClusterSecurityPolicy.
pub(super) fn cluster_security_policy(policy: &ClusterSecurityPolicy, known: &Known, terrain: &Terrain<'_>) -> Policy {
    let status = policy.status.clone().unwrap_or_default();
    let mut told = Policy {
        conditions: trouble(&status.conditions),
        notes: notes(policy, status.observed_generation, policy.spec.suspend),
        hardening: policy.spec.hardening.as_ref().map(|it| asked(it, status.hardening)),
        api_keys: policy.spec.api_keys.clone(),
        ..Policy::default()
    };
    match ClusterWide::try_from(policy) {
        Ok(_) if known.seen.namespaces != Extent::Whole => {}
        Ok(wide) => {
            let covered = known.namespaces.iter().filter(|it| wide.covers(&it.name, &it.labels));
            let mut covered: Vec<String> = covered.map(|it| it.name.clone()).collect();
            covered.sort();
            let isolated = covered.iter().filter(|it| wide.isolates(it, known.labels(it)));
            let index = &terrain.population.index;
            let selected: Vec<usize> = isolated
                .filter_map(|namespace| Some(wide.network.as_ref()?.selected(index, namespace)))
                .flatten()
                .collect();
            told.network = policy.spec.network.as_ref().map(|network| Intended {
                mode: network.mode,
                isolate: network.isolate.clone(),
                pods: Crowd::of_pods(terrain, &selected),
                selected: (known.seen.pods != Extent::Nothing).then_some(selected.len()),
                status: status.network.unwrap_or_default().into(),
            });
            told.namespaces = Some(covered);
        }
        Err(invalid) => told.notes.push(format!("it can't be read: {invalid}")),
    }
    told
}

fn notes<K: Resource<DynamicType = ()>>(policy: &K, observed: Option<i64>, suspend: Option<bool>) -> Vec<String> {
    let mut notes: Vec<String> = outdated(policy, observed).into_iter().collect();
    if suspend == Some(true) {
        notes.push("it is suspended: NetworkPolicies stay as they are; admission goes on".into());
    }
    notes
}

/// That it has no status, or one of another spec.
pub(super) fn outdated<K: Resource>(object: &K, observed: Option<i64>) -> Option<String> {
    match observed {
        None => Some("it has no status: the operator has not seen it, or does not run".into()),
        Some(_) if observed != object.meta().generation => {
            Some("its status is about an older spec than it has now".into())
        }
        Some(_) => None,
    }
}

/// Conditions that tell of trouble: of what should be true, those that are not; of all others, those that are.
pub(super) fn trouble(conditions: &[Condition]) -> Vec<Told> {
    let good = [
        Type::Accepted,
        Type::Programmed,
        Type::Ready,
        Type::Rendered,
        Type::Analyzed,
        Type::DnsReachable,
        Type::ApiServerReachable,
        Type::EnforcerDetected,
    ]
    .map(Type::as_str);
    let is_trouble = |it: &&Condition| {
        // A preview is not programmed because it is one.
        it.reason != "Preview" && good.contains(&it.type_.as_str()) != (it.status == "True")
    };
    conditions.iter().filter(is_trouble).map(Told::of).collect()
}

fn asked(hardening: &Hardening, status: Option<HardeningStatus>) -> Asked {
    let status = status.unwrap_or_default();
    Asked {
        mode: hardening.mode,
        level: hardening.pod_security.level,
        version: hardening.pod_security.version.clone(),
        enforced_by: status.enforced_by,
        pods: status.pods,
        violating: status.samples,
        more_violating: status.more_samples.unwrap_or_default(),
    }
}
