//! ApiKey: workloads that are restarted when it has changed, besides Deployments; late ones.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::{Pod, Secret},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use rampart::api::{ApiKey, ApiKeyStatus, RecordState, VersionState};
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{
    Env, Tests,
    key_hooks::{Pods, hook},
    key_life::{condition, deployment, look, merge, request},
    keys::{records, status, text},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("key_consumers::stateful_and_daemon_sets_are_restarted_once_a_version", sets_are_restarted_once);
    tests.add("key_consumers::a_roll_out_that_is_late_is_told_and_the_old_key_stays", late_roll_out_is_told);
    tests.add("key_consumers::keys_that_change_together_restart_a_workload_once", restarted_once_for_both);
}

/// Kind, name, and how many pods it has: a DaemonSet one on each of the two simulated nodes.
const SETS: [(&str, &str, usize); 2] = [("StatefulSet", "db", 2), ("DaemonSet", "agent", 2)];

fn set(namespace: &str, kind: &str, name: &str) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace,
                     "annotations": {"rampart.dev/restart-on-rotation": "true"}},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                         "spec": {"containers": [{"name": "main", "image": "registry.example.com/main:1"}]}},
        },
    });
    if kind == "StatefulSet" {
        set["spec"]["replicas"] = json!(2);
        set["spec"]["serviceName"] = json!(name);
    }
    set
}

fn targets(wait_timeout: &str) -> Value {
    SETS.map(|(kind, name, _)| json!({"kind": kind, "name": name, "waitTimeout": wait_timeout})).to_vec().into()
}

/// A key whose change restarts both, which run its first version.
async fn consumed(env: &Env) -> Result<(Client, String)> {
    let (client, namespace) = env.namespace().await?;
    for (kind, name, _) in SETS {
        fixtures::apply(&client, &set(&namespace, kind, name)).await?;
    }
    let mut key = stories::api_key(&namespace);
    key["spec"]["restartTargets"] = targets("10m");
    fixtures::apply(&client, &key).await?;
    run(&client, &namespace, 1).await?;
    Ok((client, namespace))
}

/// Whether status says that both run a version.
fn are_updated(status: &ApiKeyStatus, n: i64) -> bool {
    let ready = status.consumers.iter().filter(|one| one.ready && one.version == Some(n) && one.message.is_none());
    ready.map(|one| &one.workload).eq(&SETS.map(|(kind, name, _)| format!("{kind}/{name}")))
}

async fn run(client: &Client, namespace: &str, n: i64) -> Result<ApiKeyStatus> {
    let what = format!("both to run version {n}");
    let after = status(client, namespace, &what, |it| are_updated(it, n) && it.next_version.is_none()).await?;
    condition(client, namespace, "ConsumersUpdated", ("True", "Updated")).await?;
    Ok(after)
}

/// How often its spec was changed, the making included.
async fn generation(client: &Client, namespace: &str, kind: &str, name: &str) -> Result<i64> {
    let api = fixtures::api_of(client, &set(namespace, kind, name)).await?;
    api.get(name).await?.metadata.generation.context("a generation")
}

async fn sets_are_restarted_once(env: Env) -> Result<()> {
    let (client, namespace) = consumed(&env).await?;
    let (pods, revisions): (Api<Pod>, Api<ControllerRevision>) =
        (Api::namespaced(client.clone(), &namespace), Api::namespaced(client.clone(), &namespace));
    for n in [1, 2] {
        let after = run(&client, &namespace, n).await?;
        let id = &after.versions.last().context("a version")?.id;
        for (kind, name, count) in SETS {
            let of = ListParams::default().labels(&format!("app={name}"));
            let live = pods.list(&of).await?.items;
            let live: Vec<&Pod> = live.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
            ensure!(live.len() == count, "{} pods of {name}", live.len());
            for pod in live {
                let version = pod.annotations().get("rampart.dev/key-version-orders");
                ensure!(version == Some(&format!("{n}-{id}")), "{} runs {version:?}", pod.name_any());
            }
            // Made, and changed once a version; so its controller says, too.
            ensure!(generation(&client, &namespace, kind, name).await? == 1 + n, "{name} was restarted again");
            let rolled = revisions.list(&of).await?.items.len();
            ensure!(i64::try_from(rolled)? <= 1 + n, "{rolled} roll-outs of {name}");
        }
        if n == 1 {
            request(&client, &namespace).await?;
        }
    }
    Ok(())
}

