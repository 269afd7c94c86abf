//! ApiKey: issued, rotated, retired, adopted; never regenerated, never overwritten.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::Job,
        core::v1::{ResourceQuota, Secret},
    },
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rampart::{
    api::{ApiKey, ApiKeyStatus, KeyRecord, RecordState, VersionState},
    keys::format::ApiKeyText,
};
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{
    Env, Tests,
    key_life::{condition, look},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("keys::a_schedule_rotates_and_the_old_key_is_destroyed_in_time", schedule_rotates);
    tests.add("keys::a_lost_status_is_rebuilt_from_the_secrets", lost_status_is_rebuilt);
    tests.add("keys::a_planted_secret_is_not_adopted", planted_secret_is_not_adopted);
    tests.add("keys::a_foreign_consumer_secret_is_not_touched", foreign_consumer_is_not_touched);
    tests.add("keys::what_a_quota_refuses_is_said", what_a_quota_refuses_is_said);
    tests.add("keys::a_changed_consumer_secret_is_put_back", changed_consumer_is_put_back);
    tests.add("keys::a_failed_test_hands_nothing_out", failed_test_hands_nothing_out);
    tests.add("keys::a_lost_version_secret_is_replaced_by_a_rotation", lost_secret_is_replaced);
    tests.add("keys::the_test_job_is_hardened", test_job_is_hardened);
    tests.add("keys::a_deleted_key_leaves_tombstones_alone", deleted_key_leaves_tombstones);
    tests.add("keys::a_status_that_names_the_key_of_another_does_not_end_it", foreign_id_is_not_ended);
}

/// Waits for a status of the key `orders`.
pub(crate) async fn status(
    client: &Client,
    namespace: &str,
    what: &str,
    holds: impl Fn(&ApiKeyStatus) -> bool,
) -> Result<ApiKeyStatus> {
    let api: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
    wait::until(what, wait::SOON, || async {
        let status = api.get("orders").await?.status.unwrap_or_default();
        ensure!(holds(&status), "status is {status:?}");
        Ok(status)
    })
    .await
}

/// The records of a namespace's keys, by version.
pub(crate) async fn records(client: &Client, namespace: &str) -> Result<BTreeMap<i64, KeyRecord>> {
    let api: Api<KeyRecord> = Api::namespaced(client.clone(), "rampart-keys");
    let all = api.list(&ListParams::default()).await?;
    let of = all.items.into_iter().filter(|record| record.spec.api_key.namespace == namespace);
    Ok(of.map(|record| (record.spec.api_key.version, record)).collect())
}

pub(crate) fn text(secret: &Secret, entry: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(entry)?.0.clone()).ok()
}

pub(crate) async fn issued(env: &Env) -> Result<(Client, String, Api<Secret>)> {
    let (client, namespace) = env.namespace().await?;
    fixtures::apply(&client, &stories::api_key(&namespace)).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    let secrets = Api::namespaced(client.clone(), &namespace);
    Ok((client, namespace, secrets))
}

async fn schedule_rotates(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let mut key = stories::api_key(&namespace);
    key["spec"]["rotation"] = json!({"interval": "4s", "overlap": "2s"});
    fixtures::apply(&client, &key).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    status(&client, &namespace, "version 2, by the schedule", |it| it.current_version >= Some(2)).await?;
    let after = status(&client, &namespace, "version 1 to be destroyed", |it| {
        it.versions.iter().any(|version| version.n == 1 && version.state == VersionState::Destroyed)
    })
    .await?;
    // Suspended, so that the rest is looked at standing still.
    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    keys.patch("orders", &PatchParams::default(), &suspend).await?;
    ensure!(secrets.get_opt("orders-v1").await?.is_none(), "the Secret of a destroyed version is left");
    let record = records(&client, &namespace).await?.remove(&1).context("the tombstone")?.spec;
    ensure!(record.state == RecordState::Destroyed && record.digest.is_none() && record.role.is_empty(), "{record:?}");
    let ids: Vec<&str> = after.versions.iter().map(|version| version.id.as_str()).collect();
    ensure!(ids.len() == ids.iter().collect::<std::collections::BTreeSet<_>>().len(), "an id was used twice: {ids:?}");
    Ok(())
}

