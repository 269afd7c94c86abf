//! When a token ends, as the system that issued it says.

use jiff::SignedDuration;
use rampart::{
    api::{ApiKeyStatus, condition::Type},
    keys::Fault,
};
use serde_json::json;

use super::{asked, consumers, digest, refuse, taken, told, world};
use crate::key_world::{HOUR, World};

/// When the version in use ends, from now.
fn ends_in(world: &World) -> SignedDuration {
    let n = world.current();
    let version = world.seen.status.versions.iter().find(|version| version.n == n).unwrap();
    version.expires_at.0.duration_since(world.now())
}

#[test]
fn a_token_ends_when_the_system_that_issued_it_says_so() {
    let mut world = world(&json!({}));
    world.supply_until("a", Some(20 * HOUR));
    world.told();
    assert_eq!(ends_in(&world), SignedDuration::from_hours(20));
    assert_eq!(world.due(), Some(SignedDuration::from_hours(14)), "in time for an overlap");
    // What is told later, or put right, holds; and no longer than spec.ttl.
    for (told, held) in [(30, 30), (10, 10), (1000, 100)] {
        world.supply_until("a", Some(told * HOUR));
        assert_eq!(world.told(), ["Remember", "Rest"]);
        assert_eq!(ends_in(&world), SignedDuration::from_hours(held));
    }
    world.supply("a");
    assert_eq!(world.told(), ["Rest"], "without it nothing changes");
    world.supply_until("a", Some(10 * HOUR));
    world.told();
    world.hours(10);
    world.told();
    assert_eq!(consumers(&world), (None, None), "taken from consumers at its end");
    assert_eq!(asked(&mut world).0, "TokenEnded");
    // Its successor, and the time that was meant for the old one: refused, until it is put right.
    world.supply_until("b", Some(0));
    assert_eq!(world.told(), ["Rest"]);
    let (reason, message) = asked(&mut world);
    assert!(reason == "TokenEnded" && message.contains("rampart.dev/token-expires-at"), "{message}");
    world.supply_until("b", Some(HOUR));
    world.told();
    assert_eq!((consumers(&world), ends_in(&world)), ((digest("b"), None), SignedDuration::from_hours(1)));
}

#[test]
fn an_end_that_is_past_ends_nothing_that_is_in_use() {
    let mut world = taken();
    let before = world.seen.status.versions.clone();
    world.supply_until("a", Some(-HOUR));
    assert_eq!(world.told(), ["Rest"]);
    assert_eq!((asked(&mut world).0.as_str(), told(&mut world).is(Type::Ready)), ("TokenEnded", true));
    refuse(&mut world, Fault::NoTime);
    assert_eq!(world.told(), ["Rest"]);
    assert_eq!(world.seen.status.versions, before);
    assert_eq!(asked(&mut world).0, "TokenExpiryMalformed");
    // One that is on its way is not handed out.
    world.spec["hooks"] = json!({"test": {"cronJobName": "hook"}});
    world.test_fails = true;
    world.supply_until("b", Some(HOUR));
    world.told();
    assert_eq!(world.seen.status.next_version, Some(2));
    world.hours(1);
    world.test_fails = false;
    world.told();
    assert_eq!((world.current(), world.seen.status.next_version, world.seen.secrets.len()), (1, None, 1));
    assert_eq!(asked(&mut world).0, "TokenEnded");
}

#[test]
fn a_lost_status_and_the_end_of_a_token() {
    let mut world = taken();
    world.supply_until("a", Some(20 * HOUR));
    world.told();
    world.seen.status = ApiKeyStatus::default();
    world.told();
    assert_eq!(ends_in(&world), SignedDuration::from_hours(20));
}
