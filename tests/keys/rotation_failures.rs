//! Failures that were met by others, row by row as far as the machine is concerned, and what
//! ends a key.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::key_world::{HOUR, World, id_of, issued, rotated};
use jiff::SignedDuration;
use rampart::{
    api::{ApiKeyStatus, RecordState, VersionState},
    keys::{ConsumerSeen, Neighbour, Refusal, Step, Workload},
};
use serde_json::json;

fn web(version: Option<String>) -> Workload {
    Workload { opted_in: true, version, restarted_at: None, waits_for: None }
}

fn state_of(world: &World, n: i64) -> RecordState {
    world.seen.records[&id_of(world, n)].standing.state
}

#[test]
fn regenerated_when_the_resource_is_made_anew() {
    let mut world = rotated();
    let before = world.seen.clone();
    world.seen.status = ApiKeyStatus::default();
    assert_eq!(world.told(), ["Remember", "Rest"], "adopted");
    assert_eq!(world.seen.secrets, before.secrets);
    assert_eq!(world.seen.status.versions, before.status.versions);
}

#[test]
fn rotated_by_an_upgrade_or_an_unrelated_change() {
    let mut world = rotated();
    world.spec["owner"]["contact"] = json!("somebody@example.com");
    world.spec["secret"]["deletionPolicy"] = json!("Retain");
    world.spec["rateLimit"] = json!({"perDay": 100});
    assert_eq!(world.told(), ["UpdateRecord", "UpdateRecord", "Rest"], "records are told of the rates, and no more");
}

#[test]
fn generated_twice_because_of_a_stale_look() {
    let mut world = World::default();
    world.step();
    world.step();
    let secret = world.seen.secrets.clone();
    // Killed here, and the next look finds the Secret that the status does not tell of.
    assert_eq!(world.told(), ["CreateRecord", "StartJob", "WriteConsumer", "Remember", "Rest"]);
    assert_eq!(world.seen.secrets, secret);
}

#[test]
fn an_immutable_secret_that_is_gone_has_a_successor_of_another_name() {
    let mut world = issued();
    world.seen.secrets.clear();
    world.told();
    assert_eq!((world.current(), world.seen.secrets.keys().copied().collect::<Vec<_>>()), (2, vec![2]));
}

#[test]
fn consumers_that_read_late_keep_the_previous_key() {
    let mut world = rotated();
    let digest = |world: &World, n: i64| Some(world.seen.secrets[&n].digest.clone());
    let wanted =
        ConsumerSeen::Ours { current: digest(&world, 2), previous: digest(&world, 1), id: Some(id_of(&world, 2)) };
    assert_eq!(world.seen.consumer, wanted);
    world.hours(5);
    assert_eq!(world.told(), ["Rest"], "within the overlap nothing changes");
    assert_eq!(state_of(&world, 1), RecordState::Deprecated);
}

#[test]
fn a_restart_that_was_missed_or_took_no_effect() {
    let mut world = issued();
    // While nobody watched, the workload agreed.
    world.workload = Some(web(None));
    assert_eq!(world.told(), ["Restart", "Rest"]);
    world.request();
    world.hours(1);
    world.rollouts_hang = true;
    world.told();
    let version = format!("2-{}", id_of(&world, 2));
    assert_eq!(world.workload.as_ref().unwrap().version, Some(version.clone()));
    let status = world.seen.workloads[0].status(&version, world.now());
    assert!(!status.ready && status.message.as_deref() == Some("a pod") && status.version == Some(2), "{status:?}");
    world.hours(1);
    world.decided();
    let status = world.seen.workloads[0].status(&version, world.now());
    assert!(status.message.unwrap().contains("not complete within"), "it is late, and said to be");
}

#[test]
fn restarts_for_nothing_when_the_operator_starts() {
    let mut world = issued();
    let version = format!("1-{}", id_of(&world, 1));
    world.workload = Some(web(Some(version)));
    assert_eq!(world.told(), ["Rest"]);
    world.workload.as_mut().unwrap().opted_in = false;
    world.workload.as_mut().unwrap().version = None;
    assert_eq!(world.told(), ["Rest"], "who did not agree is not restarted");
}

