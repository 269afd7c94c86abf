//! `rampart keys rotate`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{
    super::{BAD_INPUT, connection::block_on},
    place::Place,
    wait::{Look, refused, state, until},
};
use crate::{
    api::{ApiKey, ApiKeyStatus, GoDuration, RotationPolicy, condition::Type, whole_second},
    keys::failed_at,
    runtime::clock,
};

/// Asks for a new version of a key now. The one in use stays valid for the overlap (`spec.rotation.overlap`).
///
/// Sets `spec.rotation.requestedAt`. Exits 2 where the key can't be rotated, and with --wait 1 where it was not in time.
#[derive(Debug, Args)]
pub(in crate::cli) struct Rotate {
    /// Name of the ApiKey.
    name: String,
    #[command(flatten)]
    place: Place,
    /// Wait until the new version is the current one.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "5m")]
    timeout: GoDuration,
}

impl Rotate {
    pub(super) fn run(self) -> Result<ExitCode> {
        block_on(async {
            let key = self.place.key(&self.name).await?;
            let asked = |live: &ApiKey| match refusal(live, clock::now()) {
                Some(why) => {
                    eprintln!("rampart: {}/{} is not rotated: {why}", key.namespace, key.name);
                    None
                }
                None => Some(json!({"rotation": {"requestedAt": moment(live, clock::now())}})),
            };
            let Some((before, after)) = key.change(asked).await? else { return Ok(ExitCode::from(BAD_INPUT)) };
            let at = after.spec.rotation.requested_at.as_ref().map(|at| at.0).unwrap_or_default();
            eprintln!("a rotation of {}/{} is asked for as of {at}", key.namespace, key.name);
            if let Some(imported) = after.spec.imported() {
                let from = &imported.secret_ref;
                eprintln!("its token is imported: put the successor into entry {} of Secret {}", from.key, from.name);
            }
            if !self.wait {
                return Ok(ExitCode::SUCCESS);
            }
            let old = before.status.as_ref().and_then(ApiKeyStatus::current).map(|version| version.n);
            let generation = after.metadata.generation;
            until(&key, self.timeout.get(), |live| look(live, (old, at), generation)).await
        })
    }
}

/// Why a key can't be rotated.
fn refusal(key: &ApiKey, now: Timestamp) -> Option<String> {
    let spec = &key.spec;
    let why = if key.metadata.deletion_timestamp.is_some() {
        "it is being deleted"
    } else if spec.revocation.is_some() {
        "it is revoked, for ever: make another ApiKey"
    } else if spec.rotation.policy == RotationPolicy::Disabled {
        "spec.rotation.policy is Disabled: set it to Manual, or make another ApiKey"
    } else if spec.suspend == Some(true) {
        "the operator leaves it alone (spec.suspend): remove that first"
    } else if spec.suspended == Some(true) {
        "verifiers refuse it, and no version is made meanwhile (spec.suspended): remove that first"
    } else if spec.hard_expiry.as_ref().is_some_and(|end| end.0 <= now) {
        "it has ended for good (spec.hardExpiry): set that to a later time, or make another ApiKey"
    } else {
        let status = key.status.as_ref()?;
        return refused(status, key.metadata.generation).filter(|why| why.starts_with("NotPermitted"));
    };
    Some(why.to_owned())
}

/// Now, in whole seconds; but after what was asked for and done, and not before the version in use, whatever this
/// machine's clock says: such a request would be taken as answered.
fn moment(key: &ApiKey, now: Timestamp) -> Timestamp {
    let second = SignedDuration::from_secs(1);
    let status = key.status.as_ref();
    let handled = status.and_then(|status| status.last_handled_rotation.as_ref());
    let after_handled = handled.and_then(|at| at.0.checked_add(second).ok());
    let made = status.and_then(ApiKeyStatus::current).map(|version| version.created_at.0);
    let whole = whole_second(now);
    [Some(whole), after_handled, made].into_iter().flatten().max().unwrap_or(whole)
}

