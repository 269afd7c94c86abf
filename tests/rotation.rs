//! The rotation machine against a model of the cluster: whatever order of time, requests and losses it
//! meets, it comes to rest, never has two current keys, and never lets a consumer have a key that
//! verifiers don't know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rampart::{
    api::{ApiKey, RecordState, VersionState},
    keys::{Caps, ConsumerSeen, Observed, RecordSeen, SecretSeen, Spec, Step, TestSeen, decide},
};

const HOUR: i64 = 3600;

fn spec(requested: Option<Timestamp>) -> Spec {
    let mut key = serde_json::json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "k", "namespace": "n"},
        "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "prefix": "ab",
                 "ttl": "100h", "rotation": {"interval": "24h", "overlap": "6h"}, "secret": {"name": "s"}},
    });
    if let Some(at) = requested {
        key["spec"]["rotation"]["requestedAt"] = at.to_string().into();
    }
    let key: ApiKey = serde_json::from_value(key).unwrap();
    Spec::parse(&key, &Caps::default()).unwrap()
}

/// A cluster that does what a step says.
#[derive(Default)]
struct World {
    seen: Observed,
    now: i64,
    made: usize,
    requested: Option<Timestamp>,
    test_fails: bool,
    tests: BTreeMap<(i64, i32), TestSeen>,
    steps: Vec<String>,
}

