//! Policies of both kinds, parsed, with what their statuses say.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;

use super::{Pause, World};
use crate::{
    api::{
        ClusterNetworkStatus, ClusterSecurityPolicy, DataClass, Direction, Enforcer, HardeningMode, HardeningStatus,
        NetworkMode, NetworkStatus, SecurityPolicy,
        condition::{self, Type},
        rules::ServiceAccountToken,
    },
    hardening::{ClusterWide, Requirement, is_system_namespace},
    network::{Intent, Peer},
    policy,
};

/// NetworkPolicies of others that a status names at the most.
const WIDENING: usize = 20;

/// How far something is true of a namespace, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum State {
    /// It is asked for, and no status says that it is in force.
    Asked,
    /// It is in force for some, or is observed and nothing is refused.
    Partial,
    /// It is in force.
    InForce,
}

/// A policy of either kind.
pub(super) struct Read {
    pub(super) kind: &'static str,
    /// Of a SecurityPolicy.
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) suspended: bool,
    pub(super) data_class: Option<DataClass>,
    pub(super) requirement: Option<Requirement>,
    /// Whether pods may mount no token of their service account.
    pub(super) forbids_token: bool,
    pub(super) intent: Option<Intent>,
    pub(super) network_mode: NetworkMode,
    /// Of a ClusterSecurityPolicy: the namespaces.
    wide: Option<ClusterWide>,
    /// Whether the status is about the spec as it is.
    pub(super) is_current: bool,
    pub(super) conditions: Vec<Condition>,
    pub(super) hardening: Option<HardeningStatus>,
    pub(super) network: Option<Network>,
}

/// What either kind says of its network intent.
pub(super) struct Network {
    /// Namespaces that it is about, and those of them where it is programmed.
    pub(super) namespaces: Option<(i64, i64)>,
    pub(super) status: NetworkStatus,
}

/// All that could be parsed.
pub(super) struct Policies {
    pub(super) all: Vec<Read>,
    /// What could not.
    pub(super) notes: Vec<String>,
    /// The pause, while it holds.
    pub(super) pause: Option<Pause>,
}

pub(super) fn read(world: &World, now: Timestamp) -> Policies {
    let (mut all, mut notes) = (vec![], vec![]);
    for parsed in
        world.cluster_policies.items.iter().map(of_cluster).chain(world.policies.items.iter().map(of_namespace))
    {
        match parsed {
            Ok(policy) => all.push(policy),
            Err(broken) => notes.push(broken),
        }
    }
    let pause = world.pause.items.iter().find(|pause| now < pause.until).cloned();
    if pause.is_some() {
        notes.push("hardening is paused: what would be refused is audited only".into());
    }
    Policies { all, notes, pause }
}

fn of_namespace(policy: &SecurityPolicy) -> Result<Read, String> {
    let (namespace, name) =
        (policy.metadata.namespace.clone().unwrap_or_default(), policy.metadata.name.clone().unwrap_or_default());
    let broken = |why| format!("SecurityPolicy {namespace}/{name} has no effect: {why}");
    let (requirement, intent) = policy::parse(policy).map_err(|error| broken(error.to_string()))?;
    let (spec, status) = (&policy.spec, policy.status.clone().unwrap_or_default());
    Ok(Read {
        kind: "SecurityPolicy",
        name,
        suspended: spec.suspend == Some(true),
        data_class: spec.data_class,
        // Those of system namespaces are not heard.
        requirement: requirement.filter(|_| !is_system_namespace(&namespace)),
        namespace: Some(namespace),
        forbids_token: forbids_token(spec.hardening.as_ref()),
        intent,
        network_mode: spec.network.as_ref().map_or(NetworkMode::Disabled, |network| network.mode),
        wide: None,
        is_current: status.observed_generation.is_some() && status.observed_generation == policy.metadata.generation,
        conditions: status.conditions,
        hardening: status.hardening,
        network: status.network.map(|status| Network { namespaces: None, status }),
    })
}

fn of_cluster(policy: &ClusterSecurityPolicy) -> Result<Read, String> {
    let name = policy.metadata.name.clone().unwrap_or_default();
    let wide = ClusterWide::try_from(policy)
        .map_err(|error| format!("ClusterSecurityPolicy {name} has no effect: {error}"))?;
    let (spec, status) = (&policy.spec, policy.status.clone().unwrap_or_default());
    Ok(Read {
        kind: "ClusterSecurityPolicy",
        name,
        namespace: None,
        suspended: spec.suspend == Some(true),
        data_class: spec.data_class,
        requirement: spec.hardening.as_ref().map(|_| wide.requirement.clone()),
        forbids_token: forbids_token(spec.hardening.as_ref()),
        intent: wide.network.as_deref().cloned(),
        network_mode: wide.network_mode,
        wide: Some(wide),
        is_current: status.observed_generation.is_some() && status.observed_generation == policy.metadata.generation,
        conditions: status.conditions,
        hardening: status.hardening,
        network: status.network.map(of_all),
    })
}

fn of_all(status: ClusterNetworkStatus) -> Network {
    Network { namespaces: Some((status.namespaces, status.programmed)), status: status.into() }
}

fn forbids_token(hardening: Option<&crate::api::Hardening>) -> bool {
    let rules = hardening.and_then(|hardening| hardening.rules.as_ref());
    rules.is_some_and(|rules| rules.service_account_token == Some(ServiceAccountToken::Forbidden))
}

