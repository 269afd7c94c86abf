//! A clock that is not trusted: what comes by the time alone waits, and what somebody asks for does not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use crate::key_world::{World, issued, rotated};
use jiff::SignedDuration;
use rampart::{
    api::{VersionState, condition::Type},
    keys::{Step, conditions, is_of_time, next_moment},
};
use serde_json::json;

/// The operator's clock is set ahead, and found out.
fn jump(world: &mut World, hours: i64) {
    world.decided();
    world.hours(hours);
    assert!(is_of_time(&world.parsed(), &world.seen, world.now()), "nobody would ask");
    world.seen.clock_suspect = Some(format!("some {hours}h ahead of the API server's"));
}

#[test]
fn nothing_is_asked_while_nothing_comes_by_the_time() {
    let mut world = issued();
    world.decided();
    let early = world.now() + SignedDuration::from_hours(20);
    assert!(!is_of_time(&world.parsed(), &world.seen, early));
    world.hours(1).request();
    world.decided();
    assert!(!is_of_time(&world.parsed(), &world.seen, world.now()), "somebody asked for it");
}

#[test]
fn a_rotation_by_time_waits_and_one_that_is_asked_for_does_not() {
    let mut world = issued();
    jump(&mut world, 24);
    assert_eq!(world.told(), ["Rest"]);
    world.request();
    let rotation =
        ["Remember", "CreateSecret", "CreateRecord", "StartJob", "WriteConsumer", "Remember", "UpdateRecord", "Rest"];
    assert_eq!(world.told(), rotation);
    world.seen.clock_suspect = None;
    assert_eq!(world.told(), ["Rest"], "it is done");
}

#[test]
fn no_version_ends_by_it_and_what_has_begun_to_end_does() {
    let mut world = rotated();
    jump(&mut world, 90);
    assert_eq!(world.told(), ["Rest"]);
    world.hours(90);
    assert_eq!(world.told(), ["Rest"], "nor does the one in use, a year from now");
    assert!(world.seen.records.values().all(|record| !record.standing.state.is_tombstone()));
    let step = world.decided();
    let told = conditions(None, &world.parsed(), &world.seen, &world.seen.status, &step, world.now());
    assert!(told.is(Type::ClockSuspect) && told.is(Type::Ready) && !told.is(Type::Stalled));
    let told = told.carried_from(&[], world.now());
    let message = told.iter().find(|it| it.type_ == "ClockSuspect").unwrap().message.clone();
    assert!(
        message.starts_with("the operator's clock is some 90h ahead of the API server's: nothing ends"),
        "{message}"
    );

    let mut world = rotated();
    world.hours(6);
    assert!(matches!(world.decided(), Step::EndRecord { .. }));
    assert!(world.step());
    world.seen.clock_suspect = Some("some 6h ahead of the API server's".into());
    assert_eq!(world.told(), ["WriteConsumer", "DeleteSecret", "Remember", "Rest"]);
}

#[test]
fn neither_a_hard_expiry_nor_a_version_on_its_way_ends_by_it() {
    let mut world = World { verifiers_follow: false, ..issued() };
    world.add_verifier();
    world.hours(1).request();
    // It waits for a verifier.
    assert_eq!(world.told().last().unwrap(), "AwaitVerifiers");
    jump(&mut world, 101);
    assert_eq!(world.told(), ["Rest"], "it is neither ended nor handed out");
    world.hours(-101);
    world.seen.clock_suspect = None;
    world.verifiers_follow = true;
    assert!(world.settle(60));
    assert_eq!(world.current(), 2);

    let end = world.now() + SignedDuration::from_hours(50);
    world.spec["hardExpiry"] = json!(end.to_string());
    assert!(world.settle(60));
    jump(&mut world, 51);
    assert!(world.settle(60));
    assert_eq!((world.versions(VersionState::Current), world.versions(VersionState::Destroyed)), (vec![2], vec![]));
    assert_eq!(next_moment(&world.parsed(), &world.seen, world.now()), None, "nobody knows when it is right again");
}

#[test]
fn a_revocation_does_not_depend_on_it() {
    let mut world = rotated();
    world.hours(90);
    world.spec["revocation"] = json!({"reason": "Leaked"});
    world.decided();
    assert!(!is_of_time(&world.parsed(), &world.seen, world.now()));
    world.seen.clock_suspect = Some("some 90h ahead of the API server's".into());
    let wanted = ["EndRecord", "EndRecord", "WriteConsumer", "DeleteSecret", "DeleteSecret", "Remember", "Rest"];
    assert_eq!(world.told(), wanted);
}
