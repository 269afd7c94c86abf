//! ApiKey: hooks that fail, or take too long. Each step says so, loses nothing, and goes on when the hook is mended.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, Client, api::PostParams};
use rampart::api::{ApiKey, ApiKeyStatus, KeyRecord, RecordState, VersionState, VersionStatus};
use rampart_e2e::{fixtures, stories, wait};
use serde_json::json;

use crate::{
    Env, Tests,
    key_life::{condition, look, merge, request},
    keys::{issued, records, status, text},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("key_hooks::a_failing_hook_before_a_version_leaves_no_half_of_it", before_a_version);
    tests.add("key_hooks::a_test_that_hangs_hands_nothing_out_and_loses_no_key", test_that_hangs);
    tests.add("key_hooks::a_failing_hook_after_the_promotion_takes_nothing_back", after_the_promotion);
    tests.add("key_hooks::a_failing_hook_before_the_end_puts_it_off", before_the_end);
}

/// What the pods of a hook do (controlplane/kwok/stages.yaml).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pods {
    Succeed,
    Fail,
    Hang {
        /// How long they may.
        seconds: i64,
    },
}

/// Makes the hook, or mends it.
pub(crate) async fn hook(client: &Client, namespace: &str, pods: Pods) -> Result<()> {
    let labels = match pods {
        Pods::Succeed => json!({}),
        Pods::Fail => json!({"simulate": "failure"}),
        Pods::Hang { .. } => json!({"simulate": "hang"}),
    };
    let deadline = if let Pods::Hang { seconds } = pods { seconds } else { 600 };
    let cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": {"name": "hook", "namespace": namespace, "annotations": {"rampart.dev/key-hook": "true"}},
        "spec": {"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {
            "backoffLimit": 0, "activeDeadlineSeconds": deadline,
            "template": {
                "metadata": {"labels": labels},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example.com/hook:1"}]},
            },
        }}},
    });
    fixtures::apply(client, &cron).await.map(drop)
}

/// A key with version 1, whose hook at a step does that, and a rotation that is asked for.
async fn rotating(env: &Env, step: &str, pods: Pods, overlap: &str) -> Result<(Client, String, Api<Secret>)> {
    let (client, namespace, secrets) = issued(env).await?;
    hook(&client, &namespace, pods).await?;
    let rotation = json!({"policy": "Manual", "overlap": overlap});
    let changed = json!({"spec": {"hooks": {step: {"cronJobName": "hook"}}, "rotation": rotation}});
    merge(&client, &namespace, changed).await?;
    request(&client, &namespace).await?;
    Ok((client, namespace, secrets))
}

/// Waits until a hook has failed once; it is repeated in an hour.
async fn failed(client: &Client, namespace: &str, reason: &str) -> Result<ApiKeyStatus> {
    let after = status(client, namespace, "the hook to have failed", |it| it.failed_attempts == Some(1)).await?;
    let retry = after.retry_at.clone().context("a time for the next try")?.0;
    let minutes = retry.duration_since(jiff::Timestamp::now()).as_mins();
    ensure!((55..=60).contains(&minutes), "the next try is in {minutes} minutes");
    condition(client, namespace, "Rotating", ("False", reason)).await?;
    condition(client, namespace, "Ready", ("True", "Ready")).await?;
    Ok(after)
}

/// Why a Job failed.
async fn job_failed(client: &Client, namespace: &str, name: &str, reason: &str) -> Result<()> {
    let job = Api::<Job>::namespaced(client.clone(), namespace).get(name).await?;
    let conditions = job.status.and_then(|status| status.conditions).unwrap_or_default();
    let failed = conditions.iter().find(|it| it.type_ == "Failed" && it.status == "True").context("a failure")?;
    Ok(ensure!(failed.reason.as_deref() == Some(reason), "{name} failed because of {:?}", failed.reason))
}

/// Lets the time pass that a status waits for: it is what the machine remembers.
async fn later(client: &Client, namespace: &str, change: impl Fn(&mut ApiKeyStatus)) -> Result<()> {
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
    wait::until("the status to be changed", wait::SOON, || async {
        let mut key = keys.get("orders").await?;
        change(key.status.get_or_insert_default());
        Ok(keys.replace_status("orders", &PostParams::default(), &key).await?)
    })
    .await?;
    look(client, namespace).await
}

fn retried(status: &mut ApiKeyStatus) {
    status.retry_at = Some(now());
}

fn now() -> Time {
    Time(fixtures::this_second())
}

fn version(status: &ApiKeyStatus, n: i64) -> Result<&VersionStatus> {
    status.versions.iter().find(|version| version.n == n).with_context(|| format!("version {n}"))
}

async fn record(client: &Client, namespace: &str, n: i64) -> Result<KeyRecord> {
    records(client, namespace).await?.remove(&n).with_context(|| format!("record {n}"))
}

async fn rotated(client: &Client, namespace: &str) -> Result<ApiKeyStatus> {
    let after = status(client, namespace, "version 2", |it| {
        it.current_version == Some(2) && it.next_version.is_none() && it.failed_attempts.is_none()
    })
    .await?;
    stories::told(client, namespace, "RotationCompleted", "version 2 has replaced").await?;
    Ok(after)
}

