//! Hooks and tests of a rotation: one Job a step, and what a failed one leads to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::key_world::{World, id_of, issued, rotated};
use jiff::SignedDuration;
use rampart::{
    api::VersionState,
    keys::{ConsumerSeen, HookProblem, JobSeen, JobStep, conditions, next_moment},
};
use serde_json::json;

#[test]
fn two_jobs_for_one_step() {
    let mut world =
        World::of(&json!({"hooks": {"preRotate": {"cronJobName": "h"}, "postPromote": {"cronJobName": "h"}},
                                      "rotation": {"interval": "24h", "overlap": "6h"}}));
    world.jobs_hang = true;
    // Whoever looks again finds the Job: the model refuses a second one of a name.
    for _ in 0..3 {
        assert_eq!(world.told().last().unwrap(), "AwaitJob");
    }
    assert_eq!(world.started.len(), 1);
    for done in ["k-v1-pre", "k-v1-id1-test", "k-v1-id1-post"] {
        *world.jobs.get_mut(done).unwrap() = JobSeen::Succeeded;
        world.told();
    }
    let steps: Vec<JobStep> = world.started.iter().map(|job| job.step).collect();
    assert_eq!(steps, [JobStep::PreRotate, JobStep::Test, JobStep::PostPromote]);
    assert_eq!(world.seen.status.next_version, None);
}

#[test]
fn a_failing_hook_after_the_promotion_keeps_nothing_from_the_next_rotation() {
    let mut world = issued();
    world.spec["hooks"] = json!({"postPromote": {"cronJobName": "h"}});
    world.hooks_fail = true;
    world.hours(1).request();
    world.told();
    assert_eq!(
        (world.current(), world.seen.status.next_version, world.seen.status.failed_attempts),
        (2, Some(2), Some(1))
    );
    world.hours(1).request();
    world.told();
    assert_eq!((world.current(), world.seen.status.next_version), (3, Some(3)));
}

#[test]
fn a_failing_hook_after_the_promotion_hides_no_rotation() {
    let mut world = World::of(&json!({"hooks": {"postPromote": {"cronJobName": "h"}}, "ttl": "30h",
                                      "rotation": {"interval": "24h", "overlap": "6h"}}));
    world.hooks_fail = true;
    world.told();
    for n in 1..4 {
        assert_eq!((world.current(), world.seen.status.next_version), (n, Some(n)), "its hook fails");
        let due = world.seen.status.next_rotation_time.clone().map(|at| at.0);
        while world.current() == n {
            // Nobody looks in between.
            let next = next_moment(&world.parsed(), &world.seen, world.now()).unwrap();
            world.now += next.duration_since(world.now()).as_secs();
            world.told();
        }
        assert_eq!(due, Some(world.now()));
    }
}

#[test]
fn a_failing_hook_before_the_end_puts_it_off_to_the_expiry() {
    let mut world = rotated();
    world.spec["hooks"] = json!({"destroy": {"cronJobName": "h"}});
    world.hooks_fail = true;
    world.hours(6);
    world.told();
    assert_eq!(world.versions(VersionState::Deprecated), [1]);
    assert_eq!(world.seen.records[&id_of(&world, 1)].standing.destroy_at, None, "verifiers admit it until it is gone");
    for _ in 0..12 {
        world.hours(8);
        world.told();
    }
    assert!(!world.versions(VersionState::Deprecated).contains(&1), "an expiry waits for nobody");
    let tries = world.started.iter().filter(|job| job.step == JobStep::Destroy && job.n == 1).count();
    assert!((3..12).contains(&tries), "{tries}");
}

