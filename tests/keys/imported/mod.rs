//! Imported tokens in the rotation machine: the user supplies each version, and all else is as with keys of our own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod end;

use crate::key_world::{HOUR, World};
use jiff::SignedDuration;
use proptest::prelude::*;
use rampart::{
    api::{
        ApiKeyStatus, RecordState, VersionState,
        condition::{Conditions, Type},
    },
    keys::{ConsumerSeen, Fault, SecretSeen, Step, Workload, conditions, next_moment},
};
use serde_json::json;

fn world(more: &serde_json::Value) -> World {
    let mut spec = json!({
        "role": null, "prefix": null, "ttl": "100h", "rotation": {"interval": "24h", "overlap": "6h"},
        "source": {"imported": {"secretRef": {"name": "github", "key": "token"}}},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    World::of(&spec)
}

/// With the token `a` in use.
fn taken() -> World {
    let mut world = world(&json!({}));
    world.supply("a");
    world.told();
    world
}

/// With `b` in use, and `a` on its way out.
fn replaced() -> World {
    let mut world = taken();
    world.hours(1);
    world.supply("b");
    world.told();
    world
}

/// What status says of the world as it is.
fn told(world: &mut World) -> Conditions {
    let step = world.decided();
    conditions(Some(1), &world.parsed(), &world.seen, &world.seen.status, &step, world.now())
}

/// Why it does not rotate, and what the message has.
fn asked(world: &mut World) -> (String, String) {
    let list = told(world).carried_from(&[], world.now());
    let rotating = list.into_iter().find(|it| it.type_ == "Rotating" && it.status == "False");
    rotating.map_or_else(Default::default, |it| (it.reason, it.message))
}

fn refuse(world: &mut World, fault: Fault) {
    world.seen.supplied = Some(Err(world.parsed().imported.unwrap().problem(fault)));
}

fn consumers(world: &World) -> (Option<String>, Option<String>) {
    match &world.seen.consumer {
        ConsumerSeen::Ours { current, previous, .. } => (current.clone(), previous.clone()),
        other => panic!("{other:?}"),
    }
}

#[allow(clippy::unnecessary_wraps, reason = "as the consumer Secret tells it")]
fn digest(token: &str) -> Option<String> {
    Some(format!("digest-{token}"))
}

#[test]
fn a_token_is_taken_handed_out_and_no_verifier_is_told() {
    let mut world = world(&json!({}));
    world.add_verifier();
    refuse(&mut world, Fault::NoSecret);
    assert_eq!(world.told(), ["Rest"], "nothing is made");
    let conditions = told(&mut world);
    assert!(conditions.is(Type::Accepted) && conditions.is(Type::Stalled) && !conditions.is(Type::Ready));
    let (reason, message) = asked(&mut world);
    assert!(
        reason == "SecretNotFound" && message.contains("create it, with the token in its entry token"),
        "{message}"
    );

    world.supply("a");
    assert_eq!(world.told(), ["Remember", "CreateSecret", "WriteConsumer", "Remember", "Rest"]);
    assert!(world.seen.records.is_empty());
    assert_eq!(consumers(&world), (digest("a"), None));
    assert!(told(&mut world).is(Type::Ready));
    assert_eq!(asked(&mut world), Default::default());
    assert_eq!(world.due(), Some(SignedDuration::from_hours(24)), "to the second: a person acts on it");
}

#[test]
fn a_successor_is_taken_when_it_is_supplied_and_the_old_token_ends_as_any_key() {
    let mut world = taken();
    world.workload = Some(Workload { opted_in: true, version: None, restarted_at: None, waits_for: None });
    world.told();
    world.hours(1);
    assert_eq!(world.told(), ["Rest"]);
    world.supply("b");
    assert_eq!(world.told(), ["Remember", "CreateSecret", "WriteConsumer", "Remember", "Restart", "Rest"]);
    assert_eq!((world.current(), world.versions(VersionState::Deprecated)), (2, vec![1]));
    assert_eq!(consumers(&world), (digest("b"), digest("a")));
    let old = &world.seen.status.versions[0];
    assert_eq!((old.replaced_by.as_deref(), old.destroy_at.is_some()), (Some("id-b"), true));
    assert_eq!(world.workload.as_ref().unwrap().version.as_deref(), Some("2-id-b"));
    world.hours(6);
    assert_eq!(world.told(), ["EndRecord", "WriteConsumer", "DeleteSecret", "Remember", "Rest"]);
    assert_eq!(consumers(&world), (digest("b"), None));
    assert_eq!(world.seen.records["id-a"].standing.state, RecordState::Destroyed, "so it is known for ever");
}

#[test]
fn nothing_but_a_new_token_begins_a_version() {
    let mut world = taken();
    let before = world.seen.clone();
    world.hours(30).request();
    let _ = world.told();
    assert_eq!((world.current(), &world.seen.secrets), (1, &before.secrets), "neither time nor a request");
    for fault in [Fault::NoSecret, Fault::NotOptedIn, Fault::NoEntry, Fault::Weak, Fault::Revoked, Fault::Ended] {
        refuse(&mut world, fault);
        assert_eq!(world.told(), ["Rest"], "{fault:?}");
        assert!(told(&mut world).is(Type::Ready), "what is in use stays: {fault:?}");
        assert!(!told(&mut world).is(Type::Stalled), "{fault:?}");
        assert_ne!(asked(&mut world).0, "", "{fault:?}");
    }
    world.supply("a");
    assert_eq!(world.told(), ["Rest"], "the same again");
}

#[test]
fn an_old_token_put_back_is_refused_while_it_lives_and_when_it_has_ended() {
    let mut world = replaced();
    world.supply("a");
    assert_eq!(world.told(), ["Rest"]);
    let (reason, message) = asked(&mut world);
    assert!(reason == "TokenEnded" && message.contains("version 1"), "{message}");
    world.hours(7);
    world.told();
    world.supply("a");
    assert_eq!(world.told(), ["Rest"]);
    assert_eq!((world.current(), asked(&mut world).0.as_str()), (2, "TokenEnded"));
}

#[test]
fn the_successor_is_asked_for_when_it_is_due() {
    let mut world = taken();
    assert_eq!(
        next_moment(&world.parsed(), &world.seen, world.now()),
        Some(world.now() + SignedDuration::from_hours(24))
    );
    world.hours(24);
    assert_eq!(world.told(), ["Rest"]);
    let (reason, message) = asked(&mut world);
    assert!(reason == "RotationDue" && message.contains("entry token of Secret github"), "{message}");
    world.supply("b");
    world.told();
    assert_eq!(asked(&mut world).0, "");
    // Where no schedule is kept, a request asks.
    world.spec["rotation"] = json!({"policy": "Manual", "overlap": "6h"});
    world.hours(40);
    world.told();
    assert_eq!(asked(&mut world).0, "");
    world.request();
    world.told();
    assert_eq!(asked(&mut world).0, "RotationDue");
    world.hours(1);
    world.supply("c");
    world.told();
    assert_eq!((world.current(), asked(&mut world).0.as_str()), (3, ""), "and is answered by what is supplied");
}

#[test]
fn a_token_that_nobody_replaced_ends_with_its_ttl_and_is_warned_of() {
    let mut world = taken();
    world.hours(80);
    world.told();
    assert!(told(&mut world).is(Type::Expiring), "although its rotation was due before: nobody replaces it");
    world.hours(20);
    assert_eq!(world.told(), ["EndRecord", "WriteConsumer", "DeleteSecret", "Remember", "Rest"]);
    assert_eq!(consumers(&world), (None, None));
    world.supply("a");
    assert_eq!(world.told(), ["Rest"], "its time is over, whoever supplies it again");
    let conditions = told(&mut world);
    assert!(conditions.is(Type::Stalled) && !conditions.is(Type::Ready));
    assert_eq!(asked(&mut world).0, "TokenEnded");
    world.supply("b");
    world.told();
    assert_eq!((world.current(), consumers(&world)), (2, (digest("b"), None)));
}

#[test]
fn a_token_that_fails_its_test_gives_way_to_the_next_one() {
    let mut world = taken();
    world.spec["hooks"] = json!({"test": {"cronJobName": "hook"}});
    world.test_fails = true;
    world.hours(1);
    world.supply("bad");
    let _ = world.told();
    assert_eq!((world.current(), world.seen.status.failed_attempts), (1, Some(1)));
    assert_eq!(consumers(&world), (digest("a"), None));
    world.test_fails = false;
    world.supply("good");
    let steps = world.told();
    assert_eq!(steps, ["Remember", "DeleteSecret", "CreateSecret", "StartJob", "WriteConsumer", "Remember", "Rest"]);
    assert_eq!((world.current(), world.seen.secrets.keys().copied().collect::<Vec<_>>()), (3, vec![1, 3]));
    assert_eq!(world.seen.status.failed_attempts, None);
}

#[test]
fn a_successor_that_is_taken_back_before_it_was_handed_out() {
    let mut world = taken();
    world.spec["hooks"] = json!({"test": {"cronJobName": "hook"}});
    world.test_fails = true;
    world.hours(1);
    world.supply("b");
    world.told();
    world.supply("a");
    assert_eq!(world.told(), ["Remember", "DeleteSecret", "Rest"]);
    assert_eq!((world.current(), world.seen.status.next_version, consumers(&world)), (1, None, (digest("a"), None)));
}

#[test]
fn a_revoked_token_leaves_a_tombstone_and_its_copies_go() {
    let mut world = replaced();
    world.spec["revocation"] = json!({"reason": "Leaked"});
    world.told();
    assert!(world.seen.secrets.is_empty());
    assert_eq!(consumers(&world), (None, None));
    for id in ["id-a", "id-b"] {
        assert_eq!(world.seen.records[id].standing.state, RecordState::Revoked, "{id}");
    }
    // Made anew, with the same token.
    world.spec.as_object_mut().unwrap().remove("revocation");
    world.seen.status = ApiKeyStatus::default();
    refuse(&mut world, Fault::Revoked);
    assert_eq!(world.told(), ["Rest"]);
    assert_eq!(asked(&mut world).0, "TokenRevoked");
    // And the copies put back.
    let copies = world.graveyard.clone();
    world.seen.secrets.extend(copies);
    world.told();
    assert!(world.seen.secrets.is_empty() && world.versions(VersionState::Current).is_empty());
}

#[test]
fn a_lost_copy_is_made_again_from_the_same_token() {
    let mut world = taken();
    world.seen.secrets.clear();
    assert_eq!(world.told(), ["CreateSecret", "Rest"]);
    assert_eq!((world.current(), world.seen.secrets.len()), (1, 1));
    world.seen.secrets.clear();
    refuse(&mut world, Fault::NoSecret);
    assert_eq!(world.told(), ["Rest"], "nothing to copy");
}

#[test]
fn an_older_copy_under_the_name_of_a_lost_one_gives_way() {
    let mut world = taken();
    let older = SecretSeen { id: "id-older".into(), digest: "digest-older".into(), ..world.seen.secrets[&1].clone() };
    world.seen.secrets.insert(1, older.clone());
    assert_eq!(world.told(), ["DeleteSecret", "CreateSecret", "Rest"]);
    assert_eq!(Some(world.seen.secrets[&1].digest.clone()), digest("a"));
    // One that is somebody's own is not touched, and told of.
    world.seen.secrets.insert(1, SecretSeen { proven: false, ..older });
    assert!(matches!(world.decided(), Step::Refuse(_)));
}

#[test]
fn a_restore_without_status_takes_what_is_in_use_for_what_it_is() {
    let mut world = replaced();
    let before = world.seen.clone();
    world.seen.status = ApiKeyStatus::default();
    assert_eq!(world.told(), ["Remember", "Rest"]);
    assert_eq!(world.seen.secrets, before.secrets);
    let states = |status: &ApiKeyStatus| status.versions.iter().map(|it| (it.n, it.state)).collect::<Vec<_>>();
    assert_eq!(states(&world.seen.status), states(&before.status));
}

#[test]
fn two_copies_of_one_token_are_one_version() {
    let mut world = taken();
    let copy = world.seen.secrets[&1].clone();
    world.seen.secrets.insert(3, copy);
    world.seen.status = ApiKeyStatus::default();
    assert_eq!(world.told(), ["Remember", "DeleteSecret", "Rest"]);
    assert_eq!((world.versions(VersionState::Current), world.seen.secrets.len()), (vec![3], 1));
}

#[test]
fn a_foreign_secret_for_consumers_is_refused_and_nothing_is_deleted_meanwhile() {
    let mut world = replaced();
    world.seen.consumer = ConsumerSeen::Foreign(None);
    world.seen.status = ApiKeyStatus::default();
    assert!(matches!(world.decided(), Step::Refuse(_)));
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Supply(usize),
    /// And says in how many hours it ends.
    SupplyUntil(usize, i64),
    Refuse,
    Hours(i64),
    Request,
    LoseStatus,
    LoseSecrets,
    LoseConsumer,
    PutBack(usize),
    Steps(usize),
    TestsFail(bool),
    Hooks(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => (0_usize..6).prop_map(Event::Supply),
        3 => (0_usize..6, -2_i64..40).prop_map(|(token, hours)| Event::SupplyUntil(token, hours)),
        1 => Just(Event::Refuse),
        4 => (0_i64..40).prop_map(Event::Hours),
        1 => Just(Event::Request),
        1 => Just(Event::LoseStatus),
        1 => Just(Event::LoseSecrets),
        1 => Just(Event::LoseConsumer),
        1 => (0_usize..6).prop_map(Event::PutBack),
        3 => (1_usize..5).prop_map(Event::Steps),
        1 => any::<bool>().prop_map(Event::TestsFail),
        1 => any::<bool>().prop_map(Event::Hooks),
    ]
}

fn happens(world: &mut World, event: Event) {
    match event {
        Event::Supply(token) => world.supply(&token.to_string()),
        Event::SupplyUntil(token, hours) => world.supply_until(&token.to_string(), Some(hours * HOUR)),
        Event::Refuse => refuse(world, Fault::Weak),
        Event::Hours(hours) => drop(world.hours(hours)),
        Event::Request => world.request(),
        Event::LoseStatus => {
            world.settle(60);
            world.status_lost = true;
            world.seen.status = ApiKeyStatus::default();
        }
        Event::LoseSecrets => world.lose_secrets(),
        Event::LoseConsumer => world.seen.consumer = ConsumerSeen::Absent,
        Event::PutBack(which) => world.put_back(which),
        Event::Steps(steps) => {
            let _ = (0..steps).map(|_| world.step()).collect::<Vec<_>>();
        }
        Event::TestsFail(fails) => world.test_fails = fails,
        Event::Hooks(true) => {
            let hook = json!({"cronJobName": "hook"});
            world.spec["hooks"] = json!({"preRotate": hook, "test": hook, "postPromote": hook});
        }
        Event::Hooks(false) => world.spec["hooks"] = json!({}),
    }
}

#[test]
fn consumers_are_not_given_what_is_half_ended_where_another_ends_too() {
    let mut world = world(&json!({}));
    let events = [Event::Supply(0), Event::Steps(4), Event::SupplyUntil(1, 1), Event::Steps(4), Event::Hours(1)];
    for event in events {
        happens(&mut world, event);
    }
    // The record of the second has ended, and nothing else of it; then the overlap of the first is over.
    happens(&mut world, Event::Steps(1));
    happens(&mut world, Event::Hours(5));
    assert!(world.settle(60), "no rest after {:#?}", world.steps);
    assert_eq!(consumers(&world), (None, None), "{:#?}", world.steps);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is supplied, lost and put back: it comes to rest, no verifier is told, no token that has ended comes
    /// back (the world asserts it), and a good new one is in use a while later.
    #[test]
    fn it_always_comes_to_rest(events in prop::collection::vec(event(), 1..30)) {
        let mut world = world(&json!({}));
        for event in events {
            happens(&mut world, event);
        }
        prop_assert!(world.settle(60), "no rest after {:#?}", world.steps);
        for event in [Event::TestsFail(false), Event::Hooks(false), Event::Hours(40)] {
            happens(&mut world, event);
            prop_assert!(world.settle(60), "no rest after {:#?}", world.steps);
        }
        world.supply("fresh");
        prop_assert!(world.settle(60), "no rest after {:#?}", world.steps);
        prop_assert_eq!(consumers(&world).0, digest("fresh"), "{:#?}", world.steps);
        prop_assert!(world.seen.records.values().all(|it| it.standing.state.is_tombstone()));
        prop_assert!(!world.step(), "at rest nothing is written");
    }
}
