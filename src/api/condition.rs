//! Conditions: their types and reasons, and how a set of them is carried from one status to the next.
//!
//! `Accepted`, `Programmed` and `Ready` are always there (Gateway API, GEP-1364); `Reconciling` and
//! `Stalled` only while they are true (kstatus), so that Flux and Argo CD tell progress from failure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The type of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// The resource is valid and permitted.
    Accepted,
    /// What the resource asks for is what the API server holds.
    Programmed,
    /// Summary: the resource does what it is for.
    Ready,
    /// Work is going on.
    Reconciling,
    /// Nothing will change until somebody changes something.
    Stalled,
    /// Its NetworkPolicies could be worked out (SecurityPolicy).
    Rendered,
    /// What its NetworkPolicies change was worked out from a complete view (SecurityPolicy).
    Analyzed,
    /// NetworkPolicies of others allow its pods more than it does (SecurityPolicy).
    WidenedByOthers,
    /// Its pods can resolve names, as far as NetworkPolicies go (SecurityPolicy).
    DnsReachable,
    /// Its pods that call the API server can reach it, as far as NetworkPolicies go (SecurityPolicy).
    ApiServerReachable,
    /// A network plug-in that is known to enforce NetworkPolicies was found (SecurityPolicy).
    EnforcerDetected,
    /// A rotation is under way (ApiKey).
    Rotating,
    /// Every verifier has every record of it in force (ApiKey).
    VerifiersSynced,
    /// Workloads that are restarted when it has changed run its current version (ApiKey).
    ConsumersUpdated,
    /// The version in use ends soon, and nothing replaces it before (ApiKey).
    Expiring,
    /// Somebody revoked it (ApiKey).
    Revoked,
    /// A plan was made from a complete view (RetentionPolicy).
    PlanReady,
    /// More would be deleted than the caps allow (RetentionPolicy).
    BlastRadiusExceeded,
    /// The operator's clock and the API server's are too far apart (RetentionPolicy, ApiKey).
    ClockSuspect,
    /// Something could not be listed, marked or deleted (RetentionPolicy).
    Degraded,
    /// Objects that are too old are held (RetentionPolicy).
    HoldActive,
}

impl Type {
    /// The type's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Programmed => "Programmed",
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Rendered => "Rendered",
            Self::Analyzed => "Analyzed",
            Self::WidenedByOthers => "WidenedByOthers",
            Self::DnsReachable => "DnsReachable",
            Self::ApiServerReachable => "ApiServerReachable",
            Self::EnforcerDetected => "EnforcerDetected",
            Self::Rotating => "Rotating",
            Self::VerifiersSynced => "VerifiersSynced",
            Self::ConsumersUpdated => "ConsumersUpdated",
            Self::Expiring => "Expiring",
            Self::Revoked => "Revoked",
            Self::PlanReady => "PlanReady",
            Self::BlastRadiusExceeded => "BlastRadiusExceeded",
            Self::ClockSuspect => "ClockSuspect",
            Self::Degraded => "Degraded",
            Self::HoldActive => "HoldActive",
        }
    }
}

/// The conditions of one status, made anew at each visit.
#[derive(Debug, Default)]
pub struct Conditions {
    list: Vec<Condition>,
    generation: Option<i64>,
}

/// Longest message that the API server's schema admits.
const MAX_MESSAGE: usize = 32_768;

impl Conditions {
    /// An empty set about the given generation of the spec.
    #[must_use]
    pub fn of_generation(generation: Option<i64>) -> Self {
        Self { list: vec![], generation }
    }

    /// Whether a condition is there and true.
    #[must_use]
    pub fn is(&self, kind: Type) -> bool {
        self.list.iter().any(|condition| condition.type_ == kind.as_str() && condition.status == "True")
    }

    /// Sets a condition; a later call for the same type replaces it.
    pub fn set(&mut self, kind: Type, status: bool, reason: &str, message: impl Into<String>) -> &mut Self {
        self.put(kind, if status { "True" } else { "False" }, reason, message.into());
        self
    }

