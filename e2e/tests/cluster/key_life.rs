//! ApiKey: revoked, suspended, acknowledged by verifiers, brought to its consumers, with hooks.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{Pod, Secret},
    events::v1::Event,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use rampart::api::{ApiKey, KeyRecord, RecordState, VerifierCounts, VersionState};
use rampart_e2e::{
    ControlPlane, Operator, Options, fixtures,
    operator::{Ports, kubeconfig},
    stories, wait,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    Env, Tests,
    keys::{issued, records, status, text},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("key_life::a_revoked_key_ends_for_good_wherever_it_is_put_back", revoked_key_ends_for_good);
    tests.add("key_life::a_revocation_waits_for_no_other_key", revocation_waits_for_none);
    tests.add("key_life::a_key_that_is_revoked_while_it_is_deleted_ends_at_once", revoked_while_it_is_deleted);
    tests.add("key_life::a_suspended_key_is_refused_and_comes_back", suspended_key_comes_back);
    tests.add("key_life::a_demoted_key_is_demoted_at_once", demoted_key);
    tests.add("key_life::nothing_is_handed_out_before_every_verifier_has_it", verifiers_are_waited_for);
    tests.add("key_life::workloads_are_restarted_once_a_version", workloads_are_restarted_once);
    tests.add("key_life::a_retained_key_outlives_its_resource_and_is_adopted_again", retained_key_lives_on);
    tests.add("key_life::an_end_that_nothing_prevents_is_told_of", end_is_told_of);
    tests.add("key_life::hooks_are_jobs_of_suspended_cron_jobs", hooks_are_jobs);
}

pub(crate) async fn merge(client: &Client, namespace: &str, patch: Value) -> Result<ApiKey> {
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
    Ok(keys.patch("orders", &PatchParams::default(), &Patch::Merge(patch)).await?)
}

pub(crate) async fn request(client: &Client, namespace: &str) -> Result<()> {
    let now = fixtures::this_second();
    merge(client, namespace, json!({"spec": {"rotation": {"requestedAt": now.to_string()}}})).await.map(drop)
}

/// Has the operator look again, at what it does not watch.
pub(crate) async fn look(client: &Client, namespace: &str) -> Result<()> {
    let now = jiff::Timestamp::now().to_string();
    let annotation = json!({"metadata": {"annotations": {"rampart.dev/reconcile-requested-at": now}}});
    merge(client, namespace, annotation).await.map(drop)
}

/// Waits for a condition of the key `orders`: its status and its reason.
pub(crate) async fn condition(client: &Client, namespace: &str, kind: &str, wanted: (&str, &str)) -> Result<()> {
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("{kind} to be {wanted:?}"), wait::SOON, || async {
        let live = serde_json::to_value(keys.get("orders").await?)?;
        let it = stories::condition(&live, kind).context("the condition")?;
        ensure!(it["status"] == wanted.0 && it["reason"] == wanted.1, "{it}");
        Ok(())
    })
    .await
    .with_context(|| format!("in namespace {namespace}"))
}

