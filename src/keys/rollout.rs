//! Workloads that are restarted when a key has changed: whether they agreed, and how far they are.

use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::{DaemonSet, Deployment, StatefulSet},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::api::{ConsumerStatus, RestartTarget, condition::FEATURE_DISABLED, labels::RESTART_ON_ROTATION};

/// A workload that a spec names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadSeen {
    /// As the spec names it.
    pub target: RestartTarget,
    /// What was found.
    pub workload: Option<Workload>,
    /// Whether the operator may not look.
    pub forbidden: bool,
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Whether its owner agreed to restarts.
    pub opted_in: bool,
    /// The version that its pod template asks for.
    pub version: Option<String>,
    /// When Rampart last changed it, by the API server's clock.
    pub restarted_at: Option<Timestamp>,
    /// What its roll-out waits for, in words; nothing when it is complete.
    pub waits_for: Option<String>,
}

/// How a workload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Progress {
    /// All its pods run the version.
    Updated,
    /// Not yet.
    RollingOut,
    /// Not yet, and too late.
    TimedOut,
    /// Its owner did not agree.
    NotOptedIn,
    /// It is not there.
    NotFound,
    /// The operator may not look at it.
    Forbidden,
}

impl Progress {
    /// Stable name, as reason of the condition `ConsumersUpdated`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Updated => "Updated",
            Self::RollingOut => "RollingOut",
            Self::TimedOut => "TimedOut",
            Self::NotOptedIn => "NotOptedIn",
            Self::NotFound => "NotFound",
            Self::Forbidden => FEATURE_DISABLED,
        }
    }
}

/// How a version stands on a pod template.
#[must_use]
pub fn version_value(n: i64, id: &str) -> String {
    format!("{n}-{id}")
}

/// The number of a version that stands on a pod template.
#[must_use]
pub fn version_number(value: &str) -> Option<i64> {
    value.split('-').next()?.parse().ok()
}

/// Annotation of the pod template that says which version of a key, by the name of its ApiKey, the pods run.
#[must_use]
pub fn version_annotation(key: &str) -> String {
    format!("{}-{key}", crate::api::labels::KEY_VERSION)
}

impl WorkloadSeen {
    /// Whether it is to be restarted.
    #[must_use]
    pub fn is_behind(&self, wanted: &str) -> bool {
        self.workload.as_ref().is_some_and(|workload| workload.opted_in && workload.version.as_deref() != Some(wanted))
    }

    /// How it stands.
    #[must_use]
    pub fn progress(&self, wanted: &str, now: Timestamp) -> Progress {
        let Some(workload) = &self.workload else {
            return if self.forbidden { Progress::Forbidden } else { Progress::NotFound };
        };
        if !workload.opted_in {
            return Progress::NotOptedIn;
        }
        if workload.version.as_deref() == Some(wanted) && workload.waits_for.is_none() {
            return Progress::Updated;
        }
        let timeout = jiff::SignedDuration::try_from(self.target.wait_timeout.get()).unwrap_or_default();
        let late = workload.restarted_at.and_then(|at| at.checked_add(timeout).ok()).is_some_and(|end| end <= now);
        let asked = workload.version.as_deref() == Some(wanted);
        if late && asked { Progress::TimedOut } else { Progress::RollingOut }
    }

