//! What covers each namespace.

use std::collections::{BTreeMap, BTreeSet};

use rampart_reach::Selector;
use serde::Serialize;

use super::{
    World,
    policies::{Policies, Read, State},
};
use crate::{
    api::{DataClass, Direction, Enforcer, HardeningMode, NetworkMode},
    hardening::{Requirement, is_system_namespace},
};

/// A namespace.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Posture {
    /// Its name.
    pub namespace: String,
    /// Whether it is the cluster's or Rampart's own: no webhook judges its pods.
    pub system: bool,
    /// The strictest of what policies ask of its pods; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardening: Option<Hardened>,
    /// Pods that may be reached only by whom policies list.
    pub ingress: Isolation,
    /// Pods that may reach only whom policies list.
    pub egress: Isolation,
    /// Policies that are about it, those of the cluster first.
    pub policies: Vec<Policy>,
}

/// What is asked of pods.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hardened {
    /// What happens to a pod that violates.
    pub mode: HardeningMode,
    /// Level of the Pod Security Standards.
    pub level: &'static str,
    /// Version of the standards.
    pub version: String,
    /// Rules beyond the standards.
    pub rules: Vec<String>,
    /// How far it is true.
    pub state: State,
    /// What refuses pods, as the status says.
    pub enforced_by: Vec<Enforcer>,
}

/// Which pods of a namespace the policies isolate that are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Isolation {
    /// None.
    None,
    /// Some; or all, and something lets everybody through, or opens more than policies list.
    Some,
    /// All.
    All,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What it asks of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardening: Option<Hardened>,
    /// Whether its network intent is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkMode>,
    /// The class of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_class: Option<DataClass>,
    /// Whether it caps what ApiKeys may ask for.
    pub caps_keys: bool,
    /// Whether it is suspended.
    pub suspended: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// Why, or why not: the reason of the condition Ready; `Unseen` without a status, `Outdated` where the status is
    /// about an older spec.
    pub reason: String,
}

/// Names and labels of the namespaces that the report is about: those that were listed, and those of objects.
pub(super) fn namespaces(world: &World, policies: &Policies) -> BTreeMap<String, BTreeMap<String, String>> {
    let listed = world.namespaces.items.iter().map(|it| (it.name.clone(), it.labels.clone()));
    let keys = world.keys.items.iter().filter_map(|it| it.metadata.namespace.clone());
    let retention = world.retention.items.iter().filter_map(|it| it.metadata.namespace.clone());
    let own = policies.all.iter().filter_map(|it| it.namespace.clone());
    // That there is none of the name is known where namespaces were read.
    let only = world.only.clone().filter(|_| !world.namespaces.unread.is_empty());
    let of_objects = keys.chain(retention).chain(own).chain(only);
    let mut all: BTreeMap<String, BTreeMap<String, String>> = of_objects.map(|name| (name, BTreeMap::new())).collect();
    all.extend(listed);
    all.retain(|name, _| world.only.as_ref().is_none_or(|only| only == name));
    all
}

pub(super) fn posture(namespaces: &BTreeMap<String, BTreeMap<String, String>>, policies: &Policies) -> Vec<Posture> {
    let is_paused = policies.pause.is_some();
    let of = |(name, labels): (&String, &BTreeMap<String, String>)| {
        let about = || policies.all.iter().filter(|policy| policy.covers(name, labels));
        let strictest = about().filter_map(|policy| Some((policy.asked()?, policy)));
        let strictest =
            strictest.max_by_key(|(asked, policy)| (asked.mode, policy.hardening_state(is_paused), asked.level));
        Posture {
            namespace: name.clone(),
            system: is_system_namespace(name),
            hardening: strictest.map(|(asked, policy)| hardened(asked, policy, is_paused)),
            ingress: isolation(policies, name, labels, Direction::Ingress),
            egress: isolation(policies, name, labels, Direction::Egress),
            policies: about().map(|policy| line(policy, name, labels, is_paused)).collect(),
        }
    };
    namespaces.iter().map(of).collect()
}

fn hardened(asked: &Requirement, policy: &Read, is_paused: bool) -> Hardened {
    let enforced: BTreeSet<Enforcer> = policy.enforced_by().iter().copied().collect();
    Hardened {
        mode: asked.mode,
        level: asked.level.as_str(),
        version: asked.version.to_string(),
        rules: asked.rules.asked().map(crate::hardening::About::rule).collect(),
        state: policy.hardening_state(is_paused),
        enforced_by: if is_paused { vec![] } else { enforced.into_iter().collect() },
    }
}

fn line(policy: &Read, namespace: &str, labels: &BTreeMap<String, String>, is_paused: bool) -> Policy {
    let (ready, reason) = policy.ready();
    Policy {
        kind: policy.kind,
        name: policy.name.clone(),
        hardening: policy.asked().map(|asked| hardened(asked, policy, is_paused)),
        network: policy.isolates(namespace, labels).map(|_| policy.network_mode),
        data_class: policy.data_class,
        caps_keys: policy.caps_keys(),
        suspended: policy.suspended,
        ready,
        reason,
    }
}

/// Which pods of a namespace are isolated by policies that are in force. What one of them opens to everybody, or others
/// open further, leaves that in part.
pub(super) fn isolation(
    policies: &Policies,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    direction: Direction,
) -> Isolation {
    let about = || {
        let intents = policies.all.iter().filter_map(|policy| Some((policy, policy.isolates(namespace, labels)?)));
        intents.filter(move |(_, intent)| intent.isolate.contains(&direction))
    };
    let in_force = about().filter(|(policy, _)| policy.network_state() == State::InForce);
    let isolated = in_force.fold(Isolation::None, |found, (_, intent)| {
        found.max(if intent.pods.parsed == Selector::default() { Isolation::All } else { Isolation::Some })
    });
    // NetworkPolicies only add: what one opens, no other closes.
    let is_opened = about().filter(|(policy, _)| policy.is_written()).any(|(policy, intent)| {
        let least = policies.least_of(namespace, labels);
        policy.is_widened(namespace) || policy.opens((intent, direction), namespace, least)
    });
    if is_opened { isolated.min(Isolation::Some) } else { isolated }
}