/// One visit at a time, and many others that have to be made when the operator starts.
async fn revocation_waits_for_none(_: Env) -> Result<()> {
    const MANY: usize = 150;
    let plane = ControlPlane::start(&Options::default()).await?;
    let (client, namespace, ports) = (plane.client(), "queue", Ports::claim()?);
    fixtures::install(&client, &ports.webhook_url()).await?;
    let config = kubeconfig(&plane, plane.server()).await?;
    let webhook = Operator::start_part("webhook", plane.dir(), &config, ports, &[])?;
    webhook.ready().await?;
    let flags = ["--concurrency=1"];
    let operator = Operator::start_part("controller", plane.dir(), &config, Ports::claim()?, &flags)?;
    fixtures::namespace(&client, namespace, json!({})).await?;
    fixtures::apply(&client, &stories::api_key(namespace)).await?;
    stories::ready::<ApiKey>(&client, namespace, "orders").await.with_context(|| operator.log_tail())?;
    let consumer = Api::<Secret>::namespaced(client.clone(), namespace).get("orders-key").await?;
    let id = text(&consumer, "API_KEY_ID").context("an id")?;

    let ports = operator.kill()?;
    for nth in 0..MANY {
        let mut key = stories::api_key(namespace);
        key["metadata"]["name"] = json!(format!("other-{nth}"));
        key["spec"]["secret"]["name"] = json!(format!("other-{nth}-key"));
        fixtures::apply(&client, &key).await?;
    }
    merge(&client, namespace, json!({"spec": {"revocation": {"reason": "Leaked"}}})).await?;
    let operator = Operator::start_part("controller", plane.dir(), &config, ports, &flags)?;
    let records: Api<KeyRecord> = Api::namespaced(client.clone(), "rampart-keys");
    wait::until("the record to end", wait::SOON, || async {
        Ok(ensure!(records.get(&id).await?.spec.state == RecordState::Revoked, "the key is valid"))
    })
    .await
    .with_context(|| operator.log_tail())?;
    let keys = Api::<ApiKey>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?.items;
    // In its first visit a key is given the number of its first version.
    let is_begun = |key: &ApiKey| {
        key.status.as_ref().is_some_and(|status| status.next_version.is_some() || !status.versions.is_empty())
    };
    let others = keys.iter().filter(|key| key.name_any() != "orders" && is_begun(key)).count();
    ensure!(others < MANY / 4, "{others} others were begun with before");
    operator.stop().await?;
    webhook.stop().await?;
    Ok(())
}

async fn revoked_key_ends_for_good(env: Env) -> Result<()> {
    let (client, namespace, secrets) = issued(&env).await?;
    request(&client, &namespace).await?;
    status(&client, &namespace, "version 2", |it| it.current_version == Some(2) && it.next_version.is_none()).await?;
    let copies = [secrets.get("orders-v1").await?, secrets.get("orders-v2").await?];

    // Also one that is not reconciled.
    merge(&client, &namespace, json!({"spec": {"suspend": true, "revocation": {"reason": "Leaked"}}})).await?;
    let after = status(&client, &namespace, "every version to be revoked", |it| {
        it.versions.iter().all(|version| version.state == VersionState::Revoked) && it.current_version.is_none()
    })
    .await?;
    ensure!(after.versions.len() == 2 && after.next_rotation_time.is_none(), "{after:?}");
    condition(&client, &namespace, "Revoked", ("True", "Revoked")).await?;
    condition(&client, &namespace, "Ready", ("False", "Revoked")).await?;
    let dead = || async {
        let consumer = secrets.get("orders-key").await?;
        ensure!(consumer.data.is_none_or(|data| data.is_empty()), "consumers still have something");
        for version in ["orders-v1", "orders-v2"] {
            ensure!(secrets.get_opt(version).await?.is_none(), "{version} is left");
        }
        for (n, record) in records(&client, &namespace).await? {
            ensure!(record.labels().contains_key("rampart.dev/key-ended"), "record {n} is looked at for ever");
            let spec = record.spec;
            ensure!(spec.state == RecordState::Revoked && spec.digest.is_none(), "record {n} is {spec:?}");
        }
        Ok(())
    };
    dead().await?;

    // Put back by hand.
    for copy in &copies {
        let back = Secret { metadata: metadata_of(copy), ..copy.clone() };
        secrets.create(&PostParams::default(), &back).await?;
    }
    wait::until("what was put back to go", wait::SOON, dead).await?;

    // Copied into another namespace, where an ApiKey of that name is made.
    let (_, other) = env.namespace().await?;
    let there: Api<Secret> = Api::namespaced(client.clone(), &other);
    there.create(&PostParams::default(), &Secret { metadata: metadata_of(&copies[0]), ..copies[0].clone() }).await?;
    fixtures::apply(&client, &stories::api_key(&other)).await?;
    condition(&client, &other, "Accepted", ("False", "AdoptionRefused")).await?;
    ensure!(there.get_opt("orders-key").await?.is_none(), "a revoked key was adopted");

    let back = merge(&client, &namespace, json!({"spec": {"revocation": null}})).await;
    ensure!(back.is_err(), "a revocation was taken back");

    // Made anew after it was deleted, with the old Secret put back: the tombstone stands.
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    keys.delete("orders", &DeleteParams::default()).await?;
    wait::until("the ApiKey to go", wait::SOON, || async { Ok(ensure!(keys.get_opt("orders").await?.is_none())) })
        .await?;
    wait::until("the Secret of consumers to go", wait::SOON, || async {
        Ok(ensure!(secrets.get_opt("orders-key").await?.is_none()))
    })
    .await?;
    secrets.create(&PostParams::default(), &Secret { metadata: metadata_of(&copies[1]), ..copies[1].clone() }).await?;
    fixtures::apply(&client, &stories::api_key(&namespace)).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    let consumer = secrets.get("orders-key").await?;
    for copy in &copies {
        ensure!(text(&consumer, "API_KEY") != text(copy, "key"), "a revoked key came back");
    }
    Ok(())
}

