//! When a key is due, and when it ends.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::Spec;
use crate::api::{ApiKeyStatus, VersionStatus};

/// Shorter intervals are kept exactly.
const LEAST_SPREAD: SignedDuration = SignedDuration::from_hours(1);

/// Of the overlap this part at least is left when a window is waited for.
const RESERVE: i32 = 10;

/// When a version ends that was made then.
pub(super) fn expires(spec: &Spec, created: Timestamp) -> Timestamp {
    let end = created.checked_add(spec.ttl).unwrap_or(Timestamp::MAX);
    spec.hard_expiry.map_or(end, |hard| end.min(hard))
}

/// When the current version is due for rotation, if ever: as of `now`, since a window that was missed is not waited
/// in.
pub(super) fn due_at(spec: &Spec, status: &ApiKeyStatus, current: &VersionStatus, now: Timestamp) -> Option<Timestamp> {
    [scheduled(spec, current, now), requested_at(spec, status, current)].into_iter().flatten().min()
}

/// When the current version is due because somebody asked for it.
pub(super) fn requested_at(spec: &Spec, status: &ApiKeyStatus, current: &VersionStatus) -> Option<Timestamp> {
    let handled = status.last_handled_rotation.as_ref().map(|time| time.0);
    // A request from before the version was made is answered by that version.
    spec.rotation.requested.filter(|at| Some(*at) != handled && *at >= current.created_at.0)
}

fn scheduled(spec: &Spec, current: &VersionStatus, now: Timestamp) -> Option<Timestamp> {
    let (created, ends) = (current.created_at.0, current.expires_at.0);
    let interval = spec.rotation.interval?;
    let mut due = created.checked_add(interval.saturating_sub(spread(spec, current.n, interval))).ok()?;
    // A version that ends early, by a `hardExpiry` that was moved since, has its successor in time.
    if expires(spec, now) > ends {
        due = due.min(ends.checked_sub(spec.rotation.overlap).unwrap_or(due).max(created));
    }
    // A moment in the past stays what it is while a window is open: a status does not follow the clock.
    let from = due.max(now);
    // One that opens when the version is about to end would leave consumers no time.
    let late = ends.checked_sub(spec.rotation.overlap / RESERVE).unwrap_or(ends);
    let longest = spec.rotation.longest.and_then(|longest| created.checked_add(longest).ok());
    let late = longest.map_or(late, |longest| longest.min(late));
    match spec.rotation.windows.open_from(from) {
        Some(opens) if opens > from && opens < late => Some(opens),
        _ => Some(due),
    }
}