/// Another key that restarts the workload, too, with these fields of its status.
fn neighbour(world: &World, status: &serde_json::Value) -> Neighbour {
    let key = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "other", "namespace": "n"},
        "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "prefix": "ab",
                 "secret": {"name": "o"}, "restartTargets": [{"kind": "Deployment", "name": "web"}]},
        "status": status,
    });
    Neighbour::of(&serde_json::from_value(key).unwrap(), world.now()).unwrap()
}

#[test]
fn many_keys_and_many_restarts() {
    let version = |n: i64, state: &str| {
        json!({"n": n, "id": format!("o{n}"), "state": state, "createdAt": "2027-01-01T00:00:00Z",
               "expiresAt": "2028-01-01T00:00:00Z"})
    };
    let mut world = issued();
    world.workload = Some(web(Some(format!("1-{}", id_of(&world, 1)))));
    let coming = neighbour(&world, &json!({"versions": [version(3, "Current")], "nextVersion": 4}));
    world.seen.neighbours = vec![coming];
    world.hours(1).request();
    assert!(!world.told().contains(&"Restart".to_owned()), "another key is about to restart it, too");
    assert_eq!(world.current(), 2);
    let versions = [version(3, "Deprecated"), version(4, "Current")];
    world.seen.neighbours = vec![neighbour(&world, &json!({"versions": versions}))];
    let others = [("rampart.dev/key-version-other".to_owned(), "4-o4".to_owned())].into();
    let wanted = format!("2-{}", id_of(&world, 2));
    assert!(
        matches!(world.decided(), Step::Restart { version, others: with, .. } if version == wanted && with == others)
    );
    assert_eq!(world.told(), ["Restart", "Rest"]);

    // One that does not come is not waited for long.
    world.hours(1).request();
    let versions = [version(4, "Current")];
    world.seen.neighbours = vec![neighbour(&world, &json!({"versions": versions, "nextVersion": 5}))];
    assert!(!world.told().contains(&"Restart".to_owned()));
    world.now += 5 * 60;
    assert_eq!(world.told(), ["Restart", "Rest"]);
}

#[test]
fn two_write_one_secret() {
    let mut world = issued();
    for (owner, words) in
        [(Some("other"), "it belongs to ApiKey other: make"), (None, "nobody is known to own it: make")]
    {
        let owner = owner.map(str::to_owned);
        world.seen.consumer = ConsumerSeen::Foreign(owner.clone());
        let refusal = Refusal::ForeignConsumer { secret: "s".into(), owner };
        assert!(refusal.to_string().contains(words), "{refusal}");
        assert_eq!(world.decided(), Step::Refuse(refusal));
    }
    // What ends, ends all the same.
    world.hours(101);
    assert!(matches!(world.decided(), Step::EndRecord { .. }));
}

#[test]
fn a_restore_without_status_and_records() {
    let mut world = rotated();
    let secrets = world.seen.secrets.clone();
    world.seen.status = ApiKeyStatus::default();
    world.seen.records.clear();
    assert_eq!(world.told(), ["Remember", "CreateRecord", "CreateRecord", "Rest"]);
    assert_eq!(world.seen.secrets, secrets);
    assert_eq!(state_of(&world, 1), RecordState::Deprecated);
}

#[test]
fn a_secret_that_was_edited_by_hand() {
    let mut world = rotated();
    let good = world.seen.consumer.clone();
    world.seen.consumer = ConsumerSeen::Ours { current: Some("junk".into()), previous: None, id: None };
    assert_eq!(world.told(), ["WriteConsumer", "Rest"]);
    assert_eq!(world.seen.consumer, good);
}

#[test]
fn a_clock_that_jumps() {
    let mut world = rotated();
    world.hours(-1);
    assert_eq!(world.told(), ["Rest"], "an hour back");
    world.hours(-30 * 24);
    assert_eq!(world.told(), ["Rest"], "a month back");
    world.hours(30 * 24 + 1 + 5);
    assert_eq!(world.told(), ["Rest"], "and forth again");
}

#[test]
fn a_request_is_carried_out_once() {
    let mut world = rotated();
    world.hours(1);
    assert_eq!(world.told(), ["Rest"]);
    world.request();
    world.told();
    assert_eq!(world.current(), 3);
}

#[test]
fn a_request_is_carried_out_once_although_the_clock_goes_back_meanwhile() {
    let mut world = rotated();
    world.hours(2).request();
    while world.seen.status.next_version.is_none() {
        assert!(world.step(), "it does not begin");
    }
    world.hours(-1);
    world.told();
    assert_eq!(world.current(), 3);
    world.hours(1);
    assert_eq!(world.told(), ["Rest"], "the version was made before the request, by the clock");
}