async fn revoked_while_it_is_deleted(env: Env) -> Result<()> {
    let (client, namespace, secrets) = issued(&env).await?;
    merge(&client, &namespace, json!({"metadata": {"finalizers": ["example.com/slow"]}})).await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    keys.delete("orders", &DeleteParams::default()).await?;
    merge(&client, &namespace, json!({"spec": {"revocation": {"reason": "Leaked"}}})).await?;
    let after = status(&client, &namespace, "its version to be revoked", |it| {
        it.current_version.is_none() && it.versions.iter().all(|version| version.state == VersionState::Revoked)
    })
    .await?;
    ensure!(after.versions.len() == 1, "{after:?}");
    record_is(&client, &namespace, 1, |it| it.spec.state == RecordState::Revoked).await?;
    ensure!(secrets.get_opt("orders-v1").await?.is_none(), "its Secret is left");
    let consumer = secrets.get("orders-key").await?;
    ensure!(consumer.data.is_none_or(|data| data.is_empty()), "consumers still have something");

    merge(&client, &namespace, json!({"metadata": {"finalizers": null}})).await?;
    wait::until("the Secret of consumers to go", wait::SOON, || async {
        Ok(ensure!(secrets.get_opt("orders-key").await?.is_none()))
    })
    .await?;
    record_is(&client, &namespace, 1, |it| it.spec.state == RecordState::Revoked).await
}

/// What a copy of an object carries.
fn metadata_of(secret: &Secret) -> ObjectMeta {
    ObjectMeta {
        name: secret.metadata.name.clone(),
        labels: secret.metadata.labels.clone(),
        annotations: secret.metadata.annotations.clone(),
        ..ObjectMeta::default()
    }
}

async fn record_is(client: &Client, namespace: &str, n: i64, holds: impl Fn(&KeyRecord) -> bool) -> Result<()> {
    wait::until(&format!("record {n}"), wait::SOON, || async {
        let record = records(client, namespace).await?.remove(&n).context("a record")?;
        ensure!(holds(&record), "it is {:?}", record.spec);
        Ok(())
    })
    .await
}

async fn suspended_key_comes_back(env: Env) -> Result<()> {
    let (client, namespace, secrets) = issued(&env).await?;
    let before = secrets.get("orders-key").await?;
    merge(&client, &namespace, json!({"spec": {"suspended": true}})).await?;
    record_is(&client, &namespace, 1, |it| it.spec.state == RecordState::Suspended).await?;
    condition(&client, &namespace, "Ready", ("False", "Suspended")).await?;
    request(&client, &namespace).await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    let generation = keys.get("orders").await?.metadata.generation;
    let after =
        status(&client, &namespace, "the request to be seen", |it| it.observed_generation == generation).await?;
    ensure!(after.next_version.is_none() && after.current_version == Some(1), "a suspended key rotates: {after:?}");
    ensure!(secrets.get("orders-key").await?.data == before.data, "consumers lost a key that will come back");

    merge(&client, &namespace, json!({"spec": {"suspended": false}})).await?;
    status(&client, &namespace, "version 2", |it| it.current_version == Some(2) && it.next_version.is_none()).await?;
    record_is(&client, &namespace, 1, |it| it.spec.state == RecordState::Deprecated).await?;
    condition(&client, &namespace, "Ready", ("True", "Ready")).await
}

