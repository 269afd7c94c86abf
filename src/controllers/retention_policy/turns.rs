//! How many policies are visited at once: a visit holds what it knows of every object that its policy selects, and all
//! that are under way must fit into the memory of the process.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{RetentionMode, RetentionPolicy, condition::Type},
    controllers::{Next, Turn},
};

/// Objects of one share.
const SHARE: i64 = 10_000;

/// Shares that all visits have: of 200,000 objects, which leave room in the 512 MiB of the chart.
const SHARES: u32 = 20;

/// Of a policy that has not been visited, nobody knows how many objects it selects.
const UNKNOWN: u32 = SHARES / 4;

/// Policies of unknown size that are visited at once. They may be larger than they are taken for, and what these two take
/// leaves half of the shares to those whose size is known.
const UNKNOWN_AT_ONCE: usize = 2;

/// When one of unknown size asks again whether it may be visited, at the soonest: one that waited would keep others
/// from being looked at.
const LATER: Duration = Duration::from_millis(500);

/// And at the latest, however many wait.
const LATEST: Duration = Duration::from_secs(30);

/// What lies between two that ask where many wait: a place is not free for long, and asking costs next to nothing.
const APART: Duration = Duration::from_millis(20);

/// The turns of visits: first come, first served, so that many small ones keep no large one waiting for ever.
///
/// One of unknown size has its place before it waits for shares, and who has shares waits for nobody: so each comes to
/// its turn, also where all are of unknown size.
pub(super) struct Turns {
    shares: Arc<Semaphore>,
    /// Places of those of unknown size.
    unknown: Arc<Semaphore>,
    /// Who was told to ask for one again.
    waiting: Mutex<Waiting>,
}

impl Default for Turns {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { shares: semaphore(SHARES as usize), unknown: semaphore(UNKNOWN_AT_ONCE), waiting: Mutex::default() }
    }
}

/// Those for whom there was no place, by their UIDs, and when each asked last.
#[derive(Debug, Default)]
struct Waiting(BTreeMap<String, Instant>);

impl Waiting {
    /// One asks in vain: when it is to ask again. Each that comes is told a later time than the one before, so that
    /// they do not ask all at once.
    fn join(&mut self, who: &str, now: Instant) -> Duration {
        // Who was deleted, or has been counted meanwhile, asks no more.
        self.0.retain(|_, asked| now.saturating_duration_since(*asked) <= LATEST * 2);
        self.0.insert(who.to_owned(), now);
        pause(self.0.len())
    }

    fn leave(&mut self, who: &str) {
        self.0.remove(who);
    }
}

/// How long one of so many waits before it asks again: together they ask no more often than once in [`APART`], until
/// they are so many that each would wait for longer than [`LATEST`].
fn pause(waiting: usize) -> Duration {
    APART.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX)).clamp(LATER, LATEST)
}

/// How many shares a visit is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// As was counted of this very spec.
    Known(u32),
    /// As may be: of this spec nothing was counted.
    Unknown(u32),
}

impl Turns {
    /// Waits for as much as the policy is expected to take. `Err` where it is to ask again later, or the process ends
    /// before.
    pub(super) async fn take(&self, policy: &RetentionPolicy, stopped: &CancellationToken) -> Result<Turn, Next> {
        let (shares, place) = match size(policy) {
            None => return Ok(Turn::default()),
            Some(Size::Known(shares)) => (shares, None),
            Some(Size::Unknown(shares)) => (shares, Some(self.place(policy)?)),
        };
        let taking = Arc::clone(&self.shares).acquire_many_owned(shares);
        match stopped.run_until_cancelled(taking).await {
            Some(Ok(share)) => Ok(Turn { _shares: place.into_iter().chain([share]).collect() }),
            Some(Err(_)) | None => Err(Next::Change),
        }
    }