async fn lost_status_is_rebuilt(env: Env) -> Result<()> {
    let (client, namespace, secrets) = issued(&env).await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    let now = fixtures::this_second();
    let rotate = Patch::Merge(json!({"spec": {"rotation": {"requestedAt": now.to_string()}}}));
    keys.patch("orders", &PatchParams::default(), &rotate).await?;
    let before =
        status(&client, &namespace, "version 2", |it| it.current_version == Some(2) && it.next_version.is_none())
            .await?;
    wait::until("the records to follow", wait::SOON, || async {
        let old = records(&client, &namespace).await?.remove(&1).context("record 1")?.spec;
        ensure!(old.state == RecordState::Deprecated && old.destroy_at.is_some(), "{old:?}");
        Ok(())
    })
    .await?;
    let consumer = secrets.get("orders-key").await?;
    let uids = |list: Vec<Secret>| {
        list.into_iter().map(|it| (it.name_any(), it.uid(), it.resource_version())).collect::<Vec<_>>()
    };
    let made = uids(secrets.list(&ListParams::default()).await?.items);

    // A backup restores specs and Secrets, and no status.
    let empty = json!({"status": {"versions": null, "currentVersion": null, "nextVersion": null, "conditions": null,
        "observedGeneration": null, "nextRotationTime": null, "lastHandledRotation": null}});
    keys.patch_status("orders", &PatchParams::default(), &Patch::Merge(&empty)).await?;
    let ask = Patch::Merge(json!({"metadata": {"annotations": {"rampart.dev/reconcile-requested-at": "now"}}}));
    keys.patch("orders", &PatchParams::default(), &ask).await?;
    let after = status(&client, &namespace, "the status to be rebuilt", |it| it.current_version == Some(2)).await?;
    ensure!(after.last_handled_reconcile_at.as_deref() == Some("now"), "the request is echoed");
    let facts = |status: &ApiKeyStatus| {
        let of = |it: &rampart::api::VersionStatus| {
            (
                it.n,
                it.id.clone(),
                it.state,
                it.created_at.clone(),
                it.expires_at.clone(),
                it.destroy_at.clone(),
                it.replaced_by.clone(),
            )
        };
        status.versions.iter().map(of).collect::<Vec<_>>()
    };
    ensure!(facts(&before) == facts(&after), "before {:?}\nafter {:?}", before.versions, after.versions);
    ensure!(uids(secrets.list(&ListParams::default()).await?.items) == made, "a Secret was written");
    ensure!(secrets.get("orders-key").await?.data == consumer.data, "the consumer Secret changed");
    Ok(())
}

async fn planted_secret_is_not_adopted(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let known = ApiKeyText::new("shop_live", "00000000", &[1; 32]);
    let data: BTreeMap<String, ByteString> =
        [("key", known.expose().to_owned()), ("id", "00000000".into()), ("digest", known.digest())]
            .map(|(name, value)| (name.to_owned(), ByteString(value.into_bytes())))
            .into();
    let planted: Secret = serde_json::from_value(json!({
        "metadata": {
            "name": "orders-v1",
            "labels": {"app.kubernetes.io/managed-by": "rampart", "rampart.dev/owner-kind": "ApiKey",
                       "rampart.dev/owner-name": "orders", "rampart.dev/key-version": "1", "rampart.dev/key-id": "00000000"},
            "annotations": {"rampart.dev/key-mac": "00".repeat(32)},
        },
        "immutable": true, "data": data,
    }))?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    secrets.create(&PostParams::default(), &planted).await?;
    fixtures::apply(&client, &stories::api_key(&namespace)).await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    wait::until("the plant to be refused", wait::SOON, || async {
        let live = serde_json::to_value(keys.get("orders").await?)?;
        let ready = stories::condition(&live, "Ready").unwrap_or_default();
        ensure!(ready["reason"] == "AdoptionRefused", "{ready}");
        Ok(())
    })
    .await?;
    ensure!(secrets.get_opt("orders-key").await?.is_none(), "a known key was handed out");
    ensure!(records(&client, &namespace).await?.is_empty(), "verifiers were told of it");
    secrets.delete("orders-v1", &DeleteParams::default()).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    Ok(())
}

