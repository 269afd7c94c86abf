//! How much a key was used: what verifiers counted, each since its start, folded into one sum that only grows.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Observed, Spec, report::IDLE};
use crate::api::{ApiKeyStatus, Counted, Usage, VersionState, VersionStatus, condition::Type, whole_second};

/// Sums that status remembers: versions in use times verifiers.
const MOST: usize = 64;
/// After a promotion mounted Secrets take a minute or two, and workloads their time to start anew.
const SETTLING: SignedDuration = SignedDuration::from_mins(10);

/// What a verifier tells of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The verifier.
    pub verifier: String,
    /// When its process started.
    pub started_at: Timestamp,
    /// Public id of the key.
    pub id: String,
    /// Calls that it admitted since.
    pub count: i64,
    /// When the last one was.
    pub last_used: Timestamp,
}

/// Adds what verifiers tell to what was counted before. Nothing is counted twice, whoever is started anew, and nothing
/// is taken back. `lately` is the last use that any report of the last day told of: none has room for all keys at once.
#[must_use]
pub fn fold(before: Option<&Usage>, uses: &[Use], lately: Option<Timestamp>) -> Option<Usage> {
    if uses.is_empty() && lately.is_none() {
        return before.cloned();
    }
    let mut usage = before.cloned().unwrap_or_default();
    usage.last_used = usage.last_used.max(lately.map(Time));
    let is_same = |it: &Counted, told: &Use| it.verifier == told.verifier && it.id == told.id;
    let new = uses.iter().filter(|told| !usage.counted.iter().any(|it| is_same(it, told))).count();
    if usage.counted.len() + new > MOST {
        usage.counted.retain(|it| uses.iter().any(|told| is_same(it, told)));
    }
    for told in uses {
        usage.last_used = usage.last_used.max(Some(Time(told.last_used)));
        let has_room = usage.counted.len() < MOST;
        let known = usage.counted.iter_mut().find(|it| is_same(it, told));
        // What could not be remembered would be counted again next time.
        if known.is_none() && !has_room {
            continue;
        }
        let counted = known.as_ref().filter(|it| it.started_at.0 == told.started_at).map_or(0, |it| it.count);
        usage.count = usage.count.saturating_add((told.count - counted).max(0));
        let now = Counted {
            verifier: told.verifier.clone(),
            id: told.id.clone(),
            started_at: Time(told.started_at),
            count: told.count.max(counted),
        };
        match known {
            Some(known) => *known = now,
            None => usage.counted.push(now),
        }
    }
    Some(usage)
}

/// Replaced versions that are used on, although consumers had time to take their successor: with when they were used
/// last, if that was told now.
pub fn deprecated_in_use<'a>(
    status: &'a ApiKeyStatus,
    before: Option<&'a Usage>,
    uses: &'a [Use],
) -> impl Iterator<Item = (&'a VersionStatus, Timestamp)> {
    let promoted = |id: &str| status.versions.iter().find(|version| version.id == id).map(|it| it.created_at.0);
    status.versions.iter().filter(|version| version.state == VersionState::Deprecated).filter_map(move |version| {
        let settled = promoted(version.replaced_by.as_deref()?)?.checked_add(SETTLING).ok()?;
        let last = uses.iter().filter(|told| told.id == version.id).map(|told| told.last_used).max()?;
        let is_news = uses.iter().filter(|told| told.id == version.id).any(|told| {
            let counted = before.into_iter().flat_map(|usage| &usage.counted);
            let same = |it: &&Counted| it.verifier == told.verifier && it.id == told.id;
            counted.clone().find(same).is_none_or(|it| it.count < told.count || it.started_at.0 != told.started_at)
        });
        (last > settled && is_news).then_some((version, last))
    })
}

/// Notes that verifiers are there, once.
fn watch(usage: Option<Usage>, seen: &Observed, now: Timestamp) -> Option<Usage> {
    if seen.verifiers.is_empty() {
        return usage;
    }
    let mut usage = usage.unwrap_or_default();
    usage.watched_since.get_or_insert(Time(whole_second(now)));
    Some(usage)
}

/// What was counted before, with what verifiers tell now.
pub(super) fn counted(spec: &Spec, seen: &Observed, before: Option<&Usage>, now: Timestamp) -> Option<Usage> {
    let usage = fold(before, &seen.uses, seen.last_use());
    if spec.imported.is_some() { usage } else { watch(usage, seen, now) }
}

