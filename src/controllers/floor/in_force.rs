//! What refuses pods now, as statuses tell it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::presence::Away;
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
/// What a policy lacks because the webhook is away.
const WEBHOOK_AWAY: &str = "WebhookAway";

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
            Asking::Cluster(name, _) => self.clusters.get(name) == Some(standard),
        }
    }

    /// What becomes of pods that the webhook alone would refuse, while it is away; `None` where it is asked of none.
    fn meanwhile(&self, asking: Asking<'_>) -> Option<&'static str> {
        let waits = |name: &&str| self.webhook_alone.contains(*name);
        let (all, any) = match asking {
            Asking::Namespace(name) => (waits(&name), waits(&name)),
            Asking::Cluster(_, []) => return None,
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
        let is_told = conditions.is(Type::Stalled) || conditions.is(Type::Reconciling);
        if let Some((reason, why)) = self.pending.as_ref().filter(|_| !is_told) {
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    const OWN: Asking<'_> = Asking::Namespace("shop");
    const WIDE: Asking<'_> = Asking::Cluster("wide", &["books", "shop"]);

    /// What a policy asks, which is refused by the webhook alone unless it says `more`.
    fn requirement(more: &Value) -> Requirement {
        let mut hardening =
            json!({"mode": "Enforce", "podSecurity": {"level": "restricted"}, "admissionPolicy": "None"});
        hardening.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap()
    }

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
        #[case] more: Value,
        #[case] asking: Asking<'_>,
        #[case] asked: &[&str],
        #[case] by: &[Enforcer],
        #[case] pending: Option<&str>,
    ) {
        let webhook_alone = asked.iter().skip(1).map(|name| (*name).to_owned()).collect();
        let in_force = InForce { webhook: !asked.is_empty(), webhook_alone, ..InForce::default() };
        let enforcers = in_force.enforcers(&requirement(&more), asking, None);
        assert_eq!(enforcers.by, by);
        assert_eq!(enforcers.pending.map(|(reason, _)| reason), pending);
    }

    fn generate(fix: &str) -> Value {
        json!({"admissionPolicy": "Generate", "fix": fix})
    }

    /// The conditions of a policy that is Ready but for what `enforcers` tell.
    fn told(enforcers: &Enforcers) -> Vec<(String, String, String)> {
        let mut conditions = Conditions::of_generation(Some(1));
        conditions.set(Type::Programmed, true, "Programmed", "").set(Type::Ready, true, "Ready", "");
        enforcers.tell(&mut conditions);
        let told = conditions.carried_from(&[], Timestamp::UNIX_EPOCH);
        told.into_iter().map(|it| (it.type_, format!("{} {}", it.status, it.reason), it.message)).collect()
    }

    const NAMED: &[&str] = &["books", "shop"];

    #[rstest]
    #[case::no_pod_is_made(json!({}), OWN, NAMED, "False WebhookAway", "no pod can be made where")]
    #[case::nothing_is_refused(json!({}), OWN, &[], "False WebhookPending", "nothing is refused for this policy;")]
    #[case::in_every_namespace(json!({}), WIDE, NAMED, "False WebhookAway", "no pod can be made where")]
    #[case::in_some(json!({}), WIDE, &["shop"], "False WebhookPending", "and in others nothing is refused")]
    #[case::in_none(json!({}), Asking::Cluster("wide", &[]), NAMED, "True Ready", "")]
    #[case::the_floor_holds(generate("Disabled"), OWN, NAMED, "True Ready", "")]
    #[case::the_floor_of_the_cluster_holds(generate("Disabled"), WIDE, NAMED, "True Ready", "")]
    #[case::no_floor(generate("Disabled"), Asking::Namespace("books"), &[], "False AdmissionPolicyPending", "nothing is refused for")]
    #[case::the_fix(generate("Apply"), OWN, &[], "True WebhookAway", "only once they are completed are refused")]
    #[case::no_fix(generate("Preview"), OWN, &[], "True Ready", "")]
    #[case::the_fix_and_all(json!({"fix": "Apply"}), OWN, NAMED, "False WebhookAway", "no pod can be made where")]
    #[case::the_fix_alone(json!({"fix": "Apply", "mode": "Warn"}), OWN, &[], "True WebhookAway", "as they are asked for")]
    #[case::nothing_to_fix(json!({"fix": "Apply", "podSecurity": {"level": "privileged"}}), OWN, &[], "True Ready", "")]
    #[case::disabled(json!({"fix": "Apply", "mode": "Disabled"}), OWN, NAMED, "True Ready", "")]
    fn what_is_lacking_while_the_webhook_is_away_is_told(
        #[case] more: Value,
        #[case] asking: Asking<'_>,
        #[case] named: &[&str],
        #[case] ready: &str,
        #[case] why: &str,
    ) {
        let (asked, floor) = (requirement(&more), requirement(&generate("Disabled")).standard());
        let in_force = InForce {
            webhook: true,
            webhook_alone: named.iter().map(|name| (*name).to_owned()).collect(),
            floor: [("shop".to_owned(), [floor.clone()].into())].into(),
            clusters: [("wide".to_owned(), floor)].into(),
            ..InForce::default()
        };
        let away = Away::of("rampart-system");
        let [before, now] = [None, Some(&away)].map(|away| told(&in_force.enforcers(&asked, asking, away)));
        let (_, state, message) = now.iter().find(|(kind, ..)| kind == "Ready").unwrap();
        assert_eq!(state, ready);
        assert!(message.contains(why), "{message}");
        // Whoever is told anew is visited, and nobody else.
        let leans = in_force.leans_on_webhook(&asked, asking);
        let is_asked_of_none = matches!(asking, Asking::Cluster(_, []));
        assert_eq!(before != now, leans && !is_asked_of_none, "{before:?} {now:?}");
        assert_eq!(before != now, message.contains("kubectl get pods,endpointslices -n rampart-system"), "{message}");
    }

    #[test]
    fn what_waits_for_the_webhook_is_programmed_and_not_stalled() {
        let in_force = InForce { webhook: true, webhook_alone: ["shop".to_owned()].into(), ..InForce::default() };
        let asked = requirement(&json!({"fix": "Apply"}));
        let states = |in_force: &InForce| {
            let told = told(&in_force.enforcers(&asked, OWN, Some(&Away::of("rampart-system"))));
            told.into_iter().map(|(kind, state, _)| format!("{kind} {state}")).collect::<Vec<_>>()
        };
        let away = ["Programmed True Programmed", "Ready False WebhookAway", "Reconciling True WebhookAway"];
        assert_eq!(states(&in_force), away);
        let pause = Pause { until: Timestamp::UNIX_EPOCH, reason: "a drill".into() };
        let paused = InForce { paused: Some(pause), ..in_force };
        assert!(states(&paused).contains(&"Ready False Paused".to_owned()), "nothing waits in a pause");
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
        Enforcers { pending: Some(why(&in_force, OWN, &one)), ..Enforcers::default() }.tell(&mut conditions);
        assert!(conditions.is(Type::Stalled) && !conditions.is(Type::Reconciling));
    }
}