async fn demoted_key(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let mut key = stories::api_key(&namespace);
    key["spec"]["role"] = json!("Editor");
    fixtures::apply(&client, &key).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    record_is(&client, &namespace, 1, |it| it.spec.role == "Editor" && it.spec.verbs.len() == 2).await?;
    merge(&client, &namespace, json!({"spec": {"role": "Viewer"}})).await?;
    record_is(&client, &namespace, 1, |it| it.spec.role == "Viewer" && it.spec.verbs.len() == 1).await
}

async fn retained_key_lives_on(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let mut key = stories::api_key(&namespace);
    key["spec"]["secret"]["deletionPolicy"] = json!("Retain");
    fixtures::apply(&client, &key).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let before = secrets.get("orders-key").await?;
    // Another one, whose Secrets go: by then the first one's would have gone, too.
    let mut witness = stories::api_key(&namespace);
    (witness["metadata"]["name"], witness["spec"]["secret"]["name"]) = (json!("witness"), json!("witness-key"));
    fixtures::apply(&client, &witness).await?;
    stories::ready::<ApiKey>(&client, &namespace, "witness").await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    for name in ["orders", "witness"] {
        keys.delete(name, &DeleteParams::default()).await?;
    }
    wait::until("the Secrets of the other one to go", wait::SOON, || async {
        for name in ["witness-key", "witness-v1"] {
            ensure!(secrets.get_opt(name).await?.is_none(), "{name} is left");
        }
        Ok(())
    })
    .await?;
    ensure!(secrets.get("orders-v1").await.is_ok(), "a Secret went that was to stay");
    let all: Api<KeyRecord> = Api::namespaced(client.clone(), "rampart-keys");
    let all = all.list(&ListParams::default().labels(&format!("rampart.dev/owner-namespace={namespace}"))).await?;
    let admits = |name: &str| all.items.iter().any(|it| it.spec.api_key.name == name && it.spec.digest.is_some());
    ensure!(admits("orders") && !admits("witness"), "records are {:?}", all.items);
    fixtures::apply(&client, &key).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    ensure!(secrets.get("orders-key").await?.data == before.data, "the key is another one");
    Ok(())
}

async fn end_is_told_of(env: Env) -> Result<()> {
    let (client, namespace, _) = issued(&env).await?;
    let soon = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(100))?;
    merge(&client, &namespace, json!({"spec": {"hardExpiry": soon.to_string()}})).await?;
    condition(&client, &namespace, "Expiring", ("True", "Within7Days")).await?;
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    wait::until("the event", wait::SOON, || async {
        let all = events.list(&ListParams::default()).await?.items;
        let told = all.iter().filter(|event| event.reason.as_deref() == Some("KeyExpiringSoon")).count();
        Ok(ensure!(told == 1, "{told} events"))
    })
    .await
}

/// What a verifier would write.
async fn report(client: &Client, name: &str, revision: &str) -> Result<()> {
    let now = jiff::Timestamp::now().to_string();
    let report = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "VerifierReport",
        "metadata": {"name": name, "namespace": "rampart-keys"},
        "spec": {"revision": revision, "startedAt": "2026-01-01T00:00:00Z", "renewedAt": now, "keys": 1},
    });
    fixtures::apply(client, &report).await.map(drop)
}

/// Writes a report, and renews it as verifiers do, until this is dropped: who is silent for a minute is not waited for.
async fn reporting(client: &Client, name: &'static str, revision: &str) -> Result<JoinSet<()>> {
    report(client, name, revision).await?;
    let (client, revision, mut renewing) = (client.clone(), revision.to_owned(), JoinSet::new());
    renewing.spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let _ = report(&client, name, &revision).await;
        }
    });
    Ok(renewing)
}

