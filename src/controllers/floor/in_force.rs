//! What refuses pods now, as statuses tell it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::{
        Enforcer, HardeningMode,
        condition::{Conditions, Type, WRITE_REFUSED},
    },
    cluster::{Error, pause::Pause},
    hardening::{FLOORS, Floor, Place, Requirement, Standard},
};

/// Why a policy whose pods the webhook alone refuses is in force nowhere.
const NOT_ASKED: &str =
    "the ValidatingWebhookConfiguration rampart does not have the webhook asked about pods yet: nothing is refused";

/// Why there is no admission policy for a policy: not yet, and, of a namespace, never.
const PENDING: &str = "AdmissionPolicyPending";
const TOO_MANY: &str = "TooManyRequirements";
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

    /// What refuses the pods that a policy refuses; `None` where it refuses none.
    #[must_use]
    pub fn enforcers(&self, requirement: &Requirement, asking: Asking<'_>) -> Option<Enforcers> {
        if requirement.mode != HardeningMode::Enforce {
            return None;
        }
        if let Some(pause) = &self.paused {
            let why = format!("nothing is refused until {}: {}", pause.until, pause.reason);
            return Some(Enforcers { by: vec![], pending: Some(("Paused", why)) });
        }
        let standard = requirement.standard();
        let floor = match asking {
            Asking::Namespace(name) => self.floor.get(name).is_some_and(|standards| standards.contains(&standard)),
            Asking::Cluster(name, _) => self.clusters.get(name) == Some(&standard),
        };
        let by = [self.webhook.then_some(Enforcer::Webhook), floor.then_some(Enforcer::AdmissionPolicy)];
        let by: Vec<Enforcer> = by.into_iter().flatten().collect();
        let pending = (requirement.has_floor() && !floor).then(|| self.why_no_floor(asking, &standard));
        let skipped = || {
            let is_unnamed = |name: &&str| !self.webhook_alone.contains(*name);
            let unnamed = match asking {
                Asking::Namespace(name) => Some(name).filter(is_unnamed),
                Asking::Cluster(..) if by.is_empty() => return Some(NOT_ASKED.to_owned()),
                Asking::Cluster(_, namespaces) => namespaces.iter().copied().find(is_unnamed),
            };
            unnamed.map(|name| {
                format!(
                    "the ValidatingWebhookConfiguration rampart-enforce does not name namespace {name} yet: while the webhook is away, nothing is refused there"
                )
            })
        };
        let skipped = requirement.needs_webhook().then(skipped).flatten().map(|why| ("WebhookPending", why));
        Some(Enforcers { pending: pending.or(skipped), by })
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
        let is_of = move |it: &&Unwritten| match (&it.place, asking) {
            (Place::Named(names), Asking::Namespace(name)) | (Place::Selected(names), Asking::Cluster(name, _)) => {
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

impl Enforcers {
    /// Says in conditions what is pending, unless they tell of something else that is.
    pub fn tell(&self, conditions: &mut Conditions) {
        if let Some((reason, why)) = self.pending.as_ref().filter(|_| !is_troubled(conditions)) {
            if *reason == TOO_MANY {
                conditions.stall(reason, why);
            } else {
                conditions.wait(reason, why);
            }
        }
    }
}

/// Whether conditions tell of something that keeps what is asked from being in force.
fn is_troubled(conditions: &Conditions) -> bool {
    conditions.is(Type::Stalled) || conditions.is(Type::Reconciling)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const OWN: Asking<'_> = Asking::Namespace("shop");
    const WIDE: Asking<'_> = Asking::Cluster("wide", &["books", "shop"]);

    #[rstest]
    #[case::nobody_asks(json!({}), WIDE, &[], &[], Some("WebhookPending"))]
    #[case::nobody_is_covered(json!({}), Asking::Cluster("wide", &[]), &["rampart"], &[Enforcer::Webhook], None)]
    #[case::the_webhook_is_asked(json!({}), WIDE, &["rampart", "books", "shop"], &[Enforcer::Webhook], None)]
    #[case::one_is_not_named(json!({}), WIDE, &["rampart", "shop"], &[Enforcer::Webhook], Some("WebhookPending"))]
    #[case::it_refuses_nothing(json!({"podSecurity": {"level": "privileged"}}), WIDE, &[], &[], None)]
    #[case::its_floor_is_missing(json!({"admissionPolicy": "Generate"}), WIDE, &[], &[], Some("AdmissionPolicyPending"))]
    #[case::not_named(json!({}), OWN, &["rampart"], &[Enforcer::Webhook], Some("WebhookPending"))]
    #[case::named(json!({}), OWN, &["rampart", "shop"], &[Enforcer::Webhook], None)]
    fn what_nothing_refuses_yet_is_pending(
        #[case] more: serde_json::Value,
        #[case] asking: Asking<'_>,
        #[case] asked: &[&str],
        #[case] by: &[Enforcer],
        #[case] pending: Option<&str>,
    ) {
        let mut hardening =
            json!({"mode": "Enforce", "podSecurity": {"level": "restricted"}, "admissionPolicy": "None"});
        hardening.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let requirement = Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap();
        let webhook_alone = asked.iter().skip(1).map(|name| (*name).to_owned()).collect();
        let in_force = InForce { webhook: !asked.is_empty(), webhook_alone, ..InForce::default() };
        let enforcers = in_force.enforcers(&requirement, asking).unwrap();
        assert_eq!(enforcers.by, by);
        assert_eq!(enforcers.pending.map(|(reason, _)| reason), pending);
    }

    #[test]
    fn what_goes_on_refusing_is_told_where_it_does() {
        let stale = BTreeMap::from([("shop".to_owned(), "it could not be deleted".to_owned())]);
        let in_force = InForce { stale, ..InForce::default() };
        let told = |place: &str, set: fn(&mut Conditions)| {
            let mut conditions = Conditions::of_generation(Some(1));
            set(&mut conditions);
            in_force.tell_of_stale(place, &mut conditions);
            let told = conditions.carried_from(&[], jiff::Timestamp::UNIX_EPOCH);
            told.into_iter().find(|it| it.type_ == "Reconciling").map(|it| (it.reason, it.message))
        };
        let (reason, message) = told("shop", |_| {}).unwrap();
        assert!(reason == STALE && message.ends_with("too: it could not be deleted"), "{reason}: {message}");
        assert_eq!(told("books", |_| {}), None);
        let paused = told("shop", |conditions| {
            conditions.wait("Paused", "why");
        });
        assert_eq!(paused.map(|(reason, _)| reason).as_deref(), Some("Paused"));
    }

    #[test]
    fn why_there_is_no_admission_policy_is_told_with_the_fix() {
        let standard = |version: &str| {
            let hardening = json!({"mode": "Enforce", "podSecurity": {"level": "restricted", "version": version}});
            Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap().standard()
        };
        let (one, other) = (standard("v1.30"), standard("v1.31"));
        let unwritten = |place: Place| Unwritten {
            place,
            standard: one.clone(),
            reason: WRITE_REFUSED,
            why: "it is too large".into(),
        };
        let in_force = InForce {
            full: [("shop".to_owned(), [other.clone()].into())].into(),
            unwritten: [Place::Named(vec!["books".into()]), Place::Selected(vec!["wide".into()])].map(unwritten).into(),
            ..InForce::default()
        };
        let why = |in_force: &InForce, asking, standard| in_force.why_no_floor(asking, standard);
        let (reason, fix) = why(&in_force, OWN, &one);
        assert!(reason == TOO_MANY && fix.contains("admissionPolicy: None"), "{fix}");
        assert_eq!(why(&in_force, OWN, &other).0, PENDING, "it is one of those");
        for asking in [Asking::Namespace("books"), WIDE] {
            let (reason, said) = why(&in_force, asking, &one);
            assert!(reason == WRITE_REFUSED && said.ends_with("it is too large"), "{said}");
            assert_eq!(why(&in_force, asking, &other).0, PENDING, "another standard");
        }
        let failing = InForce { failure: Some("nobody is there".into()), ..InForce::default() };
        let (reason, said) = why(&failing, OWN, &one);
        assert!(reason == PENDING && said.ends_with("nobody is there"), "{said}");
        let mut conditions = Conditions::of_generation(Some(1));
        Enforcers { by: vec![], pending: Some(why(&in_force, OWN, &one)) }.tell(&mut conditions);
        assert!(conditions.is(Type::Stalled) && !conditions.is(Type::Reconciling));
    }
}