    /// What status says of it.
    #[must_use]
    pub fn status(&self, wanted: &str, now: Timestamp) -> ConsumerStatus {
        let version = self.workload.as_ref().and_then(|workload| workload.version.as_ref());
        let progress = self.progress(wanted, now);
        let waits = self.workload.as_ref().and_then(|workload| workload.waits_for.clone());
        let message = match progress {
            Progress::Updated => None,
            Progress::NotFound => Some("there is no such workload in this namespace".into()),
            Progress::Forbidden => Some(
                "the operator has no right to read it, so it is not restarted: set features.apiKeyRestarts of the \
                 chart to true, or take it out of spec.restartTargets"
                    .into(),
            ),
            Progress::NotOptedIn => {
                Some(format!("it is not restarted: it lacks the annotation {RESTART_ON_ROTATION}: \"true\""))
            }
            Progress::RollingOut => Some(waits.unwrap_or_else(|| "its pods are to be started anew".into())),
            Progress::TimedOut => Some(format!(
                "not complete within {}: {}",
                self.target.wait_timeout,
                waits.unwrap_or_else(|| "its pods were not started anew".into())
            )),
        };
        ConsumerStatus {
            workload: format!("{:?}/{}", self.target.kind, self.target.name),
            version: version.and_then(|version| version_number(version)),
            ready: progress == Progress::Updated,
            message,
        }
    }
}

const BY_HAND: &str = "are new, and its updateStrategy leaves the rest to you";

/// What a Deployment's roll-out waits for, as `kubectl rollout status` tells it.
#[must_use]
pub fn of_deployment(it: &Deployment) -> Option<String> {
    let (spec, status) = (it.spec.clone(), it.status.clone().unwrap_or_default());
    if behind(&it.metadata, status.observed_generation) {
        return Some("its controller has not seen the change".into());
    }
    if spec.paused == Some(true) {
        return Some("it is paused".into());
    }
    let stuck = status.conditions.iter().flatten().any(|condition| {
        condition.type_.as_deref() == Some("Progressing")
            && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
    });
    if stuck {
        return Some("its progress deadline is exceeded".into());
    }
    let wanted = spec.replicas.unwrap_or(1);
    let count = |count: Option<i32>| count.unwrap_or_default();
    let (updated, all, available) =
        (count(status.updated_replicas), count(status.replicas), count(status.available_replicas));
    pods(updated, wanted, "are new")
        .or_else(|| (all > updated).then(|| format!("{} old pods are left", all - updated)))
        .or_else(|| pods(available, updated, "are available"))
}

/// What a StatefulSet's roll-out waits for.
#[must_use]
pub fn of_stateful_set(it: &StatefulSet) -> Option<String> {
    let (spec, status) = (it.spec.clone(), it.status.clone().unwrap_or_default());
    if behind(&it.metadata, status.observed_generation) {
        return Some("its controller has not seen the change".into());
    }
    let strategy = spec.update_strategy.unwrap_or_default();
    let wanted = spec.replicas.unwrap_or(1);
    let count = |count: Option<i32>| count.unwrap_or_default();
    let updated = count(status.updated_replicas);
    // Pods below the partition, and with OnDelete all of them, wait for somebody's hand.
    let by_hand = strategy.type_.as_deref() == Some("OnDelete")
        || strategy.rolling_update.as_ref().is_some_and(|rolling| rolling.partition.unwrap_or_default() > 0);
    pods(updated, wanted, if by_hand { BY_HAND } else { "are new" })
        .or_else(|| pods(count(status.available_replicas), wanted, "are available"))
}

/// What a DaemonSet's roll-out waits for.
#[must_use]
pub fn of_daemon_set(it: &DaemonSet) -> Option<String> {
    let status = it.status.clone().unwrap_or_default();
    if behind(&it.metadata, status.observed_generation) {
        return Some("its controller has not seen the change".into());
    }
    let wanted = status.desired_number_scheduled;
    let by_hand = it.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete");
    let updated = status.updated_number_scheduled.unwrap_or_default();
    pods(updated, wanted, if by_hand { BY_HAND } else { "are new" })
        .or_else(|| pods(status.number_available.unwrap_or_default(), wanted, "are available"))
}

fn behind(metadata: &ObjectMeta, observed: Option<i64>) -> bool {
    observed.unwrap_or_default() < metadata.generation.unwrap_or_default()
}

