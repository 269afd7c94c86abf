//! The posture of a cluster, told from what Rampart's objects ask and what their statuses say.
//!
//! [`report`] turns listed objects and the time into one [`Report`]; it looks at nothing else, so pods and NetworkPolicies
//! are told as the operator last counted them. What could not be read is part of the report.

mod controls;
mod exceptions;
mod keys;
mod network;
mod policies;
mod posture;
mod retention;
#[cfg(test)]
mod tests;
mod violations;

use std::collections::BTreeMap;

use jiff::Timestamp;
use rampart_reach::Namespace;
use serde::Serialize;

pub use controls::{Control, FRAMEWORKS, Framework, Mapping, Relation, Source};
pub use exceptions::{Exception, ExceptionStanding};
pub use keys::{AgeBand, Key, KeyStanding};
pub use network::{Exposure, Preview};
pub use policies::State;
pub use posture::{Hardened, Isolation, Policy, Posture};
pub use retention::{Hold, HoldStanding, Retention, RetentionClass};
pub use violations::{Violation, Workload};

use crate::api::{
    ApiKey, ClusterLegalHold, ClusterSecurityPolicy, LegalHold, PolicyException, RetentionPolicy, SecurityPolicy,
    whole_second,
};

/// Version of the report's shape in JSON; a field that is added does not change it.
pub const SCHEMA_VERSION: u32 = 1;

/// What was listed of a kind.
#[derive(Debug)]
pub struct Listed<K> {
    /// The objects.
    pub items: Vec<K>,
    /// What of them could not be read, and why.
    pub unread: Vec<String>,
}

impl<K> Default for Listed<K> {
    fn default() -> Self {
        Self { items: vec![], unread: vec![] }
    }
}

/// What was read of a cluster.
#[derive(Debug, Default)]
pub struct World {
    /// The one namespace that the report is about; without it, all.
    pub only: Option<String>,
    /// Namespaces with their labels.
    pub namespaces: Listed<Namespace>,
    /// SecurityPolicies.
    pub policies: Listed<SecurityPolicy>,
    /// ClusterSecurityPolicies.
    pub cluster_policies: Listed<ClusterSecurityPolicy>,
    /// PolicyExceptions.
    pub exceptions: Listed<PolicyException>,
    /// ApiKeys.
    pub keys: Listed<ApiKey>,
    /// RetentionPolicies.
    pub retention: Listed<RetentionPolicy>,
    /// LegalHolds.
    pub holds: Listed<LegalHold>,
    /// ClusterLegalHolds.
    pub cluster_holds: Listed<ClusterLegalHold>,
    /// The pause that is set, if any.
    pub pause: Listed<Pause>,
    /// Since when no controller works, where that is known: statuses are as of then.
    pub away_since: Option<Timestamp>,
}

/// Hardening is audited only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// When that ends.
    pub until: Timestamp,
    /// Why, in the words of who asked.
    pub reason: String,
}

/// The posture of a cluster. Its JSON is the report's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// When it was made.
    pub generated_at: Timestamp,
    /// The one namespace that it is about; without it, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Hardening is audited only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Since when no controller works: what statuses tell is as of then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away_since: Option<Timestamp>,
    /// Everything that could not be read, and why; each section names its own, too.
    pub unread: Vec<String>,
    /// What covers each namespace.
    pub posture: Section<Posture>,
    /// Rules that pods violate, as statuses of policies name them.
    pub violations: Section<Violation>,
    /// Exceptions, the next to end first.
    pub exceptions: Section<Exception>,
    /// Keys, the oldest first.
    pub keys: Section<Key>,
    /// How many keys are how old.
    pub key_ages: Vec<AgeBand>,
    /// Retention, by class of data.
    pub retention: Section<RetentionClass>,
    /// What must stay.
    pub holds: Section<Hold>,
    /// Network intents, and how they stand.
    pub network: Section<Exposure>,
    /// Controls of Rampart, where they are in force, and what they support.
    pub controls: Section<Control>,
}

/// A part of the report.
#[derive(Debug, Serialize)]
pub struct Section<T> {
    /// What there is.
    pub items: Vec<T>,
    /// What could not be read for it: there may be more.
    pub unread: Vec<String>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

impl<T> Section<T> {
    fn new(items: Vec<T>, unread: &[&[String]], notes: Vec<String>) -> Self {
        Self { items, unread: together(unread), notes }
    }
}

/// Each text once, in the order in which they come.
fn together(lists: &[&[String]]) -> Vec<String> {
    let mut all: Vec<String> = vec![];
    for text in lists.iter().copied().flatten() {
        if !all.contains(text) {
            all.push(text.clone());
        }
    }
    all
}

/// The report of what was read, as of `now`.
#[must_use]
pub fn report(world: &World, now: Timestamp) -> Report {
    let mut policies = policies::read(world, now);
    let namespaces = posture::namespaces(world, &policies);
    // Without their labels, a policy or hold of the cluster may be about any.
    let is_about = |covers: &dyn Fn(&str, &BTreeMap<String, String>) -> bool| {
        let is_known = world.only.is_some() && world.namespaces.unread.is_empty();
        !is_known || namespaces.iter().any(|(name, labels)| covers(name, labels))
    };
    policies.all.retain(|policy| is_about(&|name, labels| policy.covers(name, labels)));
    let hardening: [&[String]; 3] = [&world.namespaces.unread, &world.cluster_policies.unread, &world.policies.unread];
    let security: [&[String]; 2] = [&world.cluster_policies.unread, &world.policies.unread];
    let holds: [&[String]; 2] = [&world.holds.unread, &world.cluster_holds.unread];
    let of_controls: Vec<&[String]> = hardening
        .into_iter()
        .chain([world.pause.unread.as_slice(), &world.keys.unread, &world.retention.unread])
        .collect();
    let everything: Vec<&[String]> =
        of_controls.iter().copied().chain([world.exceptions.unread.as_slice()]).chain(holds).collect();
    let keys = keys::keys(&world.keys.items, now);
    let classes = retention::classes(&world.retention.items);
    let (violations, more) = violations::by_rule(&policies.all, world.only.as_deref());
    Report {
        schema_version: SCHEMA_VERSION,
        generated_at: whole_second(now),
        namespace: world.only.clone(),
        pause: policies.pause.clone(),
        away_since: world.away_since,
        unread: together(&everything),
        key_ages: keys::by_age(&keys),
        controls: Section::new(
            controls::controls(&namespaces, &policies, &keys, &classes),
            &of_controls,
            policies.notes.clone(),
        ),
        posture: Section::new(posture::posture(&namespaces, &policies), &hardening, policies.notes.clone()),
        violations: Section::new(violations, &security, more),
        exceptions: Section::new(
            exceptions::exceptions(&world.exceptions.items, now),
            &[&world.exceptions.unread],
            vec![],
        ),
        keys: Section::new(keys, &[&world.keys.unread], vec![]),
        retention: Section::new(classes, &[&world.retention.unread], vec![]),
        holds: Section::new(retention::holds(world, is_about), &holds, vec![]),
        network: Section::new(network::exposure(&policies.all), &security, policies.notes),
    }
}