/// Pods count as available only after so many seconds.
async fn available_after(client: &Client, namespace: &str, seconds: i32) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"minReadySeconds": seconds}}));
    for (kind, name, _) in SETS {
        let api = fixtures::api_of(client, &set(namespace, kind, name)).await?;
        api.patch(name, &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

async fn late_roll_out_is_told(env: Env) -> Result<()> {
    let (client, namespace) = consumed(&env).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let old = secrets.get("orders-v1").await?;
    merge(&client, &namespace, json!({"spec": {"restartTargets": targets("2s")}})).await?;
    available_after(&client, &namespace, 3600).await?;
    request(&client, &namespace).await?;
    condition(&client, &namespace, "ConsumersUpdated", ("False", "TimedOut")).await?;
    let late = |it: &ApiKeyStatus| {
        let said =
            |message: &Option<String>| message.as_deref().unwrap_or_default().starts_with("not complete within 2s: ");
        it.consumers.iter().filter(|one| !one.ready && one.version == Some(2) && said(&one.message)).count()
    };
    // The rotation itself is done, and nothing is taken from those who still run the old version.
    let after = status(&client, &namespace, "both to be late", |it| {
        late(it) == SETS.len() && it.current_version == Some(2) && it.next_version.is_none()
    })
    .await?;
    let first = after.versions.iter().find(|version| version.n == 1).context("version 1")?;
    ensure!(first.state == VersionState::Deprecated && first.destroy_at.is_some(), "{first:?}");
    condition(&client, &namespace, "Ready", ("True", "Ready")).await?;
    ensure!(secrets.get("orders-v1").await?.data == old.data, "the old version's Secret changed");
    let consumer = secrets.get("orders-key").await?;
    ensure!(text(&consumer, "API_KEY_PREVIOUS") == text(&old, "key"), "consumers can't fall back to the old key");
    let record = records(&client, &namespace).await?.remove(&1).context("record 1")?.spec;
    ensure!(record.state == RecordState::Deprecated && record.digest.is_some(), "verifiers refuse the old key");

    available_after(&client, &namespace, 0).await?;
    // Late ones are looked at once a minute.
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    wait::until("a look that finds them updated", wait::SOON, || async {
        look(&client, &namespace).await?;
        let it = keys.get("orders").await?.status.unwrap_or_default();
        Ok(ensure!(are_updated(&it, 2), "{:?}", it.consumers))
    })
    .await?;
    condition(&client, &namespace, "ConsumersUpdated", ("True", "Updated")).await?;
    for (kind, name, _) in SETS {
        // Made, restarted for each of two versions, and changed twice by this test.
        ensure!(generation(&client, &namespace, kind, name).await? == 5, "{name} was restarted again");
    }
    Ok(())
}

/// Waits until a key says that `web` runs its version `n`.
async fn web_runs(client: &Client, namespace: &str, key: &str, n: i64) -> Result<ApiKeyStatus> {
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("web to run version {n} of {key}"), wait::SOON, || async {
        let status = keys.get(key).await?.status.unwrap_or_default();
        let runs = status.consumers.iter().any(|web| web.ready && web.version == Some(n));
        ensure!(runs && status.current_version == Some(n) && status.next_version.is_none(), "{status:?}");
        Ok(status)
    })
    .await
}

async fn restarted_once_for_both(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    fixtures::apply(&client, &deployment(&namespace, "web", true)).await?;
    hook(&client, &namespace, Pods::Succeed).await?;
    for name in ["orders", "billing"] {
        let mut key = stories::api_key(&namespace);
        (key["metadata"]["name"], key["spec"]["secret"]["name"]) = (json!(name), json!(format!("{name}-key")));
        key["spec"]["restartTargets"] = json!([{"kind": "Deployment", "name": "web"}]);
        if name == "billing" {
            key["spec"]["hooks"] = json!({"test": {"cronJobName": "hook"}});
        }
        fixtures::apply(&client, &key).await?;
    }
    web_runs(&client, &namespace, "orders", 1).await?;
    web_runs(&client, &namespace, "billing", 1).await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let before = deployments.get("web").await?.metadata.generation.context("a generation")?;

    // The test of one takes until this test ends it; the other is handed out meanwhile.
    hook(&client, &namespace, Pods::Hang { seconds: 600 }).await?;
    let now = fixtures::this_second();
    let ask = Patch::Merge(json!({"spec": {"rotation": {"requestedAt": now.to_string()}}}));
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    keys.patch("billing", &PatchParams::default(), &ask).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let testing = wait::until("the test to run", wait::SOON, || async {
        let all = pods.list(&ListParams::default().labels("simulate=hang")).await?.items;
        let runs = |pod: &&Pod| pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running");
        Ok(all.iter().find(runs).context("no running pod")?.name_any())
    })
    .await?;
    request(&client, &namespace).await?;
    let waits = |it: &ApiKeyStatus| {
        let web = it.consumers.first();
        it.current_version == Some(2) && web.is_some_and(|web| !web.ready && web.version == Some(1))
    };
    status(&client, &namespace, "orders to wait for the restart", waits).await?;
    condition(&client, &namespace, "ConsumersUpdated", ("False", "RollingOut")).await?;

    let done = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status(&testing, &PatchParams::default(), &done).await?;
    let annotations = || async {
        let web = deployments.get("web").await?;
        let annotations = web.spec.template.metadata.and_then(|metadata| metadata.annotations).unwrap_or_default();
        anyhow::Ok((web.metadata.generation, annotations))
    };
    for name in ["orders", "billing"] {
        let after = web_runs(&client, &namespace, name, 2).await?;
        let id = &after.versions.last().context("a version")?.id;
        let (_, annotations) = annotations().await?;
        let version = annotations.get(&format!("rampart.dev/key-version-{name}"));
        ensure!(version == Some(&format!("2-{id}")), "{annotations:?}");
    }
    let (generation, _) = annotations().await?;
    ensure!(generation == Some(before + 1), "generation {generation:?}, and {before} before both changed");
    Ok(())
}
