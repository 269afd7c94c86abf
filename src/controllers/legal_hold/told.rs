//! What the status of a hold says after a visit, and when the next one is due.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::{
        HoldState, LegalHoldStatus,
        condition::{Conditions, Type, is_true},
    },
    cluster::{Error, apply::IN_FORCE_AFTER, holds::Holding},
    controllers::{Next, requested},
    runtime::clock,
};

/// A kind that is not served may come.
const AGAIN: Duration = Duration::from_secs(30);
/// A clock may be set, and a machine may sleep.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

/// Of a hold that an earlier build admitted.
const STILL_REFUSED: &str =
    "what an earlier build refuses for it stays until it ends, is deleted or names other kinds (verb release)";

/// What a visit found.
pub(super) enum Found {
    /// It can't be read, and why; and the admission policies that an earlier build made for it, which refuse still.
    Invalid { why: String, policies: Vec<String> },
    /// It has ended, and nothing is refused for it any more.
    Over(Timestamp),
    /// What refuses for it could not be read or written: the reason, and the words. The hold itself may be none.
    Failed(&'static str, String),
    /// It holds, or will when every API server knows.
    Held { pending: bool, unserved: Option<String>, policies: Vec<String> },
}

/// The status of a hold after a visit.
pub(super) fn status<K: Holding>(object: &K, found: &Found) -> LegalHoldStatus {
    let mut conditions = Conditions::of_generation(object.meta().generation);
    let accepted = !matches!(found, Found::Invalid { .. });
    conditions.set(Type::Accepted, accepted, if accepted { "Accepted" } else { "Invalid" }, "");
    let mut status = LegalHoldStatus {
        observed_generation: object.meta().generation,
        last_handled_reconcile_at: requested(object),
        ..LegalHoldStatus::default()
    };
    match found {
        Found::Failed(reason, why) => {
            match object.hold() {
                Ok(_) => status.state = Some(HoldState::Pending),
                // Nothing is made for it, so that it is not on its way to hold.
                Err(invalid) => drop(conditions.set(Type::Accepted, false, "Invalid", invalid.to_string())),
            }
            let why = format!("whether the API server refuses is not known, and is tried again: {why}");
            conditions.wait(reason, &why);
            status.admission_policies = object.status().map(|it| it.admission_policies.clone()).unwrap_or_default();
        }
        Found::Invalid { why, policies } => {
            let why = if policies.is_empty() { why.clone() } else { format!("{why}; {STILL_REFUSED}") };
            conditions.set(Type::Accepted, false, "Invalid", why.as_str()).stall("Invalid", &why);
            status.admission_policies.clone_from(policies);
        }
        Found::Over(until) => {
            conditions.stall("Expired", &format!("it ended at {until}: nothing is held by it"));
            status.state = Some(HoldState::Expired);
        }
        Found::Held { pending, unserved, policies } => {
            status.admission_policies.clone_from(policies);
            // Of a kind that is not served, nothing is held yet.
            let waits = *pending || unserved.is_some();
            status.state = Some(if waits { HoldState::Pending } else { HoldState::Active });
            match unserved {
                Some(why) => drop(conditions.stall("UnknownResource", why)),
                None if *pending => {
                    let why = "the API server takes a moment until it refuses";
                    conditions.wait("AdmissionPolicyPending", why);
                }
                None => {
                    // A selector with a slip selects nothing, and looks as if it held.
                    let said = object.hold().map(|hold| format!("to see what it holds: {}", hold.listing()));
                    conditions.set(Type::Programmed, true, "Programmed", "");
                    conditions.set(Type::Ready, true, "Active", said.unwrap_or_default());
                }
            }
        }
    }
    let old = object.status().map(|status| status.conditions.as_slice()).unwrap_or_default();
    status.conditions = conditions.carried_from(old, clock::now());
    status
}

/// When to look again at a hold that did not change.
pub(super) fn next<K: Holding>(object: &K, status: &LegalHoldStatus) -> Next {
    if status.conditions.iter().any(|it| it.reason == "UnknownResource") {
        return Next::After(AGAIN);
    }
    match status.state {
        Some(HoldState::Pending) => Next::After(IN_FORCE_AFTER),
        Some(HoldState::Active) | None => {
            let end = object.hold().ok().or_else(|| object.before()).and_then(|hold| hold.until);
            end.map_or(Next::Change, |end| Next::After(look_again(end.duration_since(clock::now()))))
        }
        Some(HoldState::Expired) => Next::Change,
    }
}

/// When to look again at a hold that has so much left. One that has ended by our clock alone is looked at ever more
/// rarely: after as long as that was ago.
fn look_again(left: SignedDuration) -> Duration {
    left.unsigned_abs().clamp(Duration::from_secs(1), LOOK_AGAIN)
}

/// Whether a failure says nothing of what is refused: a write that came too late, or of a hold that was seen to end.
pub(super) fn is_no_news<K: Holding>(object: &K, error: &Error) -> bool {
    let told = object.status().filter(|status| status.observed_generation == object.meta().generation);
    error.code() == Some(409) || told.is_some_and(|status| status.state == Some(HoldState::Expired))
}

/// Whether its status says, of this very spec, that it is ready.
pub(super) fn told_ready<K: Holding>(object: &K) -> bool {
    let told = object.status().filter(|status| status.observed_generation == object.meta().generation);
    told.is_some_and(|status| is_true(&status.conditions, Type::Ready))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_that_has_ended_by_our_clock_alone_is_looked_at_ever_more_rarely() {
        let wait = |left: i64| look_again(SignedDuration::from_secs(left)).as_secs();
        assert_eq!([3600, 60, 0].map(wait), [300, 60, 1]);
        assert_eq!([-1, -2, -60, -400 * 24 * 3600].map(wait), [1, 2, 60, 300]);
    }
}