fn pods(has: i32, wanted: i32, what: &str) -> Option<String> {
    (has < wanted).then(|| format!("{has} of {wanted} pods {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(status: &serde_json::Value) -> Option<String> {
        let it = serde_json::from_value(serde_json::json!({
            "metadata": {"generation": 2},
            "spec": {"replicas": 3, "selector": {}, "template": {}}, "status": status,
        }));
        of_deployment(&it.unwrap())
    }

    #[test]
    fn a_workload_that_may_not_be_read_is_not_taken_for_one_that_is_gone() {
        let target: RestartTarget =
            serde_json::from_value(serde_json::json!({"kind": "Deployment", "name": "web"})).unwrap();
        let seen = WorkloadSeen { target, workload: None, forbidden: true };
        assert_eq!(seen.progress("1-a", Timestamp::UNIX_EPOCH).reason(), "FeatureDisabled");
        let told = seen.status("1-a", Timestamp::UNIX_EPOCH).message.unwrap();
        assert!(told.contains("features.apiKeyRestarts") && told.len() <= 256, "{told}");
        assert!(!seen.is_behind("1-a"), "nor is it restarted");
    }

    #[test]
    fn a_rollout_is_complete_when_new_pods_are_all_there_is_and_available() {
        let wait = |status: serde_json::Value| deployment(&status).unwrap_or_default();
        assert!(wait(serde_json::json!({"observedGeneration": 1})).contains("not seen"));
        let seen = |updated: i32, all: i32, available: i32| {
            wait(serde_json::json!({"observedGeneration": 2, "updatedReplicas": updated, "replicas": all,
                                    "availableReplicas": available}))
        };
        assert_eq!(seen(1, 3, 3), "1 of 3 pods are new");
        assert_eq!(seen(3, 4, 3), "1 old pods are left");
        assert_eq!(seen(3, 3, 2), "2 of 3 pods are available");
        assert_eq!(seen(3, 3, 3), "");
    }

    #[test]
    fn a_stateful_set_waits_for_pods_below_its_partition_and_says_so() {
        let wait = |strategy: serde_json::Value, updated: i32, available: i32| {
            let it = serde_json::from_value(serde_json::json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 3, "selector": {}, "template": {}, "updateStrategy": strategy},
                "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": updated,
                           "availableReplicas": available},
            }));
            of_stateful_set(&it.unwrap()).unwrap_or_default()
        };
        let rolling = serde_json::json!({"type": "RollingUpdate"});
        assert_eq!(wait(rolling.clone(), 1, 3), "1 of 3 pods are new");
        assert_eq!(wait(rolling.clone(), 3, 2), "2 of 3 pods are available");
        assert_eq!(wait(rolling, 3, 3), "");
        for by_hand in [
            serde_json::json!({"type": "OnDelete"}),
            serde_json::json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}),
        ] {
            assert_eq!(wait(by_hand, 1, 3), format!("1 of 3 pods {BY_HAND}"));
        }
    }

    #[test]
    fn a_daemon_set_waits_for_every_node() {
        let wait = |strategy: &str, updated: i32, available: i32| {
            let it = serde_json::from_value(serde_json::json!({
                "metadata": {"generation": 2},
                "spec": {"selector": {}, "template": {}, "updateStrategy": {"type": strategy}},
                "status": {"observedGeneration": 2, "currentNumberScheduled": 3, "desiredNumberScheduled": 3,
                           "numberMisscheduled": 0, "numberReady": 3, "updatedNumberScheduled": updated,
                           "numberAvailable": available},
            }));
            of_daemon_set(&it.unwrap()).unwrap_or_default()
        };
        assert_eq!(wait("RollingUpdate", 1, 3), "1 of 3 pods are new");
        assert_eq!(wait("RollingUpdate", 3, 2), "2 of 3 pods are available");
        assert_eq!(wait("RollingUpdate", 3, 3), "");
        assert_eq!(wait("OnDelete", 1, 3), format!("1 of 3 pods {BY_HAND}"));
    }
}