#[test]
fn a_failed_test_is_repeated_later_and_later() {
    let mut world = issued();
    world.test_fails = true;
    world.request();
    world.hours(1);
    for (failures, pause) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        world.told();
        let status = &world.seen.status;
        assert_eq!(status.failed_attempts, Some(failures));
        let retry = status.retry_at.as_ref().unwrap().0;
        assert_eq!(retry.duration_since(world.now()), SignedDuration::from_hours(pause));
        assert_eq!((world.current(), status.next_version), (1, Some(2)));
        world.hours(pause);
    }
}

#[test]
fn who_asks_after_a_failure_does_not_wait() {
    let mut world = issued();
    world.test_fails = true;
    world.request();
    world.told();
    assert_eq!(world.told(), ["Rest"], "the request that led to the failure is no second one");
    world.now += 60;
    world.request();
    world.told();
    let status = &world.seen.status;
    assert_eq!((status.failed_attempts, world.current()), (Some(2), 1), "tried at once, and failed again");
    assert_eq!(status.retry_at.as_ref().unwrap().0.duration_since(world.now()), SignedDuration::from_hours(2));
    assert_eq!(world.told(), ["Rest"], "once for each request");
    world.now += 60;
    world.test_fails = false;
    world.request();
    world.told();
    assert_eq!((world.current(), world.seen.status.failed_attempts), (2, None));
    assert_eq!(world.told(), ["Rest"], "the version that was under way has answered");
}

#[test]
fn consumers_get_nothing_that_a_live_verifier_lacks() {
    let mut world = World::default();
    world.add_verifier();
    world.add_verifier();
    world.verifiers_follow = false;
    assert_eq!(world.told().last().unwrap(), "AwaitVerifiers");
    world.sync_verifiers();
    world.verifiers[1].revision = 0;
    assert_eq!(world.told(), ["AwaitVerifiers"], "one lags");
    // The one that lags is gone, and nobody waits for it.
    world.verifiers.pop();
    assert_eq!(world.told(), ["StartJob", "WriteConsumer", "Remember", "Rest"]);
}

#[test]
fn a_revoked_key_ends_at_the_verifiers_first() {
    let mut world = rotated();
    world.hours(1).request();
    // On its way, and not handed out.
    world.jobs_hang = true;
    world.told();
    world.spec["revocation"] = json!({"reason": "Leaked"});
    let wanted = [
        "EndRecord",
        "EndRecord",
        "EndRecord",
        "WriteConsumer",
        "DeleteSecret",
        "DeleteSecret",
        "DeleteSecret",
        "Remember",
        "Rest",
    ];
    let second = id_of(&world, 2);
    assert_eq!(world.told(), wanted);
    assert!(world.steps[0].contains(&second), "what is in use ends first");
    assert_eq!(world.versions(VersionState::Revoked), [1, 2]);
    // Somebody puts back what was deleted, and the status is lost as well.
    let graveyard = world.graveyard.clone();
    world.seen.secrets.extend(graveyard);
    world.seen.status = ApiKeyStatus::default();
    assert_eq!(world.told(), ["DeleteSecret", "DeleteSecret", "DeleteSecret", "Rest"]);
    world.hours(1000);
    assert_eq!(world.told(), ["Rest"], "nothing is issued ever again");
}

#[test]
fn a_revoked_key_that_lost_its_records_leaves_tombstones() {
    let mut world = rotated();
    world.seen.records.clear();
    world.spec["revocation"] = json!({"reason": "Leaked"});
    world.told();
    assert_eq!(world.seen.records.len(), 2);
    assert!(world.seen.records.values().all(|record| record.standing.state == RecordState::Revoked));
}

#[test]
fn a_suspended_key_is_not_rotated_and_expires() {
    let mut world = rotated();
    world.spec["suspended"] = json!(true);
    assert_eq!(world.told(), ["Remember", "UpdateRecord", "UpdateRecord", "Rest"]);
    assert_eq!(state_of(&world, 2), RecordState::Suspended);
    world.hours(30);
    assert_eq!(world.told(), ["EndRecord", "WriteConsumer", "DeleteSecret", "Remember", "Rest"]);
    assert_eq!(world.current(), 2, "due, and not replaced");
    world.spec["suspended"] = json!(false);
    world.told();
    assert_eq!(world.current(), 3);
}