impl Policies {
    /// The least isolation of a namespace that ClusterSecurityPolicies enforce; one that is suspended is heard, too.
    pub(super) fn least_of<'p>(
        &'p self,
        namespace: &'p str,
        labels: &'p BTreeMap<String, String>,
    ) -> impl Iterator<Item = (&'p str, &'p Intent)> {
        let wide =
            self.all.iter().filter(|policy| policy.wide.is_some() && policy.network_mode == NetworkMode::Enforce);
        wide.filter_map(move |policy| Some((policy.name.as_str(), policy.isolates(namespace, labels)?)))
    }
}

impl Read {
    /// `shop/web`, or `baseline`.
    pub(super) fn full_name(&self) -> String {
        self.namespace.iter().chain([&self.name]).cloned().collect::<Vec<_>>().join("/")
    }

    /// Whether it is about a namespace at all.
    pub(super) fn covers(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        match &self.wide {
            Some(wide) => wide.covers(namespace, labels),
            None => self.namespace.as_deref() == Some(namespace),
        }
    }

    /// Whether it caps what ApiKeys may ask for.
    pub(super) fn caps_keys(&self) -> bool {
        self.wide.as_ref().is_some_and(|wide| wide.key_caps.is_some())
    }

    /// What it asks of the pods of a namespace that it is about.
    pub(super) fn asked(&self) -> Option<&Requirement> {
        self.requirement.as_ref().filter(|it| it.mode != HardeningMode::Disabled)
    }

    /// The network intent that it has for a namespace, unless that is disabled.
    pub(super) fn isolates(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<&Intent> {
        let is_about = match &self.wide {
            Some(wide) => wide.isolates(namespace, labels),
            None => self.namespace.as_deref() == Some(namespace),
        };
        self.intent.as_ref().filter(|_| is_about && self.network_mode != NetworkMode::Disabled)
    }

    /// Whether its intent for a namespace lets everybody through in a direction.
    pub(super) fn opens<'l>(
        &self,
        (intent, direction): (&Intent, Direction),
        namespace: &str,
        least: impl Iterator<Item = (&'l str, &'l Intent)>,
    ) -> bool {
        // What the least isolation leaves out is not rendered; the least itself is rendered as it is.
        let (intent, _) = intent.clamped(namespace, least.filter(|_| self.wide.is_none()));
        let rules = match direction {
            Direction::Ingress => &intent.ingress,
            Direction::Egress => &intent.egress,
        };
        rules.iter().any(|rule| rule.peers.contains(&Peer::Any))
    }

    /// Whether NetworkPolicies of others open more of a namespace than it does, as its status says.
    pub(super) fn is_widened(&self, namespace: &str) -> bool {
        let by: &[String] = self.network.as_ref().map_or(&[], |it| it.status.widened_by.as_slice());
        // Those of a SecurityPolicy are of its own namespace, and named without it.
        let is_here = |name: &String| name.split_once('/').is_none_or(|(of, _)| of == namespace);
        // A list that is full may leave out those of this namespace.
        by.len() >= WIDENING || by.iter().any(is_here)
    }

    /// What refuses pods for it, as its status says of its spec as it is.
    pub(super) fn enforced_by(&self) -> &[Enforcer] {
        self.hardening.as_ref().filter(|_| self.is_current).map_or(&[], |it| &it.enforced_by)
    }

    /// How far what it asks of pods is true.
    pub(super) fn hardening_state(&self, is_paused: bool) -> State {
        match self.asked().map(|it| it.mode) {
            Some(HardeningMode::Enforce) if is_paused => State::Partial,
            Some(HardeningMode::Enforce) if self.enforced_by().is_empty() => State::Asked,
            Some(HardeningMode::Enforce) => State::InForce,
            _ if self.is_current => State::Partial,
            _ => State::Asked,
        }
    }

    /// How far its network intent is in force. While it is suspended, nobody keeps what was written.
    pub(super) fn network_state(&self) -> State {
        let is_programmed = condition::is_true(&self.conditions, Type::Programmed) && self.is_current;
        let places = self.network.as_ref().and_then(|it| it.namespaces);
        match self.network_mode {
            _ if self.suspended => State::Asked,
            NetworkMode::Enforce if is_programmed && places.is_none_or(|(all, done)| all == done) => State::InForce,
            _ => State::Asked,
        }
    }

    /// Whether NetworkPolicies of it are there, as its status says: those of before stay in Preview and while it is
    /// suspended.
    pub(super) fn is_written(&self) -> bool {
        let is_there = |it: &Network| !it.status.rendered.is_empty() || it.namespaces.is_some_and(|(_, done)| done > 0);
        self.network_state() == State::InForce || self.network.as_ref().is_some_and(is_there)
    }

    /// Whether it is ready, and the reason that its status gives.
    pub(super) fn ready(&self) -> (bool, String) {
        ready(&self.conditions, self.is_current)
    }
}

/// Whether a condition Ready is true, and its reason; `Unseen` without a status, `Outdated` with an old one.
pub(super) fn ready(conditions: &[Condition], is_current: bool) -> (bool, String) {
    let ready = conditions.iter().find(|it| it.type_ == Type::Ready.as_str());
    match ready {
        None => (false, "Unseen".into()),
        Some(_) if !is_current => (false, "Outdated".into()),
        Some(it) => (it.status == "True", it.reason.clone()),
    }
}
