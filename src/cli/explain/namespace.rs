//! What covers a namespace, a line a policy.

use jiff::Timestamp;
use kube::ResourceExt as _;
use rampart_reach::{Analysis, Direction};
use serde::Serialize;

use super::{
    holds,
    known::{Extent, Known},
    terrain::{Terrain, isolates},
};
use crate::{
    api::{
        GoDuration, HardeningMode, SecurityPolicy,
        condition::{self, Type},
    },
    hardening::Exception,
    policy,
};

/// What is said of a namespace.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Namespace {
    /// Pods that have not finished, where they could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pods: Option<usize>,
    /// Those of them that no NetworkPolicy isolates, for ingress and for egress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) open: Option<Open>,
    /// Policies, in the order of the text.
    pub(super) policies: Vec<Line>,
}

/// Pods that no NetworkPolicy isolates.
#[derive(Debug, Serialize)]
pub(super) struct Open {
    pub(super) ingress: usize,
    pub(super) egress: usize,
}

/// A policy, and what it does here.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) what: String,
}

/// What there is to say of a namespace.
pub(super) fn namespace(name: &str, known: &Known, terrain: &Terrain<'_>, now: Timestamp) -> Namespace {
    let index = &terrain.population.index;
    let analysis = Analysis::new(index, &terrain.policies);
    let own: Vec<usize> =
        terrain.inhabitants().filter(|(_, pod, _)| pod.namespace == name).map(|(place, ..)| place).collect();
    let open = |direction| {
        let is_open = |place: &&usize| {
            index.class_of(**place).is_some_and(|class| analysis.isolated_by(class, direction).is_empty())
        };
        own.iter().filter(is_open).count()
    };
    let sees_pods = known.seen.pods != Extent::Nothing;
    let sees_both = sees_pods && known.seen.network_policies != Extent::Nothing;
    let lines = [wide(name, known), known.policies_of(name).map(|it| security(it, terrain)).collect()];
    let more = [network(name, terrain), exceptions(name, known, now), retention(known), holds::lines(known, name, now)];
    Namespace {
        pods: sees_pods.then_some(own.len()),
        open: sees_both.then(|| Open { ingress: open(Direction::Ingress), egress: open(Direction::Egress) }),
        policies: lines.into_iter().chain(more).flatten().collect(),
    }
}

/// ClusterSecurityPolicies that cover it.
fn wide(name: &str, known: &Known) -> Vec<Line> {
    let (policies, _) = known.hardening();
    let labels = known.labels(name);
    let told = policies.wide.iter().filter_map(|(policy, it)| {
        let asked = &it.requirement;
        let hardens = it.covers(name, labels) && asked.mode != HardeningMode::Disabled;
        let hardening = hardens.then(|| format!("hardening {:?} {}:{}", asked.mode, asked.level, asked.version));
        let network = it.isolates(name, labels).then(|| format!("network {:?}, at the least", it.network_mode));
        let caps = it.key_caps.as_ref().filter(|_| it.covers(name, labels));
        let caps = caps.map(|_| "caps what ApiKeys may ask for".into());
        let what: Vec<String> = hardening.into_iter().chain(network).chain(caps).collect();
        (!what.is_empty()).then(|| Line { kind: "ClusterSecurityPolicy", name: policy.clone(), what: what.join("; ") })
    });
    told.collect()
}

fn security(policy: &SecurityPolicy, terrain: &Terrain<'_>) -> Line {
    let mut what: Vec<String> = vec![];
    if let Some(hardening) = &policy.spec.hardening {
        let level = rampart_level(hardening.pod_security.level);
        let standard = format!("{level}:{}", hardening.pod_security.version);
        what.push(match hardening.mode {
            HardeningMode::Disabled => "hardening Disabled".into(),
            mode => format!("hardening {mode:?} {standard}"),
        });
    }
    let namespace = policy.namespace().unwrap_or_default();
    if let Some(network) = &policy.spec.network {
        let intent = policy::intent(policy, &namespace).ok().flatten();
        let pods = intent.map(|intent| intent.selected(&terrain.population.index, &namespace).len());
        let pods = pods.map(|pods| format!(" about {}", count(pods))).unwrap_or_default();
        what.push(format!("network {:?}{pods}", network.mode));
    }
    if policy.spec.suspend == Some(true) {
        what.push("suspended".into());
    }
    let conditions = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if !condition::is_true(conditions, Type::Ready) {
        let ready = conditions.iter().find(|it| it.type_ == Type::Ready.as_str());
        what.push(format!("not ready: {}", ready.map_or("no status", |it| it.reason.as_str())));
    }
    Line { kind: "SecurityPolicy", name: policy.name_any(), what: what.join("; ") }
}

/// A level as the standards spell it.
pub(super) const fn rampart_level(level: crate::api::Level) -> &'static str {
    match level {
        crate::api::Level::Privileged => "privileged",
        crate::api::Level::Baseline => "baseline",
        crate::api::Level::Restricted => "restricted",
    }
}

/// `1 pod`, `2 pods`.
pub(super) fn count(pods: usize) -> String {
    if pods == 1 { "1 pod".into() } else { format!("{pods} pods") }
}

fn network(name: &str, terrain: &Terrain<'_>) -> Vec<Line> {
    let own = terrain.names.iter().zip(&terrain.policies).filter(|(named, _)| named.namespace == name);
    let told = own.map(|(named, policy)| {
        let ways = isolates(policy);
        let owner = named.owner.as_ref().map(|owner| format!(", for {owner}")).unwrap_or_default();
        let pods = count(terrain.selected(policy).len());
        Line { kind: "NetworkPolicy", name: named.name.clone(), what: format!("{} of {pods}{owner}", ways.join(", ")) }
    });
    told.collect()
}

fn exceptions(name: &str, known: &Known, now: Timestamp) -> Vec<Line> {
    let (policies, _) = known.hardening();
    let own = known.exceptions.iter().filter(|it| it.namespace().as_deref() == Some(name));
    let told = own.map(|exception| {
        let what = match Exception::try_from(exception) {
            Err(invalid) => format!("not in force: {invalid}"),
            Ok(it) => match it.permitted(name, &policies.wide) {
                Err(why) => format!("not in force: {why}"),
                Ok(()) if it.holds(now) => format!("until {}: {}", it.expires, exception.spec.rules.join(", ")),
                Ok(()) => format!("ended {}", it.expires),
            },
        };
        Line { kind: "PolicyException", name: exception.name_any(), what }
    });
    told.collect()
}

fn retention(known: &Known) -> Vec<Line> {
    let told = known.retention.iter().map(|policy| {
        let kinds: Vec<&str> = policy.spec.targets.iter().map(|target| target.resources.kind.as_str()).collect();
        let most = policy.spec.data_class.map(|class| GoDuration::hours(class.hours_kept()));
        let age = policy.spec.max_age.or(most).unwrap_or_else(|| GoDuration::hours(0));
        let suspended = if policy.spec.suspend == Some(true) { "; suspended" } else { "" };
        let what = format!("{:?} after {age}: {}{suspended}", policy.spec.mode, kinds.join(", "));
        Line { kind: "RetentionPolicy", name: policy.name_any(), what }
    });
    told.collect()
}
