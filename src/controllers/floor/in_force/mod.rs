//! What refuses pods now, as statuses tell it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::presence::Away;
use crate::{
    api::{
        Enforcer, HardeningMode,
        condition::{Conditions, Type, WRITE_REFUSED},
    },
    cluster::{Error, pause::Pause},
    hardening::{FLOORS, Floor, Place, Requirement, Roomless, Standard},
};

/// Why a policy whose pods the webhook alone refuses is in force nowhere.
const NOT_ASKED: &str =
    "the ValidatingWebhookConfiguration rampart does not have the webhook asked about pods yet: nothing is refused";

/// Why there is no admission policy for a policy: not yet, and, of a namespace, never.
const PENDING: &str = "AdmissionPolicyPending";
/// Why there is none, and none to come.
const TOO_MANY: &str = "TooManyRequirements";
/// What a policy lacks because the webhook is away.
const WEBHOOK_AWAY: &str = "WebhookAway";
/// What was asked before is refused still.
const STALE: &str = "AdmissionPolicyStale";

/// What refuses pods now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// Whether anybody has looked yet.
    pub known: bool,
    /// Standards that admission policies enforce for SecurityPolicies.
    pub floor: BTreeMap<String, BTreeSet<Standard>>,
    /// Standards that admission policies enforce for ClusterSecurityPolicies, by name.
    pub clusters: BTreeMap<String, Standard>,
    /// Whether the API server asks the webhook about pods.
    pub webhook: bool,
    /// Namespaces where no pod is made without the webhook's word.
    pub webhook_alone: BTreeSet<String>,
    /// Until when, and why, nothing is refused.
    pub paused: Option<Pause>,
    /// Exceptions that admission policies have no room for, by namespace and name.
    pub left_out: BTreeSet<(String, String)>,
    /// Of namespaces that ask for as many standards as admission policies are made of, or more: those that are.
    pub full: BTreeMap<String, BTreeSet<Standard>>,
    /// So many different standards of SecurityPolicies there is room for in the cluster.
    pub places: usize,
    /// Standards that there is no room for, by the namespaces that ask for them.
    pub roomless: Roomless,
    /// Admission policies that could not be written.
    pub unwritten: Vec<Unwritten>,
    /// Where something goes on being refused that nobody asks for, by [`crate::hardening::extent`], and why.
    pub stale: BTreeMap<String, String>,
    /// Why nobody could look last. What was in force before is, as far as is known.
    pub failure: Option<String>,
}

/// An admission policy that could not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    place: Place,
    standard: Standard,
    reason: &'static str,
    why: String,
}