async fn before_a_version(env: Env) -> Result<()> {
    let (client, namespace, secrets) = rotating(&env, "preRotate", Pods::Fail, "720h").await?;
    let before = secrets.get("orders-key").await?;
    let after = failed(&client, &namespace, "HookFailed").await?;
    ensure!(after.current_version == Some(1) && after.next_version == Some(2), "{after:?}");
    let key = Api::<ApiKey>::namespaced(client.clone(), &namespace).get("orders").await?;
    let uid = key.metadata.uid.context("a UID")?;
    job_failed(&client, &namespace, &format!("orders-v2-{}-pre", &uid[..8]), "BackoffLimitExceeded").await?;
    stories::told(&client, &namespace, "RotationFailed", "the hook before the new version failed").await?;
    ensure!(secrets.get_opt("orders-v2").await?.is_none(), "half a version was made");
    ensure!(!records(&client, &namespace).await?.contains_key(&2), "verifiers were told of it");

    hook(&client, &namespace, Pods::Succeed).await?;
    later(&client, &namespace, retried).await?;
    rotated(&client, &namespace).await?;
    let consumer = secrets.get("orders-key").await?;
    ensure!(text(&consumer, "API_KEY_PREVIOUS") == text(&before, "API_KEY"), "the old key was lost");
    Ok(())
}

async fn test_that_hangs(env: Env) -> Result<()> {
    let (client, namespace, secrets) = rotating(&env, "test", Pods::Hang { seconds: 1 }, "720h").await?;
    let before = secrets.get("orders-key").await?;
    let after = failed(&client, &namespace, "TestFailed").await?;
    ensure!(after.current_version == Some(1) && after.next_version == Some(2), "{after:?}");
    ensure!(secrets.get("orders-key").await?.data == before.data, "an untested key was handed out");
    let made = secrets.get("orders-v2").await?;
    let id = text(&made, "id").context("an id")?;
    job_failed(&client, &namespace, &format!("orders-v2-{id}-test"), "DeadlineExceeded").await?;
    stories::told(&client, &namespace, "RotationFailed", "the test of the new version failed").await?;
    ensure!(record(&client, &namespace, 1).await?.spec.state == RecordState::Active, "the key in use was touched");

    hook(&client, &namespace, Pods::Succeed).await?;
    later(&client, &namespace, retried).await?;
    let after = rotated(&client, &namespace).await?;
    ensure!(version(&after, 2)?.id == id && after.versions.len() == 2, "another key was made: {after:?}");
    ensure!(
        text(&secrets.get("orders-key").await?, "API_KEY") == text(&made, "key"),
        "it is not the key that was tested"
    );
    Ok(())
}

async fn after_the_promotion(env: Env) -> Result<()> {
    let (client, namespace, secrets) = rotating(&env, "postPromote", Pods::Fail, "2s").await?;
    let after = failed(&client, &namespace, "HookFailed").await?;
    ensure!(after.current_version == Some(2) && after.next_version == Some(2), "{after:?}");
    let id = version(&after, 2)?.id.clone();
    job_failed(&client, &namespace, &format!("orders-v2-{id}-post"), "BackoffLimitExceeded").await?;
    stories::told(&client, &namespace, "RotationFailed", "the hook after the promotion failed").await?;
    // The old key ends in time all the same.
    status(&client, &namespace, "version 1 to be destroyed", |it| {
        version(it, 1).is_ok_and(|first| first.state == VersionState::Destroyed)
    })
    .await?;
    let consumer = secrets.get("orders-key").await?;
    ensure!(text(&consumer, "API_KEY_ID").as_deref() == Some(&id), "the promotion was taken back");

    hook(&client, &namespace, Pods::Succeed).await?;
    later(&client, &namespace, retried).await?;
    rotated(&client, &namespace).await?;
    Ok(())
}

async fn before_the_end(env: Env) -> Result<()> {
    let (client, namespace, secrets) = rotating(&env, "destroy", Pods::Hang { seconds: 1 }, "2s").await?;
    let far = |it: &ApiKeyStatus| {
        let end = version(it, 1).ok().and_then(|first| first.destroy_at.as_ref()).map(|end| end.0);
        end.is_some_and(|end| end.duration_since(jiff::Timestamp::now()).as_mins() >= 55)
    };
    let after = status(&client, &namespace, "the end of version 1 to be put off", far).await?;
    ensure!(version(&after, 1)?.state == VersionState::Deprecated, "{after:?}");
    stories::told(&client, &namespace, "RotationFailed", "the hook before the end of version 1 failed").await?;
    condition(&client, &namespace, "Ready", ("True", "Ready")).await?;
    let old = secrets.get("orders-v1").await?;
    wait::until("consumers to have the old key, and verifiers", wait::SOON, || async {
        let previous = text(&secrets.get("orders-key").await?, "API_KEY_PREVIOUS");
        ensure!(previous.is_some() && previous == text(&old, "key"), "consumers lost it");
        let spec = record(&client, &namespace, 1).await?.spec;
        Ok(ensure!(spec.state == RecordState::Deprecated && spec.digest.is_some(), "{spec:?}"))
    })
    .await?;

    hook(&client, &namespace, Pods::Succeed).await?;
    later(&client, &namespace, |status| {
        let first = status.versions.iter_mut().find(|version| version.n == 1);
        if let Some(first) = first.filter(|first| first.state == VersionState::Deprecated) {
            first.destroy_at = Some(now());
        }
    })
    .await?;
    status(&client, &namespace, "version 1 to be destroyed", |it| {
        version(it, 1).is_ok_and(|first| first.state == VersionState::Destroyed)
    })
    .await?;
    ensure!(secrets.get_opt("orders-v1").await?.is_none(), "the Secret of a destroyed version is left");
    ensure!(text(&secrets.get("orders-key").await?, "API_KEY_PREVIOUS").is_none(), "consumers have a dead key");
    ensure!(record(&client, &namespace, 1).await?.spec.digest.is_none(), "its record is no tombstone");
    stories::told(&client, &namespace, "KeyDestroyed", "version 1").await
}