    /// A place of those of unknown size, if one is free.
    fn place(&self, policy: &RetentionPolicy) -> Result<OwnedSemaphorePermit, Next> {
        let who = policy.metadata.uid.as_deref().unwrap_or_default();
        let mut waiting = self.waiting.lock();
        let place = Arc::clone(&self.unknown).try_acquire_owned();
        if place.is_ok() {
            waiting.leave(who);
        }
        place.map_err(|_| Next::After(waiting.join(who, Instant::now())))
    }
}

/// By what its last visit counted; `None` where a visit lists nothing. Who selects more than all visits may hold is visited
/// alone.
fn size(policy: &RetentionPolicy) -> Option<Size> {
    if policy.spec.suspend == Some(true) || policy.spec.mode == RetentionMode::Disabled {
        return None;
    }
    let status = policy.status.as_ref();
    let listed = status.and_then(|status| status.plan.as_ref()).map_or(0, |plan| plan.listed);
    let known = u32::try_from(listed / SHARE).unwrap_or(SHARES).saturating_add(1).min(SHARES);
    // Another spec may select more than the one that was counted, and a visit that failed or was refused counted none.
    let is_of_this = |it: &Condition| {
        it.type_ == Type::PlanReady.as_str()
            && it.status == "True"
            && it.observed_generation == policy.metadata.generation
    };
    let is_counted = status.is_some_and(|status| status.plan.is_some() && status.conditions.iter().any(is_of_this));
    Some(if is_counted { Size::Known(known) } else { Size::Unknown(known.max(UNKNOWN)) })
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

    /// What a policy gets that does not wait.
    fn at_once(turns: &Turns, policy: &RetentionPolicy) -> Option<Result<Turn, Next>> {
        turns.take(policy, &CancellationToken::new()).now_or_never()
    }

    #[rstest]
    #[case(0, 2, Size::Known(1))]
    #[case(9_999, 2, Size::Known(1))]
    #[case(100_000, 2, Size::Known(11))]
    #[case(i64::MAX, 2, Size::Known(SHARES))]
    #[case(0, 1, Size::Unknown(UNKNOWN))]
    #[case(150_000, 1, Size::Unknown(16))]
    fn a_visit_takes_by_what_was_counted(#[case] listed: i64, #[case] counted: i64, #[case] taken: Size) {
        assert_eq!(size(&policy(listed, counted)), Some(taken));
    }

    #[test]
    fn what_was_not_visited_is_of_unknown_size_and_what_does_nothing_takes_nothing() {
        let mut policy = RetentionPolicy { status: None, ..policy(0, 2) };
        assert_eq!(size(&policy), Some(Size::Unknown(UNKNOWN)));
        policy.spec.suspend = Some(true);
        assert_eq!(size(&policy), None);
        policy.spec.suspend = None;
        policy.spec.mode = RetentionMode::Disabled;
        assert_eq!(size(&policy), None);
    }

    #[test]
    fn what_was_refused_since_it_was_counted_takes_no_less() {
        let mut policy = policy(150_000, 2);
        for condition in policy.status.iter_mut().flat_map(|status| &mut status.conditions) {
            condition.status = "False".into();
        }
        assert_eq!(size(&policy), Some(Size::Unknown(16)));
    }

    #[tokio::test]
    async fn those_of_unknown_size_leave_half_to_those_that_are_known() {
        let (turns, unknown, half) = (Turns::default(), policy(0, 1), policy(99_999, 2));
        let mut begun: Vec<_> = (0..UNKNOWN_AT_ONCE).map(|_| at_once(&turns, &unknown).unwrap().unwrap()).collect();
        for _ in 0..100 {
            // It waits nowhere, and so nobody waits behind it.
            assert_eq!(at_once(&turns, &unknown).unwrap().unwrap_err(), Next::After(LATER));
        }
        assert!(at_once(&turns, &half).unwrap().is_ok());
        drop(begun.pop());
        assert!(at_once(&turns, &unknown).unwrap().is_ok());
    }

    #[rstest]
    #[case(0, 500)]
    #[case(1, 500)]
    #[case(25, 500)]
    #[case(26, 520)]
    #[case(1000, 20_000)]
    #[case(1500, 30_000)]
    #[case(usize::MAX, 30_000)]
    fn the_more_wait_the_longer_each_of_them_does(#[case] waiting: usize, #[case] millis: u64) {
        assert_eq!(pause(waiting), Duration::from_millis(millis));
    }

    #[test]
    fn who_asks_no_more_is_counted_no_more() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let pauses: Vec<Duration> = names.iter().map(|who| waiting.join(who, now)).collect();
        assert!(pauses.is_sorted() && pauses.last() == Some(&Duration::from_secs(20)), "{pauses:?}");
        let second = Duration::from_secs(1);
        assert_eq!(waiting.join("7", now + second * 20), Duration::from_secs(20), "it was counted before");
        for who in names.iter().skip(500) {
            waiting.leave(who);
        }
        assert_eq!(waiting.join("7", now + second * 40), Duration::from_secs(10));
        assert_eq!(waiting.join("7", now + second * 61), LATER, "the others were deleted");
    }

    #[tokio::test]
    async fn who_has_a_place_waits_for_none() {
        let (turns, mut unknown) = (Turns::default(), policy(0, 1));
        let begun: Vec<_> = (0..UNKNOWN_AT_ONCE).map(|_| at_once(&turns, &unknown).unwrap().unwrap()).collect();
        for n in 0..100 {
            unknown.metadata.uid = Some(n.to_string());
            assert!(at_once(&turns, &unknown).unwrap().is_err());
        }
        assert_eq!(turns.waiting.lock().0.len(), 100);
        let again = at_once(&turns, &unknown).unwrap().unwrap_err();
        assert_eq!(again, Next::After(Duration::from_secs(2)), "it is one of them already");
        drop(begun);
        assert!(at_once(&turns, &unknown).unwrap().is_ok());
        assert_eq!(turns.waiting.lock().0.len(), 99);
    }

    #[tokio::test]
    async fn where_all_are_of_unknown_size_each_comes_to_its_turn() {
        let (turns, stopped) = (Turns::default(), CancellationToken::new());
        // With another spec it selected so many that it is visited alone.
        let (large, unknown) = (policy(i64::MAX, 1), policy(0, 1));
        let first = turns.take(&unknown, &stopped).await.unwrap();
        let mut second = std::pin::pin!(turns.take(&large, &stopped));
        assert!(second.as_mut().now_or_never().is_none(), "it is to be alone");
        assert_eq!(turns.take(&large, &stopped).await.unwrap_err(), Next::After(LATER));
        drop(first);
        let second = second.await.unwrap();
        let mut third = std::pin::pin!(turns.take(&unknown, &stopped));
        assert!(third.as_mut().now_or_never().is_none(), "it came later");
        drop(second);
        assert!(third.await.is_ok());
    }

    #[tokio::test]
    async fn who_comes_when_all_is_taken_waits_for_its_turn() {
        let (turns, stopped) = (Turns::default(), CancellationToken::new());
        let (large, small) = (policy(i64::MAX, 2), policy(0, 2));
        let first = turns.take(&small, &stopped).await;
        assert!(first.is_ok());
        let mut second = std::pin::pin!(turns.take(&large, &stopped));
        assert!(second.as_mut().now_or_never().is_none(), "it is to be alone");
        let mut third = std::pin::pin!(turns.take(&small, &stopped));
        assert!(third.as_mut().now_or_never().is_none(), "it came later");
        drop(first);
        let second = second.await;
        assert!(second.is_ok() && third.as_mut().now_or_never().is_none());
        drop(second);
        assert!(third.await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_gives_up_when_the_process_ends() {
        let (turns, stopped) = (Turns::default(), CancellationToken::new());
        let large = policy(i64::MAX, 2);
        let _first = turns.take(&large, &stopped).await;
        let mut second = std::pin::pin!(turns.take(&large, &stopped));
        assert!(second.as_mut().now_or_never().is_none());
        stopped.cancel();
        assert_eq!(second.await.unwrap_err(), Next::Change);
    }
}