async fn verifiers_are_waited_for(_: Env) -> Result<()> {
    // An instance of its own: a verifier is waited for by every key.
    let plane = ControlPlane::start(&Options::default()).await?;
    let operator = Operator::install(&plane, &[]).await?;
    let (client, namespace) = (plane.client(), "acknowledged");
    fixtures::namespace(&client, namespace, json!({})).await?;
    fixtures::ready_for_pods(&client, namespace).await?;
    let first = reporting(&client, "verifier-a", "1").await?;
    let other = reporting(&client, "verifier-b", "1").await?;
    fixtures::apply(&client, &stories::api_key(namespace)).await?;
    let counts = |desired, up_to_date| Some(VerifierCounts { desired, up_to_date });
    let told = |wanted: Option<VerifierCounts>| {
        let client = client.clone();
        async move { status(&client, namespace, &format!("{wanted:?}"), |it| it.verifiers == wanted).await }
    };
    told(counts(2, 0)).await.with_context(|| operator.log_tail())?;
    condition(&client, namespace, "VerifiersSynced", ("False", "Lagging")).await?;
    condition(&client, namespace, "Rotating", ("True", "AwaitingVerifiers")).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let nothing_yet = || async {
        ensure!(secrets.get_opt("orders-key").await?.is_none(), "it was handed out");
        ensure!(jobs.list(&ListParams::default()).await?.items.is_empty(), "it was tested");
        anyhow::Ok(())
    };
    let record = records(&client, namespace).await?.remove(&1).context("a record")?;
    let revision = record.resource_version().context("a resourceVersion")?;
    drop(first);
    let first = reporting(&client, "verifier-a", &revision).await?;
    told(counts(2, 1)).await?;
    nothing_yet().await?;
    drop(other);
    let other = reporting(&client, "verifier-b", &format!("{revision}0")).await?;
    stories::ready::<ApiKey>(&client, namespace, "orders").await?;
    condition(&client, namespace, "VerifiersSynced", ("True", "Synced")).await?;
    told(counts(2, 2)).await?;
    // With nobody there, nobody is waited for.
    drop([first, other]);
    let reports: Api<rampart::api::VerifierReport> = Api::namespaced(client.clone(), "rampart-keys");
    for name in ["verifier-a", "verifier-b"] {
        reports.delete(name, &DeleteParams::default()).await?;
    }
    request(&client, namespace).await?;
    status(&client, namespace, "version 2", |it| it.current_version == Some(2) && it.next_version.is_none()).await?;
    condition(&client, namespace, "VerifiersSynced", ("False", "NoVerifiers")).await
}

pub(crate) fn deployment(namespace: &str, name: &str, opted_in: bool) -> Value {
    let annotations = if opted_in { json!({"rampart.dev/restart-on-rotation": "true"}) } else { json!({}) };
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                         "spec": {"containers": [{"name": "main", "image": "registry.example.com/main:1"}]}},
        },
    })
}

async fn workloads_are_restarted_once(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    for (name, opted_in) in [("web", true), ("other", false)] {
        fixtures::apply(&client, &deployment(&namespace, name, opted_in)).await?;
    }
    let mut key = stories::api_key(&namespace);
    let target = |name: &str| json!({"kind": "Deployment", "name": name});
    key["spec"]["restartTargets"] = json!([target("web")]);
    fixtures::apply(&client, &key).await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    for n in [1, 2] {
        let after = status(&client, &namespace, &format!("web to run version {n}"), |it| {
            it.consumers.iter().any(|web| web.ready && web.version == Some(n)) && it.next_version.is_none()
        })
        .await?;
        condition(&client, &namespace, "ConsumersUpdated", ("True", "Updated")).await?;
        let web = deployments.get("web").await?;
        let id = &after.versions.last().context("a version")?.id;
        let annotations = web.spec.template.metadata.and_then(|metadata| metadata.annotations).unwrap_or_default();
        ensure!(annotations.get("rampart.dev/key-version-orders") == Some(&format!("{n}-{id}")), "{annotations:?}");
        // Made, and changed once a version.
        ensure!(web.metadata.generation == Some(1 + n), "generation {:?}", web.metadata.generation);
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let pods = pods.list(&ListParams::default().labels("app=web")).await?;
        let live = pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        ensure!(live.count() == 1, "the roll-out was not waited for");
        if n == 1 {
            request(&client, &namespace).await?;
        }
    }
    let targets = json!({"spec": {"restartTargets": [target("web"), target("other")]}});
    merge(&client, &namespace, targets).await?;
    condition(&client, &namespace, "ConsumersUpdated", ("False", "NotOptedIn")).await?;
    let targets = json!({"spec": {"restartTargets": [target("web"), target("none")]}});
    merge(&client, &namespace, targets).await?;
    condition(&client, &namespace, "ConsumersUpdated", ("False", "NotFound")).await?;
    ensure!(deployments.get("other").await?.metadata.generation == Some(1), "who did not agree was restarted");
    ensure!(deployments.get("web").await?.metadata.generation == Some(3), "restarted twice for a version");
    Ok(())
}