fn look(live: &ApiKey, (old, at): (Option<i64>, Timestamp), generation: Option<i64>) -> Look {
    let status = live.status.clone().unwrap_or_default();
    let is_handled = status.last_handled_rotation.as_ref().is_some_and(|handled| handled.0 >= at);
    if let Some(version) = status.current()
        && Some(version.n) > old
        && (is_handled || version.created_at.0 >= at)
    {
        return Look::Done(format!("version {} with id {} is current", version.n, version.id));
    }
    if let Some(why) = refused(&status, generation) {
        return Look::Failed(why);
    }
    // What failed before the request is no answer to it, nor is what is being repeated.
    let is_answer = failed_at(&status).is_some_and(|failed| failed >= at);
    let rotating = status.conditions.iter().find(|it| it.type_ == Type::Rotating.as_str());
    if let Some(failed) = rotating.filter(|it| is_answer && it.status == "False") {
        return Look::Failed(format!("{}: {}", failed.reason, failed.message));
    }
    Look::Waiting(state(live.status.as_ref(), generation))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key(spec: &Value, status: &Value) -> ApiKey {
        let mut all = json!({"owner": {"customerId": "shop"}, "audiences": ["a"], "role": "Viewer", "prefix": "shop",
                             "secret": {"name": "s"}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "k", "generation": 2}, "spec": all, "status": status}))
            .unwrap()
    }

    fn version(n: i64, state: &str, created: &str) -> Value {
        json!({"n": n, "id": format!("id{n}"), "state": state, "createdAt": created, "expiresAt": "2099-01-01T00:00:00Z"})
    }

    const MADE: &str = "2026-01-01T00:00:10Z";

    #[test]
    fn what_can_not_be_rotated_is_told() {
        let now: Timestamp = MADE.parse().unwrap();
        let of = |spec: Value, status: &Value| refusal(&key(&spec, status), now).unwrap_or_else(|| "it can".into());
        let why = |spec| of(spec, &json!({}));
        assert_eq!(why(json!({})), "it can");
        assert!(why(json!({"ttl": "9h", "rotation": {"policy": "Disabled"}})).contains("Disabled"));
        assert!(why(json!({"revocation": {"reason": "Leaked"}})).contains("for ever"));
        assert!(why(json!({"suspend": true})).contains("(spec.suspend)"));
        assert!(why(json!({"suspended": true})).contains("(spec.suspended)"));
        assert!(why(json!({"hardExpiry": MADE})).contains("spec.hardExpiry"));
        assert_eq!(why(json!({"hardExpiry": "2026-01-01T00:00:11Z"})), "it can");
        let beyond = |generation: i64, reason: &str| {
            json!({"conditions": [{"type": "Accepted", "status": "False", "reason": reason, "message": "spec.role: no",
                   "observedGeneration": generation, "lastTransitionTime": MADE}]})
        };
        assert_eq!(of(json!({}), &beyond(2, "NotPermitted")), "NotPermitted: spec.role: no");
        assert_eq!(of(json!({}), &beyond(1, "NotPermitted")), "it can", "that was about another spec");
        assert_eq!(of(json!({}), &beyond(2, "Conflicted")), "it can", "as soon as what is in the way is gone");
    }

    #[test]
    fn a_request_is_never_older_than_what_it_asks_to_replace() {
        let at = |now: &str, status| moment(&key(&json!({}), &status), now.parse().unwrap()).to_string();
        let made = json!({"versions": [version(1, "Current", MADE)]});
        assert_eq!(at("2026-01-01T00:00:20.7Z", made.clone()), "2026-01-01T00:00:20Z");
        assert_eq!(at("2026-01-01T00:00:05Z", made), MADE);
        let handled = json!({"versions": [version(1, "Current", MADE)], "lastHandledRotation": MADE});
        assert_eq!(at(MADE, handled), "2026-01-01T00:00:11Z");
    }

    #[test]
    fn what_a_look_tells() {
        let at: Timestamp = "2026-01-01T00:00:20Z".parse().unwrap();
        let look = |status: Value| look(&key(&json!({}), &status), (Some(1), at), Some(2));
        let old = version(1, "Deprecated", MADE);
        let done = json!({"versions": [old, version(2, "Current", "2026-01-01T00:00:21Z")], "observedGeneration": 2});
        assert_eq!(look(done), Look::Done("version 2 with id id2 is current".into()));
        let waiting = json!({"versions": [version(1, "Current", MADE)], "observedGeneration": 1,
                             "retryAt": "2026-01-01T01:00:00Z"});
        assert!(matches!(look(waiting), Look::Waiting(said) if said.contains("not answered yet")));
        let failed = |at: &str, attempts: i32, rotating: &str| {
            json!({"observedGeneration": 2, "retryAt": at, "failedAttempts": attempts, "conditions": [{"type": "Rotating",
                "status": rotating, "reason": "HookFailed", "message": "the hook before version 2 failed",
                "lastTransitionTime": MADE}]})
        };
        let told = Look::Failed("HookFailed: the hook before version 2 failed".into());
        assert_eq!(look(failed("2026-01-01T01:00:20Z", 1, "False")), told);
        let earlier = failed("2026-01-01T01:00:19Z", 1, "False");
        assert!(matches!(look(earlier), Look::Waiting(_)), "it failed before the request");
        let repeated = failed("2026-01-01T02:00:21Z", 2, "True");
        assert!(matches!(look(repeated), Look::Waiting(_)), "it is being repeated");
        let condition = |generation: i64| {
            json!({"observedGeneration": 2, "conditions": [{"type": "Accepted",
            "status": "False", "reason": "NotPermitted", "message": "spec.role", "observedGeneration": generation,
            "lastTransitionTime": MADE}]})
        };
        assert_eq!(look(condition(2)), Look::Failed("NotPermitted: spec.role".into()));
        assert!(matches!(look(condition(1)), Look::Waiting(_)));
    }
}
