//! What others damage, put back or keep from going on, and the machine neither hands out nor waits for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::key_world::{World, id_of, issued, rotated};
use jiff::SignedDuration;
use rampart::{
    api::{ApiKeyStatus, RecordState, VersionState},
    keys::{ConsumerSeen, Refusal, SecretSeen, Step, Workload},
};
use serde_json::json;

/// Somebody writes the Secret of a version anew, with a line break after its key.
fn damage(world: &mut World, n: i64) {
    let secret = world.seen.secrets.get_mut(&n).unwrap();
    (secret.digest, secret.proven) = (String::new(), false);
}

fn refuses(world: &mut World, n: i64) {
    assert_eq!(world.decided(), Step::Refuse(Refusal::Unproven(format!("k-v{n}"))));
}

#[test]
fn a_damaged_version_is_not_written_over_the_last_good_copy() {
    for n in [1, 2] {
        let mut world = rotated();
        damage(&mut world, n);
        refuses(&mut world, n);
        // Not either where consumers have what is as wrong.
        let ConsumerSeen::Ours { current, .. } = &mut world.seen.consumer else { panic!("no consumer Secret") };
        *current = Some(String::new());
        refuses(&mut world, n);
    }
}

#[test]
fn a_damaged_version_is_replaced_when_it_is_due() {
    let mut world = issued();
    world.workload = Some(Workload { opted_in: true, version: None, restarted_at: None, waits_for: None });
    world.told();
    damage(&mut world, 1);
    world.hours(24);
    let runs = |world: &World| world.workload.as_ref().unwrap().version.clone();
    while runs(&world) != world.seen.status.versions.get(1).map(|it| format!("2-{}", it.id)) {
        assert!(world.step(), "{:#?}", world.steps);
    }
    let digest = Some(world.seen.secrets[&2].digest.clone());
    let wanted = ConsumerSeen::Ours { current: digest, previous: None, id: Some(id_of(&world, 2)) };
    assert_eq!(world.seen.consumer, wanted);
    refuses(&mut world, 1);
}

#[test]
fn the_end_of_a_version_writes_no_damaged_one() {
    let mut world = rotated();
    let had = world.seen.consumer.clone();
    damage(&mut world, 2);
    world.hours(6);
    while world.seen.secrets.contains_key(&1) {
        assert!(world.step(), "{:#?}", world.steps);
    }
    assert_eq!(world.seen.consumer, had);
}

#[test]
fn where_the_mac_key_was_lost_records_tell_what_is_sound() {
    let mut world = rotated();
    for secret in world.seen.secrets.values_mut() {
        secret.proven = false;
    }
    let good = std::mem::take(&mut world.seen.consumer);
    assert_eq!(world.told(), ["WriteConsumer", "Rest"]);
    assert_eq!(world.seen.consumer, good);
}

#[test]
fn a_version_that_outlives_its_ttl_on_its_way_is_made_anew() {
    let mut world = issued();
    world.add_verifier();
    world.verifiers_follow = false;
    world.hours(24);
    assert_eq!(world.told().last().unwrap(), "AwaitVerifiers");
    let late = world.seen.secrets[&2].id.clone();
    // The verifier that lagged is back after more than the ttl.
    world.hours(101);
    world.verifiers_follow = true;
    world.told();
    assert!(world.dead.contains(&late));
    assert_eq!(world.current(), 2);
    assert!(world.seen.status.versions.iter().find(|it| it.n == 2).unwrap().is_valid(world.now()));
    assert_ne!(id_of(&world, 2), late);
}

#[test]
fn a_record_that_comes_back_after_its_version_has_ended_is_ended_again() {
    let mut world = rotated();
    let (old, backup) = (id_of(&world, 1), world.seen.records.clone());
    world.hours(6);
    world.told();
    assert_eq!(world.versions(VersionState::Destroyed), [1]);
    // The namespace of records is restored from a backup.
    world.seen.records.extend(backup);
    world.dead.remove(&old);
    assert_eq!(world.told(), ["EndRecord", "Rest"]);
    assert_eq!(world.seen.records[&old].standing.state, RecordState::Destroyed);
}

#[test]
fn the_secret_of_a_version_that_has_ended_does_not_stay_when_it_is_put_back() {
    let mut world = rotated();
    world.hours(6);
    world.told();
    world.put_back(0);
    assert_eq!(world.told(), ["DeleteSecret", "Rest"]);
    assert_eq!(world.seen.secrets.keys().copied().collect::<Vec<_>>(), [2]);
    // What is not proven may be somebody's own.
    world.put_back(0);
    world.seen.secrets.get_mut(&1).unwrap().proven = false;
    assert_eq!(world.told(), ["Rest"]);
}

#[test]
fn a_revoked_key_leaves_no_secret_although_the_mac_key_was_lost() {
    let mut world = rotated();
    for secret in world.seen.secrets.values_mut() {
        secret.proven = false;
    }
    let foreign = SecretSeen { id: "other".into(), ..world.seen.secrets[&1].clone() };
    world.seen.secrets.insert(7, foreign);
    world.spec["revocation"] = json!({"reason": "Leaked"});
    world.told();
    assert_eq!(world.seen.secrets.keys().copied().collect::<Vec<_>>(), [7], "what is not known as ours stays");
    assert_eq!(world.versions(VersionState::Revoked), [1, 2]);
}

#[test]
fn no_key_is_given_more_time() {
    let mut world = issued();
    let id = id_of(&world, 1);
    let end = world.seen.records[&id].standing.expires_at;
    world.hours(50);
    // Nobody knows of its version any more, and its Secret was made anew.
    (world.seen.status, world.seen.consumer) = (ApiKeyStatus::default(), ConsumerSeen::Absent);
    world.seen.secrets.get_mut(&1).unwrap().created_at = world.now();
    world.told();
    let ends =
        |world: &World| [world.seen.records[&id].standing.expires_at, world.seen.status.versions[0].expires_at.0];
    assert_eq!((id_of(&world, 1), ends(&world)), (id.clone(), [end; 2]), "adopted, to end as it was to");
    // Somebody writes into its status that it lives longer.
    world.seen.status.versions[0].expires_at.0 += SignedDuration::from_hours(100);
    assert_eq!(world.told(), ["Remember", "Rest"]);
    assert_eq!(ends(&world), [end; 2]);
}