#[test]
fn a_hook_that_fails_says_which_and_until_when() {
    let told = |world: &mut World| {
        let step = world.decided();
        let (spec, now) = (world.parsed(), world.now());
        let told = conditions(None, &spec, &world.seen, &world.seen.status, &step, now).carried_from(&[], now);
        let rotating = told.into_iter().find(|it| it.type_ == "Rotating").unwrap();
        (rotating.status, rotating.reason, rotating.message)
    };
    let mut world = issued();
    world.spec["hooks"] = json!({"preRotate": {"cronJobName": "h"}});
    world.hooks_fail = true;
    world.hours(1).request();
    world.told();
    let at = world.now().checked_add(SignedDuration::from_hours(1)).unwrap();
    let message = format!("the hook before version 2 failed (Job k-v2-pre), and is repeated at {at}");
    assert_eq!(told(&mut world), ("False".into(), "HookFailed".into(), message));
    assert!(!world.seen.secrets.contains_key(&2), "half a version");

    // Mended, and its time has come; then the test fails, and counts on.
    (world.hooks_fail, world.test_fails) = (false, true);
    world.hours(1);
    world.told();
    let at = world.now().checked_add(SignedDuration::from_hours(2)).unwrap();
    let message = format!("the test of version 2 failed (Job k-v2-id2-test-1), and is repeated at {at}");
    assert_eq!(told(&mut world), ("False".into(), "TestFailed".into(), message));

    world.test_fails = false;
    world.spec["hooks"] = json!({"postPromote": {"cronJobName": "h"}});
    world.hooks_fail = true;
    world.hours(2);
    world.told();
    let at = world.now().checked_add(SignedDuration::from_hours(1)).unwrap();
    let message =
        format!("the hook after the promotion of version 2 failed (Job k-v2-id2-post), and is repeated at {at}");
    assert_eq!(told(&mut world), ("False".into(), "HookFailed".into(), message));
    assert_eq!(world.current(), 2);
    // While it runs again, nothing has failed.
    world.jobs_hang = true;
    world.hours(1);
    world.told();
    assert_eq!((told(&mut world).0, told(&mut world).1), ("True".into(), "PostPromoteHook".into()));
}

#[test]
fn a_hook_that_is_gone_does_not_hide_that_the_key_ends() {
    let told = |world: &mut World| {
        let step = world.decided();
        let (spec, now) = (world.parsed(), world.now());
        let list = conditions(None, &spec, &world.seen, &world.seen.status, &step, now).carried_from(&[], now);
        ["Rotating", "Reconciling", "Stalled", "Expiring", "Ready"].map(|kind| {
            let it = list.iter().find(|it| it.type_ == kind);
            it.map_or_else(String::new, |it| format!("{} {}", it.status, it.reason))
        })
    };
    let gone = |name: &str| (name.to_owned(), JobSeen::Impossible(HookProblem::NotFound("h".into())));
    let stuck = "False HookNotFound";

    let mut world = issued();
    world.spec["hooks"] = json!({"preRotate": {"cronJobName": "h"}});
    world.jobs.extend([gone("k-v2-pre")]);
    world.hours(24);
    assert_eq!(world.told(), ["Remember", "Stuck"]);
    assert_eq!(told(&mut world), [stuck, "", "", "", "True Ready"]);
    // It lives for 100 hours.
    world.hours(53);
    assert_eq!(told(&mut world), [stuck, "", "", "True Within1Day", "True Ready"]);
    world.jobs.clear();
    world.told();
    assert_eq!(told(&mut world)[0], "", "the hook is there again");

    let mut first = World::default();
    first.spec["hooks"] = json!({"preRotate": {"cronJobName": "h"}});
    first.jobs.extend([gone("k-v1-pre")]);
    first.told();
    assert_eq!(told(&mut first), [stuck, "", "True HookNotFound", "", stuck]);
}

#[test]
fn consumers_keep_the_previous_key_while_the_hook_before_its_end_runs() {
    let mut world = rotated();
    world.spec["hooks"] = json!({"destroy": {"cronJobName": "h"}});
    world.told();
    let before = world.seen.consumer.clone();
    world.jobs_hang = true;
    world.hours(6);
    assert_eq!(world.told(), ["StartJob", "AwaitJob"]);
    assert_eq!(world.seen.consumer, before);
    world.jobs.values_mut().for_each(|job| *job = JobSeen::Succeeded);
    world.jobs_hang = false;
    world.told();
    assert!(matches!(&world.seen.consumer, ConsumerSeen::Ours { previous: None, .. }));
    assert_eq!(world.versions(VersionState::Deprecated), Vec::<i64>::new());
}

#[test]
fn a_request_by_a_clock_that_is_ahead_is_not_forgotten() {
    // Nothing else brings another look: the only version has ended, or a failed test waits for its pause to pass.
    let mut ended = World::of(&json!({"rotation": {"policy": "Manual", "overlap": "6h"}}));
    ended.told();
    ended.hours(100).told();
    let mut failed = issued();
    failed.test_fails = true;
    failed.hours(1).request();
    failed.told();
    failed.test_fails = false;
    for mut world in [ended, failed] {
        world.now += 2;
        world.request();
        world.now -= 2;
        let asked = world.now().checked_add(SignedDuration::from_secs(2)).unwrap();
        world.told();
        assert_eq!(next_moment(&world.parsed(), &world.seen, world.now()), Some(asked));
        world.now += 2;
        world.told();
        assert_eq!(world.current(), 2);
    }
}