/// What is taken off the interval, up to a tenth, so that keys that were made together are not replaced together:
/// always the same for a version.
fn spread(spec: &Spec, n: i64, interval: SignedDuration) -> SignedDuration {
    // A person supplies an imported token, and is told the exact time.
    if interval < LEAST_SPREAD || spec.imported.is_some() {
        return SignedDuration::ZERO;
    }
    let digest = Sha256::digest(format!("{}/{}/{n}", spec.namespace, spec.name));
    let number = digest.iter().take(4).fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
    SignedDuration::from_secs(number % (interval.as_secs() / 10 + 1))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::{
        api::{ApiKey, VersionState},
        keys::Caps,
    };

    fn spec(rotation: &serde_json::Value) -> Spec {
        let key: ApiKey = serde_json::from_value(serde_json::json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "k", "namespace": "n"},
            "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "prefix": "ab",
                     "ttl": "1000h", "rotation": rotation, "secret": {"name": "s"}},
        }))
        .unwrap();
        Spec::parse(&key, &Caps::default()).unwrap()
    }

    fn version(created: Timestamp, ends: Timestamp) -> VersionStatus {
        VersionStatus {
            n: 1,
            id: "one".into(),
            state: VersionState::Current,
            created_at: Time(created),
            expires_at: Time(ends),
            replaced_by: None,
            destroy_at: None,
        }
    }

    fn hours(from: Timestamp, hours: i64) -> Timestamp {
        from.checked_add(SignedDuration::from_hours(hours)).unwrap()
    }

    const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

    #[test]
    fn rotations_are_spread_by_a_tenth_and_always_alike() {
        let spec = spec(&serde_json::json!({"interval": "100h", "overlap": "6h"}));
        let spreads: Vec<i64> =
            (1..50).map(|n| spread(&spec, n, SignedDuration::from_hours(100)).as_secs() / 3600).collect();
        assert!(spreads.iter().all(|hours| (0..=10).contains(hours)), "{spreads:?}");
        assert!(spreads.iter().min() < spreads.iter().max());
        assert_eq!(
            spread(&spec, 7, SignedDuration::from_hours(100)),
            spread(&spec, 7, SignedDuration::from_hours(100))
        );
        assert_eq!(spread(&spec, 7, SignedDuration::from_mins(59)), SignedDuration::ZERO);
    }

    #[test]
    fn a_scheduled_rotation_waits_for_a_window_and_a_requested_one_does_not() {
        let rotation = |requested: &str| {
            serde_json::json!({"interval": "59m", "overlap": "10m", "requestedAt": requested,
                "windows": [{"cron": "0 2 * * *", "duration": "1h"}]})
        };
        let spec_of = |requested: &str| spec(&rotation(requested));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let current = version(at("2026-05-01T10:00:00Z"), at("2026-06-10T00:00:00Z"));
        let due = |spec: &Spec, now: &str| due_at(spec, &ApiKeyStatus::default(), &current, at(now));
        let old = spec_of("2026-01-01T00:00:00Z");
        assert_eq!(due(&old, "2026-05-01T10:30:00Z"), Some(at("2026-05-02T02:00:00Z")));
        assert_eq!(due(&old, "2026-05-02T02:30:00Z"), Some(at("2026-05-01T10:59:00Z")), "a window is open");
        assert_eq!(due(&old, "2026-05-02T03:00:00Z"), Some(at("2026-05-03T02:00:00Z")), "it was missed");
        let asked = spec_of("2026-05-01T12:00:00Z");
        assert_eq!(due(&asked, "2026-05-01T13:00:00Z"), Some(at("2026-05-01T12:00:00Z")));
        // Ends before the next window.
        let short = version(at("2026-05-01T10:00:00Z"), at("2026-05-01T20:00:00Z"));
        let due = due_at(&old, &ApiKeyStatus::default(), &short, at("2026-05-01T11:00:00Z"));
        assert_eq!(due, Some(at("2026-05-01T10:59:00Z")));
    }

    #[test]
    fn a_window_that_opens_just_before_the_end_is_not_waited_for() {
        let spec = spec(&serde_json::json!({"interval": "20h", "overlap": "10h",
            "windows": [{"cron": "0 2 * * *", "duration": "1h"}]}));
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let due = |ends: &str| {
            let current = version(at("2026-05-01T00:00:00Z"), at(ends));
            due_at(&spec, &ApiKeyStatus::default(), &current, at("2026-05-01T21:00:00Z")).unwrap()
        };
        assert_eq!(due("2026-05-02T03:01:00Z"), at("2026-05-02T02:00:00Z"));
        assert!(due("2026-05-02T02:59:00Z") <= at("2026-05-01T20:00:00Z"), "less than a tenth of the overlap is left");
    }

    #[test]
    fn no_window_puts_a_rotation_off_beyond_what_is_allowed() {
        let mut spec = spec(&serde_json::json!({"interval": "20h", "overlap": "1h",
            "windows": [{"cron": "0 0 1 1 *", "duration": "1h"}]}));
        let current = version(START, hours(START, 10_000));
        let due = |spec: &Spec| due_at(spec, &ApiKeyStatus::default(), &current, hours(START, 21)).unwrap();
        assert!(due(&spec) > hours(START, 1000), "it waits for the first of January");
        spec.rotation.longest = Some(SignedDuration::from_hours(24));
        assert!(due(&spec) <= hours(START, 20));
    }

    #[test]
    fn a_version_that_ends_early_is_replaced_in_time() {
        let spec = spec(&serde_json::json!({"interval": "500h", "overlap": "10h"}));
        let current = version(START, hours(START, 100));
        let due = due_at(&spec, &ApiKeyStatus::default(), &current, START);
        assert_eq!(due, Some(hours(START, 90)));
    }
}
