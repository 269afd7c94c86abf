//! Counts in statuses: where nothing else differs, an object's status is written now and then.

use std::time::Duration;

use super::{Networks, Next};
use crate::api::{ClusterSecurityPolicyStatus, HardeningStatus, NetworkPreview, SecurityPolicyStatus};

/// A status with counts.
pub(super) trait Counting: Clone + PartialEq {
    /// Takes counts and samples out of it.
    fn forget_counts(&mut self);

    /// Whether it differs from another in these alone.
    fn differs_in_counts(&self, other: &Self) -> bool {
        let bare = |status: &Self| {
            let mut status = status.clone();
            status.forget_counts();
            status
        };
        self != other && bare(self) == bare(other)
    }
}

impl Counting for SecurityPolicyStatus {
    fn forget_counts(&mut self) {
        forget_pods(&mut self.hardening);
        if let Some(network) = &mut self.network {
            (network.selected_pods, network.isolated) = (None, None);
            network.preview = network.preview.take().map(|_| NetworkPreview::default());
        }
    }
}

impl Counting for ClusterSecurityPolicyStatus {
    fn forget_counts(&mut self) {
        forget_pods(&mut self.hardening);
        if let Some(network) = &mut self.network {
            (network.selected_pods, network.isolated) = (None, None);
            network.preview = network.preview.take().map(|_| NetworkPreview::default());
        }
    }
}

fn forget_pods(hardening: &mut Option<HardeningStatus>) {
    if let Some(hardening) = hardening {
        (hardening.pods, hardening.more_samples) = (None, None);
        hardening.samples.clear();
    }
}

/// When to write a status at the earliest that differs from what it was in counts alone, if that is later.
pub(super) fn held<S: Counting>(networks: &Networks, uid: &str, before: Option<&S>, wanted: &S) -> Option<Duration> {
    before.filter(|before| wanted.differs_in_counts(before)).and_then(|_| networks.told_a_moment_ago(uid))
}

impl Next {
    /// The same, or after a pause if that is sooner.
    pub(super) fn within(self, pause: Duration) -> Self {
        match self {
            Self::After(other) => Self::After(other.min(pause)),
            Self::Change => Self::After(pause),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(network: &Value, compliant: u32) -> SecurityPolicyStatus {
        let pods = json!({"selected": 9, "compliant": compliant, "violating": 0, "exempt": 0});
        serde_json::from_value(json!({"network": network, "hardening": {"pods": pods}})).unwrap()
    }

    #[test]
    fn what_differs_in_counts_alone() {
        let preview = |denied: u32| json!({"selectedPods": 3, "preview": {"newlyDenied": denied, "newlyAllowed": 0}});
        let before = status(&preview(1), 1);
        let differs = |network: &Value, compliant: u32| status(network, compliant).differs_in_counts(&before);
        assert!(differs(&preview(2), 1) && differs(&preview(1), 2));
        let isolated = json!({"selectedPods": 4, "isolated": {"ingress": 1, "egress": 0},
            "preview": {"newlyDenied": 0, "newlyAllowed": 0}});
        assert!(differs(&isolated, 1));
        assert!(!differs(&preview(1), 1), "nothing does");
        assert!(!differs(&json!({"selectedPods": 4}), 1), "it is in force");
        let mut widened = preview(2);
        widened["widenedBy"] = json!(["open"]);
        assert!(!differs(&widened, 1));
    }

    #[test]
    fn what_waits_is_visited_again() {
        let second = Duration::from_secs(1);
        assert_eq!(Next::Change.within(second), Next::After(second));
        assert_eq!(Next::After(2 * second).within(second), Next::After(second));
        assert_eq!(Next::After(second).within(2 * second), Next::After(second));
    }
}