#[test]
fn a_demoted_key_is_demoted_before_its_rotation() {
    let mut world = World::of(&json!({"role": "Editor", "rotation": {"interval": "24h", "overlap": "6h"}}));
    world.told();
    world.spec["role"] = json!("Viewer");
    assert_eq!(world.told(), ["UpdateRecord", "Rest"]);
    assert_eq!(world.seen.records[&id_of(&world, 1)].standing.grant.role, "Viewer");
}

#[test]
fn after_its_hard_expiry_no_version_lives_and_none_is_made() {
    let mut world = issued();
    let end = world.now().checked_add(SignedDuration::from_hours(30)).unwrap();
    world.spec["hardExpiry"] = json!(end.to_string());
    assert_eq!(world.told(), ["Remember", "UpdateRecord", "Rest"]);
    assert_eq!(world.seen.status.versions[0].expires_at.0, end);
    world.hours(24);
    world.told();
    assert_eq!(world.current(), 2);
    assert_eq!(world.seen.status.versions[1].expires_at.0, end);
    // One that is on its way then ends, too.
    world.jobs_hang = true;
    world.request();
    world.hours(1).request();
    assert_eq!(world.told().last().unwrap(), "AwaitJob");
    world.hours(5);
    world.told();
    assert!(world.seen.secrets.is_empty());
    assert!(world.seen.records.values().all(|record| record.standing.state.is_tombstone()));
    assert_eq!((world.seen.status.current_version, world.seen.status.next_version), (None, None));
    world.hours(100);
    assert_eq!(world.told(), ["Rest"]);
}

#[test]
fn a_key_in_use_is_not_destroyed_where_that_is_asked() {
    let mut world =
        World::of(&json!({"rotation": {"interval": "72h", "overlap": "6h", "retireWhen": "ElapsedAndIdle"}}));
    world.add_verifier();
    world.told();
    world.hours(1).request();
    world.told();
    let old = id_of(&world, 1);
    assert_eq!(world.seen.records[&old].standing.destroy_at, None, "verifiers admit it until they are told");
    world.hours(6);
    world.last_used.insert(old.clone(), world.now());
    assert_eq!(world.told(), ["Rest"]);
    world.hours(23);
    assert_eq!(world.told(), ["Rest"]);
    world.hours(1);
    assert_eq!(world.told()[0], "EndRecord", "not used for a day");
    // Verifiers that are away for a while take nothing back.
    world.hours(1).request();
    world.told();
    world.hours(6);
    world.verifiers.clear();
    world.last_used.insert(id_of(&world, 2), world.now());
    assert_eq!(world.told(), ["Rest"]);
    // Where none ever told, nobody can, and the time alone counts.
    world.last_used.clear();
    assert_eq!(world.told()[0], "EndRecord");
}

#[test]
fn status_remembers_as_many_ended_versions_as_it_is_asked_to() {
    let mut world = World::of(&json!({"rotation": {"interval": "24h", "overlap": "1h", "historyLimit": 1}}));
    for _ in 0..5 {
        world.told();
        world.hours(25);
    }
    world.told();
    assert_eq!(world.versions(VersionState::Destroyed).len(), 1);
    world.spec["rotation"]["historyLimit"] = json!(0);
    assert_eq!(world.told(), ["Remember", "Rest"]);
    assert!(world.versions(VersionState::Destroyed).is_empty());
}

#[test]
fn a_key_that_ended_for_good_is_not_issued_anew_where_nothing_is_remembered() {
    let mut world = World::of(&json!({"rotation": {"policy": "Disabled", "historyLimit": 0}, "ttl": "720h"}));
    world.told();
    world.hours(721);
    world.told();
    assert!(world.seen.secrets.is_empty());
    world.hours(1);
    assert_eq!(world.told(), ["Rest"]);
    assert_eq!(world.versions(VersionState::Destroyed).len(), 1, "the last one is remembered");
}

#[test]
fn many_requests_pile_up_no_more_than_a_status_holds() {
    let mut world = World::of(&json!({"rotation": {"policy": "Manual", "overlap": "90h"}}));
    for _ in 0..40 {
        world.told();
        world.now += HOUR / 2;
        world.request();
    }
    world.told();
    assert!(world.seen.status.versions.len() <= 32, "{}", world.seen.status.versions.len());
}
