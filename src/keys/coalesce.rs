//! One restart for several keys: ApiKeys that restart the same workload and change at about the same time.
//!
//! Which version of each key a workload runs stands on its pod template, an annotation a key. Whoever restarts it
//! brings the others' up to date in the same write, and before that waits a while for those that are being rotated.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    Spec,
    rollout::{version_annotation, version_number, version_value},
};
use crate::api::{ApiKey, RestartTarget, VersionStatus, labels::KEY_VERSION};

/// How long after a version was made its restarts wait for other keys: what their tests take, and some.
const LONGEST: SignedDuration = SignedDuration::from_mins(5);
/// The part of the overlap that may be spent on it.
const PART_OF_OVERLAP: i32 = 10;

/// Another ApiKey of the namespace, which restarts workloads, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    targets: Vec<RestartTarget>,
    annotation: String,
    /// The version that its consumers have.
    version: Option<String>,
    /// Whether they get another one soon.
    is_coming: bool,
}

impl Neighbour {
    /// What its status tells; none of a key that restarts nothing now.
    #[must_use]
    pub fn of(key: &ApiKey, now: Timestamp) -> Option<Self> {
        let (spec, status) = (&key.spec, key.status.as_ref()?);
        let rests = spec.suspend == Some(true) || spec.suspended == Some(true) || spec.revocation.is_some();
        if rests || key.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let current = status.current();
        let is_made = status.next_version.is_some_and(|n| status.versions.iter().all(|version| version.n != n));
        let is_put_off = status.retry_at.as_ref().is_some_and(|at| now < at.0);
        Some(Self {
            targets: spec.restart_targets.clone(),
            annotation: version_annotation(key.metadata.name.as_deref()?),
            version: current.map(|current| version_value(current.n, &current.id)),
            is_coming: is_made && !is_put_off,
        })
    }

    /// Whether it restarts this workload.
    #[must_use]
    pub fn restarts(&self, target: &RestartTarget) -> bool {
        self.targets.iter().any(|it| it.kind == target.kind && it.name == target.name)
    }
}

/// What a restart writes besides the own version: the annotations of the others. Nothing while it waits for one that is
/// being rotated.
pub(super) fn with_others(
    spec: &Spec,
    current: &VersionStatus,
    neighbours: &[Neighbour],
    target: &RestartTarget,
    now: Timestamp,
) -> Option<BTreeMap<String, String>> {
    let sharing = || neighbours.iter().filter(|it| it.restarts(target));
    let longest = LONGEST.min(spec.rotation.overlap / PART_OF_OVERLAP);
    let end = current.created_at.0.checked_add(longest).unwrap_or(now);
    let waits = now < end && sharing().any(|it| it.is_coming);
    (!waits).then(|| sharing().filter_map(|it| Some((it.annotation.clone(), it.version.clone()?))).collect())
}

/// The annotations of a pod template by which it is restarted. Those of every key are among them, for whoever applies
/// less takes the rest away; those of others never go back, whatever was heard of them.
#[must_use]
pub fn annotations(
    live: &BTreeMap<String, String>,
    own: (String, String),
    others: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let is_version = |name: &str| name.strip_prefix(KEY_VERSION).is_some_and(|rest| rest.starts_with('-'));
    let mut all: BTreeMap<String, String> =
        live.iter().filter(|(name, _)| is_version(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, value) in others {
        if all.get(name).is_none_or(|live| version_number(live) < version_number(value)) {
            all.insert(name.clone(), value.clone());
        }
    }
    all.extend([own]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_others_wrote_stays_and_never_goes_back() {
        let [a, b, c] = ["a", "b", "c"].map(version_annotation);
        let live = map(&[(&a, "1-x"), (&b, "10-y"), (&c, "3-z"), ("app", "web"), ("rampart.dev/key-versions", "no")]);
        let others = map(&[(&b, "9-old"), (&c, "4-new")]);
        let wanted = map(&[(&a, "2-w"), (&b, "10-y"), (&c, "4-new")]);
        assert_eq!(annotations(&live, (a.clone(), "2-w".into()), &others), wanted);
        // Its own may: a restored key begins anew.
        assert_eq!(annotations(&live, (b.clone(), "1-v".into()), &others)[&b], "1-v");
    }

    #[test]
    fn only_a_key_that_is_about_to_change_is_waited_for() {
        let now = Timestamp::constant(1_800_000_000, 0);
        let of = |spec: serde_json::Value, status: serde_json::Value| {
            let mut key = serde_json::json!({
                "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "b", "namespace": "n"},
                "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "prefix": "ab",
                         "secret": {"name": "s"}, "restartTargets": [{"kind": "DaemonSet", "name": "web"}]},
                "status": status,
            });
            key["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            Neighbour::of(&serde_json::from_value(key).unwrap(), now)
        };
        let plain = || serde_json::json!({});
        let version = serde_json::json!({"n": 4, "id": "x", "state": "Current", "createdAt": "2027-01-01T00:00:00Z",
                                         "expiresAt": "2028-01-01T00:00:00Z"});
        let rests = of(plain(), serde_json::json!({"versions": [version], "currentVersion": 4})).unwrap();
        assert_eq!((rests.version.as_deref(), rests.is_coming), (Some("4-x"), false));
        let made = |retry: Option<&str>, n: i64| serde_json::json!({"versions": [version], "nextVersion": n, "retryAt": retry});
        assert!(of(plain(), made(None, 5)).unwrap().is_coming);
        assert!(of(plain(), made(Some("2027-01-15T07:59:59Z"), 5)).unwrap().is_coming, "it is tried again");
        assert!(!of(plain(), made(Some("2027-01-15T08:00:01Z"), 5)).unwrap().is_coming, "it failed");
        assert!(!of(plain(), made(None, 4)).unwrap().is_coming, "consumers have it, and its hook is left");
        for rests in [
            serde_json::json!({"suspend": true}),
            serde_json::json!({"suspended": true}),
            serde_json::json!({"revocation": {"reason": "Leaked"}}),
        ] {
            assert_eq!(of(rests, made(None, 5)), None);
        }
    }
}
