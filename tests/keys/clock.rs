//! A clock that is not trusted: what comes by the time alone waits, and what somebody asks for does not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::key_world::{HOUR, World, issued, rotated};
use jiff::SignedDuration;
use rampart::{
    api::{VersionState, condition::Type},
    keys::{Step, conditions, is_of_clock, is_of_time, next_moment},
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
    assert!(!is_of_clock(&world.parsed(), &world.seen, world.now()), "nor is anybody asked");
    world.seen.clock_suspect = Some("some 90h ahead of the API server's".into());
    let wanted = ["EndRecord", "EndRecord", "WriteConsumer", "DeleteSecret", "DeleteSecret", "Remember", "Rest"];
    assert_eq!(world.told(), wanted);
}

/// A clock that is right, a day ahead, and an hour behind.
const OFF: [i64; 3] = [0, 24, -1];

/// The operator's clock is off by so many hours, and that is known.
fn set_off(world: &mut World, hours: i64) {
    world.hours(hours);
    world.seen.skew = SignedDuration::from_hours(hours);
    world.seen.clock_suspect = (hours != 0).then(|| format!("{hours}h off"));
}

/// It is right again.
fn set_right(world: &mut World) {
    world.now -= world.seen.skew.as_secs();
    world.seen.skew = SignedDuration::ZERO;
    world.seen.clock_suspect = None;
}

#[test]
fn an_overlap_is_counted_by_the_api_servers_clock() {
    for hours in OFF {
        let mut world = issued();
        let end = world.hours(2).now() + SignedDuration::from_hours(6);
        set_off(&mut world, hours);
        world.request();
        world.told();
        assert_eq!((world.current(), world.versions(VersionState::Deprecated)), (2, vec![1]), "{hours}h");
        let old = &world.seen.status.versions[0];
        assert_eq!(old.destroy_at.as_ref().map(|at| at.0), Some(end), "{hours}h");
        assert_eq!(world.seen.records["id1"].standing.destroy_at, Some(end), "{hours}h: what verifiers are told");
        set_right(&mut world);
        world.now += 6 * HOUR - 1;
        assert_eq!(world.told(), ["Rest"], "{hours}h: too early");
        world.now += 1;
        assert_eq!(world.told(), ["EndRecord", "WriteConsumer", "DeleteSecret", "Remember", "Rest"], "{hours}h");
    }
}

#[test]
fn no_overlap_outlasts_its_key() {
    for hours in OFF {
        let mut world = issued();
        world.hours(97);
        set_off(&mut world, hours);
        world.request();
        world.told();
        assert_eq!(world.current(), 2, "{hours}h");
        let old = &world.seen.status.versions[0];
        assert_eq!(old.destroy_at.as_ref(), Some(&old.expires_at), "{hours}h");
    }
}

#[test]
fn the_end_of_a_key_that_only_its_record_tells_of_is_counted_so_too() {
    for hours in OFF {
        let mut world = issued();
        let end = world.hours(2).now() + SignedDuration::from_hours(6);
        let stray = world.seen.records["id1"].clone();
        world.seen.records.insert("stray".into(), stray);
        set_off(&mut world, hours);
        world.decided();
        assert!(is_of_clock(&world.parsed(), &world.seen, world.now()), "{hours}h: nobody would ask");
        assert_eq!(world.told(), ["UpdateRecord", "Rest"], "{hours}h");
        assert_eq!(world.seen.records["stray"].standing.destroy_at, Some(end), "{hours}h");
    }
}

/// The steps, until it rests, before which the API server is asked for the time.
fn asked(world: &mut World) -> Vec<Step> {
    let mut asked = vec![];
    loop {
        let step = world.decided();
        assert!(!is_of_time(&world.parsed(), &world.seen, world.now()), "it comes by the time alone: {step:?}");
        if is_of_clock(&world.parsed(), &world.seen, world.now()) {
            asked.push(step);
        }
        if !world.step() {
            return asked;
        }
    }
}

#[test]
fn the_time_is_asked_for_where_an_end_is_counted_and_at_no_other_step() {
    let mut world = World::default();
    let first = asked(&mut world);
    assert!(first.is_empty() && world.current() == 1, "the first version replaces none: {first:?}");
    for (nth, known) in [(2, None), (3, Some("some 24h ahead of the API server's"))] {
        // However far off it was found, it may have been set since.
        world.seen.clock_suspect = known.map(str::to_owned);
        world.hours(1).request();
        let steps = asked(&mut world);
        assert_eq!((steps.len(), world.current()), (1, nth), "{steps:?}");
        assert!(matches!(&steps[0], Step::Remember(status) if status.current_version == Some(nth)), "{steps:?}");
    }
}