    /// Sets a condition of which nobody knows whether it is true.
    pub fn unknown(&mut self, kind: Type, reason: &str, message: impl Into<String>) {
        self.put(kind, "Unknown", reason, message.into());
    }

    fn put(&mut self, kind: Type, status: &str, reason: &str, mut message: String) {
        if message.len() > MAX_MESSAGE {
            let end = (0..=MAX_MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or_default();
            message.truncate(end);
        }
        self.list.retain(|condition| condition.type_ != kind.as_str());
        self.list.push(Condition {
            type_: kind.as_str().into(),
            status: status.into(),
            reason: reason.into(),
            message,
            observed_generation: self.generation,
            last_transition_time: Time(Timestamp::MIN),
        });
    }

    /// Takes a condition out.
    pub fn unset(&mut self, kind: Type) {
        self.list.retain(|condition| condition.type_ != kind.as_str());
    }

    /// Takes a condition over as it was, of the generation that it names.
    pub fn keep(&mut self, last: &Condition) -> &mut Self {
        self.list.retain(|condition| condition.type_ != last.type_);
        self.list.push(last.clone());
        self
    }

    /// Says why nothing will change until somebody changes something: no work goes on.
    pub fn stall(&mut self, reason: &str, message: &str) -> &mut Self {
        self.unset(Type::Reconciling);
        self.set(Type::Programmed, false, reason, message);
        self.set(Type::Ready, false, reason, message);
        self.set(Type::Stalled, true, reason, message)
    }

    /// Says why it is not in force yet, or no longer: work goes on.
    pub fn wait(&mut self, reason: &str, message: &str) -> &mut Self {
        self.set(Type::Programmed, false, reason, message);
        self.set(Type::Ready, false, reason, message);
        self.set(Type::Reconciling, true, reason, message)
    }

    /// The list to write: a condition whose status did not change keeps its transition time, so that
    /// a visit that found nothing new yields the same status to the byte.
    #[must_use]
    pub fn carried_from(mut self, old: &[Condition], now: Timestamp) -> Vec<Condition> {
        let now = super::whole_second(now);
        for condition in &mut self.list {
            let before = old.iter().find(|before| before.type_ == condition.type_ && before.status == condition.status);
            condition.last_transition_time = before.map_or(Time(now), |before| before.last_transition_time.clone());
        }
        self.list
    }
}

/// Reason of an object that this release can't read.
pub const UNREADABLE: &str = "Unreadable";
/// Reason of what the API server does not take, as where a quota is used up.
pub const WRITE_REFUSED: &str = "WriteRefused";
/// Reason of what nothing comes of because the installation leaves the feature out.
pub const FEATURE_DISABLED: &str = "FeatureDisabled";

/// What `Ready` says first of a resource that is suspended.
const SUSPENDED: &str = "spec.suspend is true: the operator leaves it alone";

/// The conditions of a resource that is suspended: what was last true of it, each of the generation that it names. No
/// work goes on. `Ready` gets the reason `Suspended` (as Flux has it) and keeps its status, so that what is well stays
/// so for kstatus; of what was never visited it is False.
#[must_use]
pub fn suspended(mut last: Vec<Condition>, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    // That it could not be read is over: it is being read.
    last.retain(|condition| condition.type_ != Type::Reconciling.as_str() && condition.reason != UNREADABLE);
    let ready = last.iter().find(|it| it.type_ == Type::Ready.as_str() && it.status != "Unknown").cloned();
    let Some(ready) = ready else {
        let mut never = Conditions { list: last.clone(), generation };
        never.set(Type::Ready, false, "Suspended", SUSPENDED);
        return never.carried_from(&last, now);
    };
    if !ready.message.starts_with(SUSPENDED) {
        let colon = if ready.message.is_empty() { "" } else { ": " };
        let message = format!("{SUSPENDED}; before: {}{colon}{}", ready.reason, ready.message);
        let mut said = Conditions { list: vec![], generation: ready.observed_generation };
        said.set(Type::Ready, ready.status == "True", "Suspended", message);
        let said = said.carried_from(&[ready], now);
        last.retain(|condition| condition.type_ != Type::Ready.as_str());
        last.extend(said);
    }
    last
}

/// Whether a list says that a condition is true.
#[must_use]
pub fn is_true(list: &[Condition], kind: Type) -> bool {
    list.iter().any(|condition| condition.type_ == kind.as_str() && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(status: bool, reason: &str, old: &[Condition], now: i64) -> Vec<Condition> {
        let mut set = Conditions::of_generation(Some(1));
        set.set(Type::Ready, status, reason, "");
        set.carried_from(old, at(now))
    }

    #[test]
    fn transition_time_moves_with_the_status_and_not_with_the_reason() {
        let first = ready(false, "Pending", &[], 10);
        let second = ready(false, "StillPending", &first, 20);
        let third = ready(true, "Done", &second, 30);
        let times: Vec<_> = [&first, &second, &third].map(|list| list[0].last_transition_time.0.as_second()).into();
        assert_eq!(times, [10, 10, 30]);
    }

    #[test]
    fn a_visit_that_finds_nothing_new_changes_nothing() {
        let first = ready(true, "Done", &[], 10);
        assert_eq!(ready(true, "Done", &first, 99), first);
    }

    #[test]
    fn what_stalls_is_no_work_in_progress() {
        let mut set = Conditions::of_generation(Some(1));
        set.set(Type::Reconciling, true, "ApiError", "").stall("FeatureDisabled", "it is off");
        assert!(set.is(Type::Stalled) && !set.is(Type::Reconciling));
    }

    #[test]
    fn what_is_suspended_and_can_be_read_again_does_not_say_that_it_can_not() {
        let mut set = Conditions::of_generation(Some(1));
        set.set(Type::Accepted, false, UNREADABLE, "").stall(UNREADABLE, "unknown field");
        let told = suspended(set.carried_from(&[], at(1)), Some(1), at(2));
        let told: Vec<_> = told.iter().map(|it| (it.type_.as_str(), it.reason.as_str())).collect();
        assert_eq!(told, [("Ready", "Suspended")]);
    }

    #[test]
    fn what_is_suspended_does_not_reconcile_and_keeps_what_was_true() {
        let mut set = Conditions::of_generation(Some(1));
        set.set(Type::Ready, true, "Ready", "").set(Type::Reconciling, true, "Rotating", "");
        let last = suspended(set.carried_from(&[], at(0)), Some(2), at(9));
        let told: Vec<_> = last.iter().map(|it| (it.type_.as_str(), &*it.status, &*it.reason, &*it.message)).collect();
        let said = "spec.suspend is true: the operator leaves it alone; before: Ready";
        assert_eq!(told, [("Ready", "True", "Suspended", said)]);
        assert_eq!((last[0].observed_generation, last[0].last_transition_time.0), (Some(1), at(0)));
        assert_eq!(suspended(last.clone(), Some(2), at(10)), last, "it is said once");
    }

    #[test]
    fn what_was_made_suspended_does_not_wait_for_a_visit() {
        let mut unvisited = ready(false, "Pending", &[], 0);
        unvisited[0].status = "Unknown".into();
        for last in [unvisited, vec![]] {
            let told = suspended(last, Some(1), at(9));
            let [it] = &told[..] else { panic!("{told:?}") };
            assert_eq!((&*it.status, &*it.reason, &*it.message), ("False", "Suspended", SUSPENDED));
            assert_eq!((it.observed_generation, it.last_transition_time.0), (Some(1), at(9)));
            assert_eq!(suspended(told.clone(), Some(1), at(10)), told);
        }
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let mut set = Conditions::default();
        set.set(Type::Ready, false, "Long", "é".repeat(MAX_MESSAGE));
        assert!(set.carried_from(&[], at(0))[0].message.len() <= MAX_MESSAGE);
    }
}