impl World {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + self.now).unwrap()
    }

    /// Steps until the machine rests, or `most` of them.
    fn settle(&mut self, most: usize) -> bool {
        (0..most).any(|_| !self.step())
    }

    /// One step; whether there was one.
    fn step(&mut self) -> bool {
        // A test is of one version and one attempt.
        let status = &self.seen.status;
        let attempt = status.next_version.map(|n| (n, status.failed_attempts.unwrap_or_default()));
        self.seen.test = attempt.and_then(|it| self.tests.get(&it).copied()).unwrap_or_default();
        let step = decide(&spec(self.requested), &self.seen, self.now());
        self.steps.push(format!("{step:?}"));
        match step {
            Step::Remember(status) => {
                assert_ne!(*status, self.seen.status, "a status that says nothing new: {:?}", self.steps.last());
                self.seen.status = *status;
            }
            Step::CreateSecret { n } => {
                self.made += 1;
                let (id, digest) = (format!("id{}", self.made), format!("digest{}", self.made));
                let secret = SecretSeen { id, created_at: self.now(), digest, proven: true };
                assert!(self.seen.secrets.insert(n, secret).is_none(), "version {n} was made twice");
            }
            Step::CreateRecord { n, .. } => {
                let secret = &self.seen.secrets[&n];
                let digest = Some(secret.digest.clone());
                let record = RecordSeen { state: RecordState::Active, digest, replaced_by: None, destroy_at: None };
                assert!(self.seen.records.insert(secret.id.clone(), record).is_none());
            }
            Step::StartTest { n, attempt } => {
                let result = if self.test_fails { TestSeen::Failed } else { TestSeen::Succeeded };
                self.tests.insert((n, attempt), result);
            }
            Step::WriteConsumer { current, previous } => {
                let digest = |n: Option<i64>| n.map(|n| self.seen.secrets[&n].digest.clone());
                for n in [current, previous] {
                    self.check_handed_out(digest(n).as_ref());
                }
                let id = current.map(|n| self.seen.secrets[&n].id.clone());
                self.seen.consumer = ConsumerSeen::Ours { current: digest(current), previous: digest(previous), id };
            }
            Step::UpdateRecord { id, state, replaced_by, destroy_at } => {
                let record = self.seen.records.get_mut(&id).unwrap();
                assert_ne!(record.state, RecordState::Destroyed, "a tombstone was touched");
                let digest = record.digest.take().filter(|_| state != RecordState::Destroyed);
                *record = RecordSeen { state, digest, replaced_by, destroy_at };
            }
            Step::DeleteSecret { n } => drop(self.seen.secrets.remove(&n)),
            Step::AwaitTest { .. } | Step::Rest { .. } => return false,
            Step::Refuse(refusal) => panic!("{refusal}"),
        }
        self.check();
        true
    }

    fn check(&self) {
        let versions = &self.seen.status.versions;
        let current = versions.iter().filter(|version| version.state == VersionState::Current).count();
        assert!(current <= 1, "two keys are current: {versions:?}");
    }

    /// What consumers are given must be known to verifiers first.
    fn check_handed_out(&self, digest: Option<&String>) {
        let had = match &self.seen.consumer {
            ConsumerSeen::Ours { current, previous, .. } => [current.as_ref(), previous.as_ref()],
            _ => [None, None],
        };
        let known = self.seen.records.values().any(|record| record.digest.as_ref() == digest);
        let new = digest.is_some() && !had.contains(&digest);
        assert!(known || !new, "consumers get a key that verifiers don't know: {:#?}", self.steps);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Hours(i64),
    Request,
    LoseStatus,
    LoseRecords,
    LoseConsumer,
    LoseSecrets,
    JunkConsumer,
    /// The operator is killed after so many steps.
    Steps(usize),
    TestsFail(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_i64..40).prop_map(Event::Hours),
        Just(Event::Request),
        Just(Event::LoseStatus),
        Just(Event::LoseRecords),
        Just(Event::LoseConsumer),
        Just(Event::LoseSecrets),
        Just(Event::JunkConsumer),
        (1_usize..6).prop_map(Event::Steps),
        any::<bool>().prop_map(Event::TestsFail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn it_always_comes_to_rest(events in prop::collection::vec(event(), 1..25)) {
        let mut world = World::default();
        for event in events {
            match event {
                Event::Hours(hours) => world.now += hours * HOUR,
                Event::Request => world.requested = Some(world.now()),
                // What a restore does: statuses are gone, and nothing is under way.
                Event::LoseStatus => {
                    prop_assert!(world.settle(60));
                    world.seen.status = rampart::api::ApiKeyStatus::default();
                }
                Event::LoseRecords => world.seen.records.retain(|_, record| record.state == RecordState::Destroyed),
                Event::LoseSecrets => world.seen.secrets.clear(),
                Event::LoseConsumer => world.seen.consumer = ConsumerSeen::Absent,
                Event::JunkConsumer => {
                    let junk = Some(String::new());
                    world.seen.consumer = ConsumerSeen::Ours { current: junk.clone(), previous: junk, id: None };
                }
                Event::Steps(steps) => drop((0..steps).map(|_| world.step()).collect::<Vec<_>>()),
                Event::TestsFail(fails) => world.test_fails = fails,
            }
        }
        prop_assert!(world.settle(60), "no rest after {:#?}", world.steps);
        prop_assert!(!world.step(), "at rest nothing is written");
        // And with working tests, a day later there is a current key that consumers have.
        world.test_fails = false;
        world.now += 40 * HOUR;
        prop_assert!(world.settle(60), "no rest after {:#?}", world.steps);
        let current = world.seen.status.versions.iter().find(|version| version.state == VersionState::Current);
        let current = current.expect("a current version");
        let ConsumerSeen::Ours { id, .. } = &world.seen.consumer else { panic!("no consumer Secret") };
        prop_assert_eq!(id.as_deref(), Some(current.id.as_str()));
        prop_assert!(current.is_valid(world.now()));
    }
}

#[test]
fn a_rotation_step_by_step() {
    let mut world = World::default();
    assert!(world.settle(20));
    let kinds = |steps: &[String]| {
        steps.iter().map(|step| step.split([' ', '(']).next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let wanted = ["Remember", "CreateSecret", "CreateRecord", "StartTest", "WriteConsumer", "Remember", "Rest"];
    assert_eq!(kinds(&world.steps), wanted);
    let due = world.seen.status.next_rotation_time.as_ref().unwrap().0;
    assert_eq!(due.duration_since(world.now()), SignedDuration::from_hours(24));

    world.steps.clear();
    world.now += 24 * HOUR;
    assert!(world.settle(20));
    let wanted =
        ["Remember", "CreateSecret", "CreateRecord", "StartTest", "WriteConsumer", "Remember", "UpdateRecord", "Rest"];
    assert_eq!(kinds(&world.steps), wanted);

    world.steps.clear();
    world.now += 6 * HOUR;
    assert!(world.settle(20));
    // Verifiers forget it first, then consumers, and only then is it gone.
    let wanted = ["UpdateRecord", "WriteConsumer", "DeleteSecret", "Remember", "Rest"];
    assert_eq!(kinds(&world.steps), wanted);
}
