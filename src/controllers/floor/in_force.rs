//! What refuses pods now, as statuses tell it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::{
        Enforcer, HardeningMode,
        condition::{Conditions, Type},
    },
    cluster::pause::Pause,
    hardening::{FLOORS, Floor, Place, Requirement, Standard},
};

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
}

/// What refuses pods for a policy, and why it is not yet, or no longer, what was asked for.
#[derive(Debug, PartialEq)]
pub struct Enforcers {
    /// What does.
    pub by: Vec<Enforcer>,
    pending: Option<(&'static str, String)>,
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

    /// What refuses the pods that a policy of a namespace, or of all of them, refuses, given whether its floor
    /// is in force; `None` where it refuses none.
    #[must_use]
    pub fn enforcers(&self, requirement: &Requirement, namespace: Option<&str>, floor: bool) -> Option<Enforcers> {
        if requirement.mode != HardeningMode::Enforce {
            return None;
        }
        if let Some(pause) = &self.paused {
            let why = format!("nothing is refused until {}: {}", pause.until, pause.reason);
            return Some(Enforcers { by: vec![], pending: Some(("Paused", why)) });
        }
        let by = [self.webhook.then_some(Enforcer::Webhook), floor.then_some(Enforcer::AdmissionPolicy)];
        let pending = (requirement.has_floor() && !floor).then(|| {
            let why = format!(
                "the ValidatingAdmissionPolicy for spec.hardening is not in force yet: the API server has not taken it, or this namespace has more than {FLOORS} different requirements"
            );
            ("AdmissionPolicyPending", why)
        });
        let skipped = namespace.filter(|name| requirement.needs_webhook() && !self.webhook_alone.contains(*name));
        let pending = pending.or_else(|| {
            let why = "the ValidatingWebhookConfiguration rampart-enforce does not name this namespace yet: while the webhook is away, nothing is refused";
            skipped.map(|_| ("WebhookPending", why.to_owned()))
        });
        Some(Enforcers { by: by.into_iter().flatten().collect(), pending })
    }
}

impl Enforcers {
    /// Says in conditions what is pending.
    pub fn tell(&self, conditions: &mut Conditions) {
        if let Some((reason, why)) = self.pending.as_ref().filter(|_| !conditions.is(Type::Stalled)) {
            conditions.set(Type::Programmed, false, reason, why.as_str());
            conditions.set(Type::Ready, false, reason, why.as_str());
            conditions.set(Type::Reconciling, true, reason, why.as_str());
        }
    }
}