/// A policy that refuses pods.
#[derive(Debug, Clone, Copy)]
pub enum Asking<'a> {
    /// One of a namespace.
    Namespace(&'a str),
    /// A cluster-wide one, with the namespaces that it covers and that are not the system's.
    Cluster(&'a str, &'a [&'a str]),
    /// A cluster-wide one that covers system namespaces alone: no webhook is asked about them.
    System(&'a str),
}

/// What refuses pods for a policy, and why it is not yet, or no longer, what was asked for.
#[derive(Debug, Default, PartialEq)]
pub struct Enforcers {
    /// What does.
    pub by: Vec<Enforcer>,
    pending: Option<(&'static str, String)>,
    /// Why no pod is completed.
    unfixed: Option<String>,
}

impl InForce {
    pub(super) fn add(&mut self, floor: &Floor) {
        match &floor.place {
            Place::Named(namespaces) => {
                for namespace in namespaces {
                    self.floor.entry(namespace.clone()).or_default().insert(floor.standard.clone());
                }
            }
            Place::Selected(names) => {
                self.clusters.extend(names.iter().map(|name| (name.clone(), floor.standard.clone())));
            }
        }
    }

    /// Admission policies for SecurityPolicies of a namespace that could not be written.
    pub fn unwritten_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a Unwritten> {
        let is_of = move |it: &&Unwritten| matches!(&it.place, Place::Named(names) if names.iter().any(|name| name == namespace));
        self.unwritten.iter().filter(is_of)
    }

    pub(super) fn add_unwritten(&mut self, floor: &Floor, error: &Error) {
        let reason = if error.is_refusal() { WRITE_REFUSED } else { PENDING };
        let (place, standard) = (floor.place.clone(), floor.standard.clone());
        // The API server quotes what it finds invalid, and one of namespaces holds the names of others.
        let why = match (&place, error.code()) {
            (Place::Named(_), Some(code @ 422)) => {
                format!("the API server answered {code}: the controller's log has its words")
            }
            _ => error.to_string(),
        };
        self.unwritten.push(Unwritten { place, standard, reason, why });
    }

    /// Says in the log which exceptions are left out that were not before: once, and in one line, for they may be many.
    pub(super) fn warn_of_left_out(&self, before: &Self) {
        let mut newly = self.left_out.difference(&before.left_out);
        if let Some((namespace, name)) = newly.next() {
            let more = newly.count();
            tracing::warn!(
                namespace,
                name,
                more,
                "an admission policy has no room for a PolicyException: the API server goes on refusing what it covers"
            );
        }
    }

    /// What refuses the pods that a policy refuses.
    #[must_use]
    pub fn enforcers(&self, requirement: &Requirement, asking: Asking<'_>, away: Option<&Away>) -> Enforcers {
        let unfixed = away.filter(|_| requirement.completes()).map(|away| away.says(unfixed(requirement.mode)));
        if requirement.mode != HardeningMode::Enforce {
            return Enforcers { unfixed, ..Enforcers::default() };
        }
        if let Some(pause) = &self.paused {
            let why = format!("nothing is refused until {}: {}", pause.until, pause.reason);
            return Enforcers { pending: Some(("Paused", why)), ..Enforcers::default() };
        }
        let standard = requirement.standard();
        let floor = self.has_floor(&standard, asking);
        let webhook = self.webhook && !matches!(asking, Asking::System(_));
        let by = [webhook.then_some(Enforcer::Webhook), floor.then_some(Enforcer::AdmissionPolicy)];
        let by: Vec<Enforcer> = by.into_iter().flatten().collect();
        let pending = (requirement.has_floor() && !floor).then(|| self.why_no_floor(asking, &standard));
        let skipped = || {
            let is_unnamed = |name: &&str| !self.webhook_alone.contains(*name);
            let unnamed = match asking {
                Asking::Namespace(name) => Some(name).filter(is_unnamed),
                Asking::Cluster(..) if by.is_empty() => return Some(NOT_ASKED.to_owned()),
                Asking::Cluster(_, namespaces) => namespaces.iter().copied().find(is_unnamed),
                Asking::System(_) => None,
            };
            unnamed.map(|name| {
                format!(
                    "the ValidatingWebhookConfiguration rampart-enforce does not name namespace {name} yet: while the webhook is away, nothing is refused there"
                )
            })
        };
        let skipped = requirement.needs_webhook().then(skipped).flatten().map(|why| ("WebhookPending", why));
        let lacking = away.filter(|_| self.is_webhooks_alone(requirement, asking));
        let lacking = lacking.and_then(|away| Some(away.says(self.meanwhile(asking)?)));
        let pending = match (pending.or(skipped), lacking) {
            (Some((reason, why)), Some(lacking)) => Some((reason, format!("{why}; {lacking}"))),
            (pending, lacking) => pending.or_else(|| lacking.map(|why| (WEBHOOK_AWAY, why))),
        };
        Enforcers { by, pending, unfixed }
    }

    /// Whether a policy lacks something while the webhook is away.
    #[must_use]
    pub fn leans_on_webhook(&self, requirement: &Requirement, asking: Asking<'_>) -> bool {
        requirement.completes() || self.is_webhooks_alone(requirement, asking)
    }

    /// Whether the webhook alone refuses what a policy does: as was asked for, or for want of an admission policy.
    fn is_webhooks_alone(&self, requirement: &Requirement, asking: Asking<'_>) -> bool {
        requirement.needs_webhook() || (requirement.has_floor() && !self.has_floor(&requirement.standard(), asking))
    }

    /// Whether an admission policy enforces a standard for a policy.
    fn has_floor(&self, standard: &Standard, asking: Asking<'_>) -> bool {
        match asking {
            Asking::Namespace(name) => self.floor.get(name).is_some_and(|standards| standards.contains(standard)),
            Asking::Cluster(name, _) | Asking::System(name) => self.clusters.get(name) == Some(standard),
        }
    }

    /// What becomes of pods that the webhook alone would refuse, while it is away; `None` where it is asked of none.
    fn meanwhile(&self, asking: Asking<'_>) -> Option<&'static str> {
        let waits = |name: &&str| self.webhook_alone.contains(*name);
        let (all, any) = match asking {
            Asking::Namespace(name) => (waits(&name), waits(&name)),
            Asking::Cluster(_, []) | Asking::System(_) => return None,
            Asking::Cluster(_, names) => (names.iter().all(waits), names.iter().any(waits)),
        };
        Some(match (all, any) {
            (true, _) => "no pod can be made where this policy applies (`rampart pause` lets them be made unjudged)",
            (false, true) => {
                "no pod can be made in the namespaces that the ValidatingWebhookConfiguration rampart-enforce names, and in others nothing is refused for this policy"
            }
            (false, false) => "nothing is refused for this policy",
        })
    }

    /// Says in conditions that pods of a place are refused by what was asked before, unless they tell of something else.
    pub fn tell_of_stale(&self, place: &str, conditions: &mut Conditions) {
        if let Some(why) = self.stale.get(place).filter(|_| !is_troubled(conditions)) {
            conditions.wait(STALE, &format!("pods are refused by what was asked before, too: {why}"));
        }
    }

    /// Why there is no admission policy for a standard that a policy asks for.
    fn why_no_floor(&self, asking: Asking<'_>, standard: &Standard) -> (&'static str, String) {
        if let Asking::Namespace(name) = asking
            && self.full.get(name).is_some_and(|made| !made.contains(standard))
        {
            let why = format!(
                "the SecurityPolicies of this namespace ask for more than {FLOORS} different requirements, and this is one that no ValidatingAdmissionPolicy is made of: the webhook alone refuses for it; ask for the same as another one, or set spec.hardening.admissionPolicy: None"
            );
            return (TOO_MANY, why);
        }
        if let Asking::Namespace(name) = asking
            && self.roomless.get(name).is_some_and(|left_out| left_out.contains(standard))
        {
            let places = self.places;
            let why = format!(
                "the SecurityPolicies of the cluster ask for more than {places} different requirements, and this is one that no ValidatingAdmissionPolicy is made of: the webhook alone refuses for it; ask for the same as another namespace, or set spec.hardening.admissionPolicy: None"
            );
            return (TOO_MANY, why);
        }
        let is_of = move |it: &&Unwritten| match (&it.place, asking) {
            (Place::Named(names), Asking::Namespace(name))
            | (Place::Selected(names), Asking::Cluster(name, _) | Asking::System(name)) => {
                it.standard == *standard && names.iter().any(|it| it == name)
            }
            _ => false,
        };
        let unwritten = self.unwritten.iter().find(is_of).map(|it| (it.reason, it.why.as_str()));
        let what = "the ValidatingAdmissionPolicy for spec.hardening is not in force yet";
        match unwritten.or_else(|| self.failure.as_deref().map(|why| (PENDING, why))) {
            Some((reason, why)) => (reason, format!("{what}: {why}")),
            None => (PENDING, what.to_owned()),
        }
    }
}

/// What becomes of pods that a policy would complete, while the webhook is away.
fn unfixed(mode: HardeningMode) -> &'static str {
    if mode == HardeningMode::Enforce {
        "spec.hardening.fix completes no pod: those that meet this policy only once they are completed are refused"
    } else {
        "spec.hardening.fix completes no pod: they are made as they are asked for"
    }
}

impl Enforcers {
    /// Says in conditions what is pending, unless they tell of something else that is; and of what is Ready, what it
    /// lacks.
    pub fn tell(&self, conditions: &mut Conditions) {
        if let Some((reason, why)) = self.pending.as_ref().filter(|_| !is_troubled(conditions)) {
            match *reason {
                TOO_MANY => conditions.stall(reason, why),
                // The API server holds what is asked for: only nobody answers it.
                WEBHOOK_AWAY => {
                    conditions.set(Type::Ready, false, reason, why.as_str());
                    conditions.set(Type::Reconciling, true, reason, why.as_str())
                }
                _ => conditions.wait(reason, why),
            };
        }
        if let Some(why) = self.unfixed.as_ref().filter(|_| conditions.is(Type::Ready)) {
            conditions.set(Type::Ready, true, WEBHOOK_AWAY, why.as_str());
        }
    }
}

/// Whether conditions tell of something that keeps what is asked from being in force.
fn is_troubled(conditions: &Conditions) -> bool {
    conditions.is(Type::Stalled) || conditions.is(Type::Reconciling)
}

#[cfg(test)]
mod tests;
