//! The rotation machine against a model of the cluster: whatever order of time, requests and losses it
//! meets, it comes to rest, never has two current keys, never lets a consumer have a key that live
//! verifiers don't have, and never lets a dead key come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::key_world::{World, issued, rotated};
use jiff::SignedDuration;
use proptest::prelude::*;
use rampart::{
    api::{RecordState, VersionState},
    keys::{ConsumerSeen, Workload, is_of_verifiers},
};
use serde_json::json;

#[derive(Debug, Clone, Copy)]
enum Event {
    Hours(i64),
    Request,
    LoseStatus,
    LoseRecords,
    LoseConsumer,
    LoseSecrets,
    JunkConsumer,
    /// Somebody puts back a Secret that was deleted.
    PutBack(usize),
    /// The operator is killed after so many steps.
    Steps(usize),
    TestsFail(bool),
    HooksFail(bool),
    Hooks(bool),
    Suspend(bool),
    /// The clock is found to be wrong, or right again.
    Distrust(bool),
    Demote(bool),
    Revoke,
    VerifierComes,
    VerifierGoes,
    VerifiersLag(bool),
    RolloutsHang(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_i64..40).prop_map(Event::Hours),
        1 => Just(Event::Hours(-1)),
        2 => Just(Event::Request),
        1 => Just(Event::LoseStatus),
        1 => Just(Event::LoseRecords),
        1 => Just(Event::LoseConsumer),
        1 => Just(Event::LoseSecrets),
        1 => Just(Event::JunkConsumer),
        1 => (0_usize..9).prop_map(Event::PutBack),
        3 => (1_usize..6).prop_map(Event::Steps),
        1 => any::<bool>().prop_map(Event::TestsFail),
        1 => any::<bool>().prop_map(Event::HooksFail),
        1 => any::<bool>().prop_map(Event::Hooks),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => any::<bool>().prop_map(Event::Distrust),
        1 => any::<bool>().prop_map(Event::Demote),
        1 => Just(Event::VerifierComes),
        1 => Just(Event::VerifierGoes),
        1 => any::<bool>().prop_map(Event::VerifiersLag),
        1 => any::<bool>().prop_map(Event::RolloutsHang),
    ]
}

