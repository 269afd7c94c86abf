//! How many policies are visited at once: a visit holds what it knows of every object that its policy selects, and all
//! that are under way must fit into the memory of the process.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{RetentionMode, RetentionPolicy, condition::Type},
    controllers::Turn,
};

/// Objects of one share.
const SHARE: i64 = 10_000;

/// Shares that all visits have: of 200,000 objects, which leave room in the 512 MiB of the chart.
const SHARES: u32 = 20;

/// Of a policy that has not been visited, nobody knows how many objects it selects.
const UNKNOWN: u32 = SHARES / 2;

/// The turns of visits: first come, first served, so that many small ones keep no large one waiting for ever.
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARES as usize)))
    }
}

impl Turns {
    /// Waits for as much as the policy is expected to take; `None` where the process ends before.
    pub(super) async fn take(&self, policy: &RetentionPolicy, stopped: &CancellationToken) -> Option<Turn> {
        let shares = shares(policy);
        if shares == 0 {
            return Some(Turn::default());
        }
        let taking = Arc::clone(&self.0).acquire_many_owned(shares);
        let share = stopped.run_until_cancelled(taking).await?.ok()?;
        Some(Turn { _share: Some(share) })
    }
}

/// By what its last visit counted. Who selects more than all visits may hold is visited alone.
fn shares(policy: &RetentionPolicy) -> u32 {
    if policy.spec.suspend == Some(true) || policy.spec.mode == RetentionMode::Disabled {
        return 0;
    }
    let status = policy.status.as_ref();
    let listed = status.and_then(|status| status.plan.as_ref()).map_or(0, |plan| plan.listed);
    let known = u32::try_from(listed / SHARE).unwrap_or(SHARES).saturating_add(1).min(SHARES);
    // Another spec may select more than the one that was counted, and a visit that failed counted none.
    let is_of_this = |it: &Condition| {
        it.type_ == Type::PlanReady.as_str()
            && it.status == "True"
            && it.observed_generation == policy.metadata.generation
    };
    let is_counted = status.is_some_and(|status| status.plan.is_some() && status.conditions.iter().any(is_of_this));
    if is_counted { known } else { known.max(UNKNOWN) }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    /// One whose objects were counted, with the spec of that generation.
    fn policy(listed: i64, counted: i64) -> RetentionPolicy {
        let plan = json!({"listed": listed, "candidates": 0, "held": 0, "wouldDelete": 0, "kept": 0, "unknownAge": 0});
        serde_json::from_value(json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "RetentionPolicy",
            "metadata": {"name": "exports", "namespace": "reports", "generation": 2},
            "spec": {"serviceAccountName": "retention", "maxAge": "720h", "targets": []},
            "status": {"observedGeneration": 2, "plan": plan, "conditions": [{
                "type": "PlanReady", "status": "True", "reason": "PlanReady", "message": "",
                "observedGeneration": counted, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap()
    }

    #[rstest]
    #[case(0, 2, 1)]
    #[case(9_999, 2, 1)]
    #[case(100_000, 2, 11)]
    #[case(i64::MAX, 2, SHARES)]
    #[case(0, 1, UNKNOWN)]
    #[case(150_000, 1, 16)]
    fn a_visit_takes_by_what_was_counted(#[case] listed: i64, #[case] counted: i64, #[case] taken: u32) {
        assert_eq!(shares(&policy(listed, counted)), taken);
    }

    #[test]
    fn what_was_not_visited_takes_half_and_what_does_nothing_takes_nothing() {
        let mut policy = RetentionPolicy { status: None, ..policy(0, 2) };
        assert_eq!(shares(&policy), UNKNOWN);
        policy.spec.suspend = Some(true);
        assert_eq!(shares(&policy), 0);
        policy.spec.suspend = None;
        policy.spec.mode = RetentionMode::Disabled;
        assert_eq!(shares(&policy), 0);
    }

    #[tokio::test]
    async fn who_comes_when_all_is_taken_waits_for_its_turn() {
        let (turns, stopped) = (Turns::default(), CancellationToken::new());
        let (large, small) = (policy(i64::MAX, 2), policy(0, 2));
        let first = turns.take(&small, &stopped).await;
        assert!(first.is_some());
        let mut second = std::pin::pin!(turns.take(&large, &stopped));
        assert!(second.as_mut().now_or_never().is_none(), "it is to be alone");
        let mut third = std::pin::pin!(turns.take(&small, &stopped));
        assert!(third.as_mut().now_or_never().is_none(), "it came later");
        drop(first);
        let second = second.await;
        assert!(second.is_some() && third.as_mut().now_or_never().is_none());
        drop(second);
        assert!(third.await.is_some());
    }

    #[tokio::test]
    async fn who_waits_gives_up_when_the_process_ends() {
        let (turns, stopped) = (Turns::default(), CancellationToken::new());
        let large = policy(i64::MAX, 2);
        let _first = turns.take(&large, &stopped).await;
        let mut second = std::pin::pin!(turns.take(&large, &stopped));
        assert!(second.as_mut().now_or_never().is_none());
        stopped.cancel();
        assert!(second.await.is_none());
    }
}