async fn foreign_consumer_is_not_touched(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let mine: Secret =
        serde_json::from_value(json!({"metadata": {"name": "orders-key"}, "stringData": {"API_KEY": "mine"}}))?;
    let mine = secrets.create(&PostParams::default(), &mine).await?;
    fixtures::apply(&client, &stories::api_key(&namespace)).await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    wait::until("the conflict to be said", wait::SOON, || async {
        let live = serde_json::to_value(keys.get("orders").await?)?;
        let accepted = stories::condition(&live, "Accepted").unwrap_or_default();
        ensure!(accepted["status"] == "False" && accepted["reason"] == "Conflicted", "{accepted}");
        Ok(ensure!(
            accepted["message"].as_str().is_some_and(|it| it.contains("nobody is known to own it")),
            "{accepted}"
        ))
    })
    .await?;
    ensure!(secrets.get("orders-key").await?.resource_version() == mine.resource_version());
    let all = secrets.list(&ListParams::default()).await?;
    ensure!(all.items.len() == 1, "a key was made that nobody can get");
    stories::told(&client, &namespace, "SecretConflict", "orders-key").await
}

async fn what_a_quota_refuses_is_said(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none", "namespace": namespace},
        "spec": {"hard": {"count/secrets": "0"}},
    });
    fixtures::apply(&client, &quota).await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), &namespace);
    wait::until("the quota to be counted", wait::SOON, || async {
        let hard = quotas.get("none").await?.status.and_then(|status| status.hard).unwrap_or_default();
        Ok(ensure!(!hard.is_empty(), "not yet"))
    })
    .await?;
    fixtures::apply(&client, &stories::api_key(&namespace)).await?;
    for kind in ["Rotating", "Ready"] {
        condition(&client, &namespace, kind, ("False", "WriteRefused")).await?;
    }
    stories::told(&client, &namespace, "WriteRefused", "orders-v1").await?;
    quotas.delete("none", &DeleteParams::default()).await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    wait::until("a key, once the quota is gone", wait::SOON, || async {
        // The pause before the next try may be long by now.
        look(&client, &namespace).await?;
        let live = serde_json::to_value(keys.get("orders").await?)?;
        let ready = stories::condition(&live, "Ready").unwrap_or_default();
        ensure!(ready["status"] == "True" && stories::condition(&live, "Rotating").is_none(), "{live}");
        Ok(())
    })
    .await
}

async fn changed_consumer_is_put_back(env: Env) -> Result<()> {
    let (client, namespace, secrets) = issued(&env).await?;
    let good = secrets.get("orders-key").await?;
    let edit = Patch::Merge(json!({"stringData": {"API_KEY": "junk", "API_KEY_ID": "junk", "MINE": "kept"}}));
    secrets.patch("orders-key", &PatchParams::default(), &edit).await?;
    wait::until("the edit to be undone", wait::SOON, || async {
        let live = secrets.get("orders-key").await?;
        ensure!(
            text(&live, "API_KEY") == text(&good, "API_KEY") && text(&live, "API_KEY_ID") == text(&good, "API_KEY_ID"),
            "not yet"
        );
        ensure!(text(&live, "MINE").as_deref() == Some("kept"), "an entry of somebody else was taken away");
        Ok(())
    })
    .await?;
    secrets.delete("orders-key", &DeleteParams::default()).await?;
    wait::until("a deleted one to be back", wait::SOON, || async {
        ensure!(text(&secrets.get("orders-key").await?, "API_KEY") == text(&good, "API_KEY"));
        Ok(())
    })
    .await?;
    stories::told(&client, &namespace, "SecretDrift", "orders-key").await
}