fn happens(world: &mut World, event: Event) {
    match event {
        Event::Hours(hours) => drop(world.hours(hours)),
        Event::Request => world.request(),
        // What a restore does: statuses are gone, and nothing is under way.
        Event::LoseStatus => {
            assert!(world.settle(60));
            world.status_lost = true;
            world.seen.status = rampart::api::ApiKeyStatus::default();
        }
        Event::LoseRecords => world.seen.records.retain(|_, record| record.standing.state.is_tombstone()),
        Event::LoseSecrets => world.lose_secrets(),
        Event::LoseConsumer => world.seen.consumer = ConsumerSeen::Absent,
        Event::JunkConsumer => {
            let junk = Some(String::new());
            world.seen.consumer = ConsumerSeen::Ours { current: junk.clone(), previous: junk, id: None };
        }
        Event::PutBack(which) => world.put_back(which),
        Event::Steps(steps) => {
            let _ = (0..steps).map(|_| world.step()).collect::<Vec<_>>();
        }
        Event::TestsFail(fails) => world.test_fails = fails,
        Event::HooksFail(fails) => world.hooks_fail = fails,
        Event::Hooks(true) => {
            let hook = json!({"cronJobName": "hook"});
            world.spec["hooks"] = json!({"preRotate": hook, "test": hook, "postPromote": hook, "destroy": hook});
        }
        Event::Hooks(false) => world.spec["hooks"] = json!({}),
        Event::Suspend(suspended) => world.spec["suspended"] = suspended.into(),
        Event::Distrust(wrong) => {
            world.seen.clock_suspect = wrong.then(|| "some 30h ahead".to_owned());
            world.seen.skew = SignedDuration::from_hours(if wrong { 30 } else { 0 });
        }
        Event::Demote(demoted) => world.spec["role"] = if demoted { "Viewer" } else { "Editor" }.into(),
        Event::Revoke => world.spec["revocation"] = json!({"reason": "Leaked"}),
        Event::VerifierComes => world.add_verifier(),
        Event::VerifierGoes => drop(world.verifiers.pop()),
        Event::VerifiersLag(lag) => world.verifiers_follow = !lag,
        Event::RolloutsHang(hang) => {
            world.rollouts_hang = hang;
            if let Some(workload) = world.workload.as_mut().filter(|_| !hang) {
                workload.waits_for = None;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn it_always_comes_to_rest(events in prop::collection::vec(event(), 1..30), revoked in any::<bool>()) {
        let opted_in = Workload { opted_in: true, version: None, restarted_at: None, waits_for: None };
        let mut world = World { workload: Some(opted_in), ..World::default() };
        for event in events {
            happens(&mut world, event);
        }
        prop_assert!(world.settle(60), "no rest after {:#?}", world.steps);
        prop_assert!(!world.step(), "at rest nothing is written");
        if revoked {
            happens(&mut world, Event::Revoke);
            prop_assert!(world.settle(60), "no rest after {:#?}", world.steps);
            for event in [Event::PutBack(0), Event::Request, Event::Hours(50), Event::LoseStatus] {
                happens(&mut world, event);
                prop_assert!(world.settle(60), "no rest after {:#?}", world.steps);
                prop_assert!(world.seen.records.values().all(|record| record.standing.state.is_tombstone()));
                prop_assert!(world.seen.secrets.is_empty());
                let empty = ConsumerSeen::Ours { current: None, previous: None, id: None };
                prop_assert!([empty, ConsumerSeen::Absent].contains(&world.seen.consumer));
                prop_assert_eq!(world.seen.status.next_version, None);
            }
            return Ok(());
        }
        // And when all works again, a while later there is a current key that consumers have.
        for event in [
            Event::TestsFail(false),
            Event::HooksFail(false),
            Event::Suspend(false),
            Event::Distrust(false),
            Event::VerifiersLag(false),
            Event::RolloutsHang(false),
        ] {
            happens(&mut world, event);
        }
        // What failed before is noticed, and repeated in time.
        prop_assert!(world.settle(60), "no rest after {:#?}", world.steps);
        happens(&mut world, Event::Hours(40));
        prop_assert!(world.settle(60), "no rest after {:#?}", world.steps);
        let current = world.seen.status.versions.iter().find(|version| version.state == VersionState::Current);
        let current = current.expect("a current version");
        let ConsumerSeen::Ours { id, .. } = &world.seen.consumer else { panic!("no consumer Secret") };
        prop_assert_eq!(id.as_deref(), Some(current.id.as_str()));
        prop_assert!(current.is_valid(world.now()));
        let record = &world.seen.records[&current.id];
        prop_assert_eq!(record.standing.state, RecordState::Active);
        prop_assert_eq!(Some(record.standing.grant.clone()), world.parsed().grant);
        let runs = world.workload.as_ref().unwrap().version.clone();
        prop_assert_eq!(runs, Some(format!("{}-{}", current.n, current.id)));
    }
}

#[test]
fn the_only_version_that_is_left_is_in_use_again() {
    let opted_in = Workload { opted_in: true, version: None, restarted_at: None, waits_for: None };
    let mut world = World { workload: Some(opted_in), ..World::default() };
    for event in [Event::Steps(60), Event::Hours(24), Event::LoseStatus, Event::LoseSecrets, Event::PutBack(0)] {
        happens(&mut world, event);
    }
    // Its successor is due, and would take its place.
    happens(&mut world, Event::TestsFail(true));
    assert!(world.settle(60), "no rest after {:#?}", world.steps);
    assert_eq!((world.current(), world.seen.records["id1"].standing.state), (1, RecordState::Active));
    assert_eq!(world.workload.as_ref().unwrap().version.as_deref(), Some("1-id1"));
    assert_eq!(world.seen.records["id2"].standing.state, RecordState::Deprecated, "consumers may have it yet");
}

#[test]
fn a_rotation_step_by_step() {
    let mut world = World::default();
    let wanted = ["Remember", "CreateSecret", "CreateRecord", "StartJob", "WriteConsumer", "Remember", "Rest"];
    assert_eq!(world.told(), wanted);
    let due = world.due().unwrap();
    assert!(due <= SignedDuration::from_hours(24) && due >= SignedDuration::from_mins(24 * 54), "{due:?}");

    world.hours(24);
    let wanted =
        ["Remember", "CreateSecret", "CreateRecord", "StartJob", "WriteConsumer", "Remember", "UpdateRecord", "Rest"];
    assert_eq!(world.told(), wanted);

    world.hours(6);
    // Verifiers forget it first, then consumers, and only then is it gone.
    let wanted = ["EndRecord", "WriteConsumer", "DeleteSecret", "Remember", "Rest"];
    assert_eq!(world.told(), wanted);
}

#[test]
fn what_would_wait_for_one_more_verifier_is_not_done_without_asking() {
    let mut world = issued();
    world.hours(1).request();
    let mut asked = vec![];
    loop {
        let step = format!("{:?}", world.decided());
        if is_of_verifiers(&world.parsed(), &world.seen, world.now()) {
            asked.push(step.split([' ', '(']).next().unwrap().to_owned());
        }
        if !world.step() {
            break;
        }
    }
    assert_eq!((asked, world.current()), (vec!["StartJob".to_owned(), "WriteConsumer".to_owned()], 2));

    let mut world = rotated();
    world.spec["rotation"]["retireWhen"] = json!("ElapsedAndIdle");
    world.told();
    world.hours(6).decided();
    assert!(is_of_verifiers(&world.parsed(), &world.seen, world.now()), "it would know of no use, and not of none");
}