async fn hooks_are_jobs(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let cron = |annotation: &str, suspend: bool| {
        json!({
            "apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "hook", "namespace": namespace, "annotations": {"rampart.dev/key-hook": annotation}},
            "spec": {"schedule": "0 0 1 1 *", "suspend": suspend, "jobTemplate": {"spec": {"backoffLimit": 1, "template": {
                "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "registry.example.com/hook:1"}]},
            }}}},
        })
    };
    let mut key = stories::api_key(&namespace);
    let hook = json!({"cronJobName": "hook"});
    key["spec"]["hooks"] = json!({"preRotate": hook, "test": hook, "postPromote": hook, "destroy": hook});
    key["spec"]["rotation"] = json!({"policy": "Manual", "overlap": "1s"});
    fixtures::apply(&client, &key).await?;
    condition(&client, &namespace, "Rotating", ("False", "HookNotFound")).await?;
    condition(&client, &namespace, "Stalled", ("True", "HookNotFound")).await?;
    fixtures::apply(&client, &cron("no", true)).await?;
    look(&client, &namespace).await?;
    condition(&client, &namespace, "Rotating", ("False", "HookNotPermitted")).await?;
    fixtures::apply(&client, &cron("true", true)).await?;
    look(&client, &namespace).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    status(&client, &namespace, "the last hook to have run", |it| it.next_version.is_none()).await?;
    request(&client, &namespace).await?;
    let after = status(&client, &namespace, "version 1 to be destroyed", |it| {
        it.next_version.is_none()
            && it.versions.iter().any(|version| version.n == 1 && version.state == VersionState::Destroyed)
    })
    .await?;
    let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
    let jobs = jobs.list(&ListParams::default()).await?.items;
    let ids: Vec<&str> = after.versions.iter().map(|version| version.id.as_str()).collect();
    let uid = Api::<ApiKey>::namespaced(client.clone(), &namespace).get("orders").await?.uid().context("a UID")?;
    let mut wanted: Vec<String> = [1, 2].map(|n| format!("orders-v{n}-{}-pre", &uid[..8])).into();
    for (n, id) in [(1, ids[0]), (2, ids[1])] {
        wanted.extend(["post", "test"].map(|step| format!("orders-v{n}-{id}-{step}")));
    }
    let (destroyed, mut names): (Vec<String>, Vec<String>) =
        jobs.iter().map(kube::ResourceExt::name_any).partition(|name| name.contains("-destroy"));
    names.sort();
    wanted.sort();
    ensure!(names == wanted, "Jobs are {names:?}");
    let first = format!("orders-v1-{}-destroy", ids[0]);
    ensure!(destroyed.len() == 1 && destroyed.iter().all(|name| name.starts_with(&first)), "{destroyed:?}");
    let test = jobs.iter().find(|job| job.name_any().ends_with("-test")).context("a test")?;
    let of = test.spec.as_ref().context("a spec")?;
    ensure!(of.backoff_limit == Some(1) && of.active_deadline_seconds == Some(600), "{of:?}");
    let pod = of.template.spec.as_ref().context("a pod")?;
    let main = &pod.containers[0];
    ensure!(main.image.as_deref() == Some("registry.example.com/hook:1"));
    ensure!(main.env.iter().flatten().any(|it| it.name == "RAMPART_KEY_ID" && it.value.is_some()), "{:?}", main.env);
    let mounts = main.volume_mounts.iter().flatten();
    ensure!(mounts.filter(|mount| mount.mount_path == "/rampart/key").count() == 1, "{:?}", main.volume_mounts);
    Ok(())
}