async fn failed_test_hands_nothing_out(env: Env) -> Result<()> {
    let client = env.shared().await?.plane.client();
    // Pods of Jobs fail in this namespace (controlplane/kwok/stages.yaml).
    fixtures::namespace(&client, "failing", json!({})).await?;
    fixtures::apply(&client, &stories::api_key("failing")).await?;
    let after = status(&client, "failing", "the test to have failed", |it| it.failed_attempts == Some(1)).await?;
    let retry = after.retry_at.context("a time for the next try")?.0;
    let wait = Duration::try_from(retry.duration_since(jiff::Timestamp::now()))?;
    ensure!(wait > Duration::from_mins(55) && wait <= Duration::from_hours(1), "the next try is in {wait:?}");
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), "failing");
    let live = serde_json::to_value(keys.get("orders").await?)?;
    ensure!(stories::condition(&live, "Rotating").unwrap_or_default()["reason"] == "TestFailed");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "failing");
    ensure!(secrets.get_opt("orders-key").await?.is_none(), "an untested key was handed out");
    Ok(())
}

async fn lost_secret_is_replaced(env: Env) -> Result<()> {
    let (client, namespace, secrets) = issued(&env).await?;
    let before = secrets.get("orders-key").await?;
    secrets.delete("orders-v1", &DeleteParams::default()).await?;
    status(&client, &namespace, "version 2", |it| it.current_version == Some(2) && it.next_version.is_none()).await?;
    let after = secrets.get("orders-key").await?;
    ensure!(text(&after, "API_KEY") != text(&before, "API_KEY"), "the key did not change");
    Ok(())
}

async fn test_job_is_hardened(env: Env) -> Result<()> {
    let (client, namespace, _) = issued(&env).await?;
    let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
    let job = jobs.list(&ListParams::default()).await?.items.pop().context("a Job")?;
    ensure!(job.name_any().starts_with("orders-v1-") && job.name_any().ends_with("-test"), "{}", job.name_any());
    let template = job.spec.context("a spec")?.template;
    ensure!(template.spec.as_ref().is_some_and(|pod| pod.automount_service_account_token == Some(false)));
    // The API server's own judge, at the restricted level.
    let label = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    fixtures::namespace(&client, &namespace, label).await?;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client, &namespace);
    let mut pod = serde_json::to_value(template)?;
    pod["metadata"] = json!({"name": "like-the-test"});
    let pod = serde_json::from_value(without_defaults(pod))?;
    pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await.context("the restricted level")?;
    Ok(())
}

fn without_defaults(mut pod: Value) -> Value {
    if let Some(spec) = pod["spec"].as_object_mut() {
        spec.remove("schedulerName");
    }
    pod
}

async fn deleted_key_leaves_tombstones(env: Env) -> Result<()> {
    let (client, namespace, secrets) = issued(&env).await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    keys.delete("orders", &DeleteParams::default()).await?;
    wait::until("its Secrets to go", wait::SOON, || async {
        let left = secrets.list(&ListParams::default()).await?;
        ensure!(left.items.is_empty(), "{} are left", left.items.len());
        Ok(())
    })
    .await?;
    let record = records(&client, &namespace).await?.remove(&1).context("the tombstone")?.spec;
    ensure!(record.state == RecordState::Destroyed && record.digest.is_none(), "{record:?}");
    Ok(())
}

async fn foreign_id_is_not_ended(env: Env) -> Result<()> {
    let (client, theirs, _) = issued(&env).await?;
    let (_, mine, _) = issued(&env).await?;
    let before = records(&client, &theirs).await?.remove(&1).context("their record")?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &mine);
    let mut versions = keys.get("orders").await?.status.unwrap_or_default().versions;
    let mut forged = versions.first().cloned().context("a version")?;
    (forged.n, forged.id) = (9, before.name_any());
    versions.push(forged);
    let forge = Patch::Merge(json!({"status": {"versions": versions}}));
    keys.patch_status("orders", &PatchParams::default(), &forge).await?;
    let revoke = Patch::Merge(json!({"spec": {"revocation": {"reason": "Leaked"}}}));
    keys.patch("orders", &PatchParams::default(), &revoke).await?;
    condition(&client, &mine, "Revoked", ("True", "Revoked")).await?;
    let own = records(&client, &mine).await?.remove(&1).context("the tombstone")?.spec;
    ensure!(own.state == RecordState::Revoked, "{own:?}");
    let after = records(&client, &theirs).await?.remove(&1).context("their record")?;
    ensure!(after.spec == before.spec, "another key was changed: {:?}", after.spec);
    Ok(())
}