/// Whether it tells of the first use or of the first verifier, or of a use so much later than before.
pub(super) fn is_news(before: Option<&Usage>, after: Option<&Usage>, interval: Duration) -> bool {
    let used = |usage: Option<&Usage>| usage?.last_used.as_ref().map(|at| at.0);
    let is_watched = |usage: Option<&Usage>| usage.is_some_and(|it| it.watched_since.is_some());
    let is_later = match (used(before), used(after)) {
        (Some(before), Some(after)) => Duration::try_from(after.duration_since(before)).is_ok_and(|it| it >= interval),
        (None, after) => after.is_some(),
        (Some(_), None) => false,
    };
    is_later || is_watched(before) != is_watched(after)
}

/// Whether status says that it is suspended for want of use: no record does, once its last version has expired.
pub(super) fn is_told_idle(seen: &Observed) -> bool {
    let ready = seen.status.conditions.iter().find(|it| it.type_ == Type::Ready.as_str());
    ready.is_some_and(|ready| ready.reason == IDLE)
}

/// Since when a key was not used: its last use, the coming of the first verifier, or the last request for a rotation,
/// whichever is latest; a version that was made by time is no use. None where no verifier tells, or no version is in use
/// or would be made. One that is suspended for it stays so without verifiers, and when its last version has expired:
/// another would be a key that nobody asks for.
#[must_use]
pub(super) fn idle_since(spec: &Spec, seen: &Observed) -> Option<Timestamp> {
    let newest = seen.status.versions.iter().max_by_key(|version| version.n);
    let is_current = newest.is_some_and(|version| version.state == VersionState::Current);
    let can_tell = !seen.verifiers.is_empty() || is_told_idle(seen);
    if !can_tell || !(is_current || spec.rotation.interval.is_some()) {
        return None;
    }
    let usage = fold(seen.status.usage.as_ref(), &seen.uses, seen.last_use()).unwrap_or_default();
    let (used, watched) = (usage.last_used.map(|time| time.0), usage.watched_since?.0);
    // Status may remember no version that has ended; of a key that never had one there is nothing to use.
    if newest.is_none() && used.is_none() {
        return None;
    }
    [used, spec.rotation.requested].into_iter().flatten().chain([watched]).max()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        api::{KeyCaps, RecordState},
        keys::{Caps, Grant, PolicyCaps, RecordSeen, Standing, VerifierSeen, count_seldom, is_of_time},
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn told(verifier: &str, started: i64, count: i64, last: i64) -> Use {
        Use { verifier: verifier.into(), started_at: at(started), id: "a".into(), count, last_used: at(last) }
    }

    fn key(rotation: &serde_json::Value) -> Spec {
        let mut key = serde_json::json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "k", "namespace": "n"},
            "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "prefix": "ab",
                     "rotation": {"policy": "Manual"}, "secret": {"name": "s"}},
        });
        key["spec"]["rotation"].as_object_mut().unwrap().extend(rotation.as_object().unwrap().clone());
        let caps: KeyCaps = serde_json::from_value(serde_json::json!({"suspendIdleAfter": "1h"})).unwrap();
        let caps = Caps::of(vec![("caps".into(), Arc::new(PolicyCaps::try_from(&caps).unwrap()))]);
        Spec::parse(&serde_json::from_value(key).unwrap(), &caps).unwrap()
    }

    /// A key that was made at 0.
    fn unused() -> Observed {
        let mut seen = Observed::default();
        seen.status.versions.push(VersionStatus {
            n: 1,
            id: "a".into(),
            state: VersionState::Current,
            created_at: Time(at(0)),
            expires_at: Time(at(1_000_000)),
            replaced_by: None,
            destroy_at: None,
        });
        seen
    }

    #[test]
    fn a_key_that_nobody_uses_is_suspended_until_it_is_asked_for() {
        let mut seen = unused();
        let spec = key(&serde_json::json!({}));
        assert!(!spec.as_of(&seen, at(7200)).idle, "nobody can tell");
        come(&mut seen, at(0));
        assert!(!spec.as_of(&seen, at(3599)).idle);
        assert!(spec.as_of(&seen, at(3600)).suspended);
        seen.uses.push(told("v0", 0, 1, 3000));
        assert!(!spec.as_of(&seen, at(3600)).suspended);
        assert!(spec.as_of(&seen, at(6600)).suspended);
        // Told by a report before this one.
        seen.last_used.insert("a".into(), at(4000));
        assert!(!spec.as_of(&seen, at(6600)).suspended);
        assert!(spec.as_of(&seen, at(7600)).suspended);
        let requested = key(&serde_json::json!({"requestedAt": at(7500).to_string()}));
        assert!(!requested.as_of(&seen, at(7600)).suspended, "a rotation revives it");
    }

    #[test]
    fn a_clock_that_is_not_trusted_suspends_no_key_and_revives_none() {
        let (mut seen, spec) = (unused(), key(&serde_json::json!({})));
        come(&mut seen, at(0));
        assert!(is_of_time(&spec, &seen, at(3600)));
        seen.clock_suspect = Some("some 1h ahead of the API server's".into());
        assert!(!spec.as_of(&seen, at(3600)).suspended);
        seen.records.insert("a".into(), suspended());
        assert!(spec.as_of(&seen, at(3600)).idle);
        let over = Spec { hard_expiry: Some(at(3000)), ..spec };
        assert!(over.as_of(&seen, at(3600)).idle, "nor does anybody know that it has ended for good");
    }

    #[test]
    fn what_is_suspended_stays_so_or_is_revived_by_the_api_servers_clock() {
        let (mut seen, spec) = (unused(), key(&serde_json::json!({})));
        come(&mut seen, at(0));
        assert!(!is_of_time(&spec, &seen, at(3500)), "nothing comes by the time");
        seen.records.insert("a".into(), suspended());
        let off = |ahead: i64| Observed {
            clock_suspect: Some("far off".into()),
            skew: SignedDuration::from_secs(ahead),
            ..seen.clone()
        };
        // An hour behind: by that clock it was used not long ago.
        assert!(is_of_time(&spec, &seen, at(3500)), "nobody would ask");
        assert!(spec.as_of(&off(-3600), at(3500)).idle);
        // A day ahead: by that clock somebody asked for a rotation too long ago.
        let requested = key(&serde_json::json!({"requestedAt": at(7000).to_string()}));
        let now = at(7100 + 86_400);
        assert!(is_of_time(&requested, &seen, now), "nobody would ask");
        assert!(!requested.as_of(&off(86_400), now).suspended);
        assert!(spec.as_of(&off(86_400), now).idle, "nobody asked for one");
    }

    /// The record of a key that verifiers refuse for now.
    fn suspended() -> RecordSeen {
        let standing = Standing {
            state: RecordState::Suspended,
            replaced_by: None,
            destroy_at: None,
            expires_at: at(1_000_000),
            grant: Grant::nothing(),
            retained: false,
        };
        RecordSeen { standing, digest: None, revision: "1".into() }
    }

    /// The first verifier is there.
    fn come(seen: &mut Observed, now: Timestamp) {
        seen.verifiers.push(VerifierSeen { revision: "1".into(), started_at: now });
        seen.status.usage = watch(seen.status.usage.take(), seen, now);
    }

    #[test]
    fn nobody_knows_of_uses_from_before_the_first_verifier() {
        let (mut seen, spec) = (unused(), key(&serde_json::json!({})));
        assert_eq!(watch(None, &seen, at(0)), None);
        come(&mut seen, at(100_000));
        assert!(!spec.as_of(&seen, at(103_599)).idle, "its callers called before, too");
        assert!(spec.as_of(&seen, at(103_600)).idle);
        let first = seen.status.usage.clone();
        assert_eq!(watch(first.clone(), &seen, at(200_000)), first, "once");
        seen.status.usage = None;
        assert!(!spec.as_of(&seen, at(103_600)).idle, "its status was lost");
    }

    #[test]
    fn a_version_made_by_time_is_no_use() {
        let (mut seen, spec) = (unused(), key(&serde_json::json!({"policy": "Automatic"})));
        come(&mut seen, at(0));
        seen.status.versions[0].created_at = Time(at(3000));
        assert!(spec.as_of(&seen, at(3600)).idle);
    }

    #[test]
    fn a_key_that_expires_while_nobody_uses_it_is_not_made_anew() {
        let mut seen = unused();
        come(&mut seen, at(0));
        seen.status.versions[0].state = VersionState::Destroyed;
        let spec = key(&serde_json::json!({"policy": "Automatic"}));
        assert!(!spec.as_of(&seen, at(3599)).idle);
        assert!(spec.as_of(&seen, at(3600)).idle);
        seen.uses.push(told("v0", 0, 1, 3000));
        assert!(!spec.as_of(&seen, at(3600)).idle, "it is used");
        seen.status.versions.clear();
        assert!(spec.as_of(&seen, at(6600)).idle, "although no version is remembered");
        let over = Spec { hard_expiry: Some(at(6000)), ..spec.clone() };
        assert!(!over.as_of(&seen, at(6600)).idle, "it has ended for good");
        assert!(!key(&serde_json::json!({})).as_of(&seen, at(6600)).idle, "none would be made");
        seen.uses.clear();
        assert!(!spec.as_of(&seen, at(6600)).idle, "none was made yet");
    }

    #[test]
    fn a_clock_that_is_not_trusted_makes_no_key_anew_that_expired_while_nobody_used_it() {
        let mut seen = unused();
        come(&mut seen, at(0));
        seen.status.versions[0].state = VersionState::Destroyed;
        let ready = serde_json::json!({"type": "Ready", "status": "False", "reason": IDLE, "message": "",
                                       "lastTransitionTime": at(3600).to_string()});
        seen.status.conditions = vec![serde_json::from_value(ready).unwrap()];
        (seen.clock_suspect, seen.skew) = (Some("far off".into()), SignedDuration::from_hours(24));
        let (spec, now) = (key(&serde_json::json!({"policy": "Automatic"})), at(7200 + 86_400));
        assert!(spec.as_of(&seen, now).idle);
        let requested = key(&serde_json::json!({"policy": "Automatic", "requestedAt": at(7000).to_string()}));
        assert!(!requested.as_of(&seen, now).idle, "somebody asks for it");
        seen.status.conditions.clear();
        assert!(!spec.as_of(&seen, now).idle, "it is not newly suspended");
    }

    #[test]
    fn of_a_key_that_is_refused_its_use_is_remembered_and_seldom_written() {
        let (mut seen, spec) = (unused(), key(&serde_json::json!({})));
        let tell = |seen: &mut Observed, second: i64| {
            seen.uses = vec![told("v0", 0, second, second)];
            let mut status = seen.status.clone();
            count_seldom(&spec, seen, &mut status, (Duration::from_mins(5), at(second)));
            std::mem::replace(&mut seen.status, status) != seen.status
        };
        seen.verifiers.push(VerifierSeen { revision: "1".into(), started_at: at(0) });
        assert!(tell(&mut seen, 10), "the first use, and the first verifier");
        assert!(!tell(&mut seen, 309), "it is looked at each minute");
        assert!(tell(&mut seen, 310) && tell(&mut seen, 5000));
        // The operator is started anew: nobody tells of it any more.
        seen.uses.clear();
        assert!(!spec.as_of(&seen, at(8599)).idle, "a key in use is suspended");
        assert!(spec.as_of(&seen, at(8600)).idle);
    }

    fn sum(usage: Option<&Usage>) -> (i64, i64) {
        let usage = usage.unwrap();
        (usage.count, usage.last_used.as_ref().unwrap().0.as_second() - 1_800_000_000)
    }

    #[test]
    fn nothing_is_counted_twice_and_nothing_is_taken_back() {
        let first = fold(None, &[told("v0", 0, 5, 10), told("v1", 0, 7, 20)], None);
        assert_eq!(sum(first.as_ref()), (12, 20));
        // The operator was started anew, and is told the same.
        let again = fold(first.as_ref(), &[told("v0", 0, 5, 10), told("v1", 0, 7, 20)], None);
        assert_eq!(again, first);
        // A verifier was started anew, and its clock is behind.
        let anew = fold(first.as_ref(), &[told("v0", 30, 2, 5), told("v1", 0, 7, 20)], None);
        assert_eq!(sum(anew.as_ref()), (14, 20));
        // An older report comes late.
        assert_eq!(sum(fold(anew.as_ref(), &[told("v1", 0, 3, 1)], None).as_ref()), (14, 20));
        assert_eq!(sum(fold(anew.as_ref(), &[told("v1", 0, 8, 1)], None).as_ref()), (15, 20));
        assert_eq!(fold(anew.as_ref(), &[], None), anew, "no verifier tells anything");
        assert_eq!(
            sum(fold(anew.as_ref(), &[], Some(at(30))).as_ref()),
            (14, 30),
            "a report before this one told of it"
        );
        assert_eq!(sum(fold(anew.as_ref(), &[], Some(at(1))).as_ref()), (14, 20));
    }

    #[test]
    fn what_is_remembered_of_verifiers_does_not_grow() {
        let mut usage = None;
        for nth in 0..1000 {
            usage = fold(usage.as_ref(), &[told(&format!("v{nth}"), nth, 1, nth)], None);
        }
        assert_eq!(sum(usage.as_ref()), (1000, 999));
        assert!(usage.unwrap().counted.len() <= MOST);
    }

    #[test]
    fn what_there_is_no_room_for_is_not_counted_again_and_again() {
        let all: Vec<Use> = (0..100).map(|nth| told(&format!("v{nth}"), 0, 5, nth)).collect();
        let first = fold(None, &all, None);
        assert_eq!(sum(first.as_ref()), (5 * 64, 99), "and when it was used is known");
        assert_eq!(fold(first.as_ref(), &all, None), first);
    }
}
