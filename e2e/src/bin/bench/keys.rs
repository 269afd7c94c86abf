//! The operator with 10,000 ApiKeys. `BENCH_KEYS` makes them fewer, `BENCH_REST_MINUTES` shortens the rest.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::TryStreamExt as _;
use k8s_openapi::api::{batch::v1::Job, core::v1::Secret, events::v1::Event};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use rampart::{
    api::{ApiKey, KeyRecord, condition},
    keys::{Caps, JobStep, KeyJob, Spec, selftest_job},
};
use rampart_e2e::{
    ControlPlane, Operator, Options, fixtures,
    metrics::value_of,
    operator::{Ports, USER},
    stories,
};
use serde_json::{Value, json};

use super::{
    figure, number_of,
    process::settled_memory,
    stage::{Stage, all_ready, each, silence, start, writes},
};

const NAMESPACES: usize = 100;
/// Whose ApiKeys the operator looks after.
const GROUP: &str = "operator";
/// How often the operator writes the status of a key that it issues: what it is about to make, that it waits for the test,
/// and what came of it.
const STATUSES: usize = 3;
/// The events of a key that is issued.
const EVENTS: [(&str, &str); 2] = [
    ("KeyDistributed", "version 1 with id aaaaaaaa is in force at 0 verifiers"),
    ("KeyIssued", "version 1 with id aaaaaaaa is current"),
];

/// Runs the operator beside one client on a real control plane.
pub(super) async fn bench() -> Result<bool> {
    let keys = number_of("BENCH_KEYS", 10_000);
    // Controllers would be busy with what others make meanwhile.
    let (mut stage, _) = Stage::set(&Options { controllers: false, ..Options::default() }, &[]).await?;
    let client = stage.plane.client();
    // It ends with the process.
    tokio::spawn(end_jobs(client.clone()));
    for group in ["before", "operator", "after"] {
        for nth in 0..NAMESPACES {
            fixtures::namespace(&client, &format!("{group}-{nth}"), json!({"group": group})).await?;
        }
    }
    // Neither sees what the other does.
    let ports = silence(&client, stage.operator).await?;
    let first = write(&client, &stage.peer, "before", keys).await?;
    create(&client, GROUP, keys).await?;
    let (operated, operator) = operate(&stage.plane, &stage.kubeconfig, ports, keys).await?;
    let ports = operator.kill()?;
    let last = write(&client, &stage.peer, "after", keys).await?;
    stage.operator = start(&stage.plane, &stage.kubeconfig, ports, &[]).await?;
    let mean = f64::midpoint(first.as_secs_f64(), last.as_secs_f64());
    println!(
        "{keys} ApiKeys: operator {:.1} s; one client {:.1} s before and {:.1} s after",
        operated.as_secs_f64(),
        first.as_secs_f64(),
        last.as_secs_f64()
    );
    let mut good = figure("operator against one client, ApiKeys", operated.as_secs_f64() / mean, 1.5, "times");
    println!("resident memory with {keys} ApiKeys: {:.1} MiB", settled_memory(stage.operator.pid()).await?);
    let minutes = u64::try_from(number_of("BENCH_REST_MINUTES", 10))?;
    let start = writes(&stage.plane)?;
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    let rest = f64::from(u32::try_from(writes(&stage.plane)? - start)?);
    good &= figure(&format!("writes over {minutes} min of rest, the Lease aside"), rest, 0.0, "writes");
    Ok(good)
}

fn namespace(group: &str, nth: usize) -> String {
    format!("{group}-{}", nth % NAMESPACES)
}

fn name(nth: usize) -> String {
    format!("key-{nth}")
}

/// Stands for the controller of Jobs and a node: each test of a key ends well at once, whoever made its Job.
async fn end_jobs(client: Client) -> Result<()> {
    let jobs = watcher(Api::<Job>::all(client.clone()), watcher::Config::default()).default_backoff().applied_objects();
    jobs.try_for_each_concurrent(16, |job| {
        let api: Api<Job> = Api::namespaced(client.clone(), &job.namespace().unwrap_or_default());
        async move {
            if job.status.as_ref().is_some_and(|status| status.conditions.is_some()) {
                return Ok(());
            }
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
            let status = json!({
                "startTime": now, "completionTime": now, "succeeded": 1,
                "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
            });
            let (name, params) = (job.name_any(), PatchParams::default());
            // It may be gone meanwhile.
            drop(api.patch_status(&name, &params, &Patch::Merge(json!({"status": status}))).await);
            Ok(())
        }
    })
    .await?;
    Ok(())
}

fn api_key(group: &str, nth: usize) -> Value {
    let mut key = stories::api_key(&namespace(group, nth));
    key["metadata"]["name"] = json!(name(nth));
    key["spec"]["secret"]["name"] = json!(format!("{}-current", name(nth)));
    key
}

/// Makes the ApiKeys of a group.
async fn create(client: &Client, group: &str, keys: usize) -> Result<()> {
    each(keys, |nth| async move {
        let key = api_key(group, nth);
        let api: Api<ApiKey> = Api::namespaced(client.clone(), &namespace(group, nth));
        api.patch(&name(nth), &PatchParams::apply("bench"), &Patch::Apply(&key)).await?;
        Ok(())
    })
    .await
}

/// A Secret like the operator's.
fn secret(name: &str, entries: &[(&str, usize)]) -> Result<Secret> {
    let data: BTreeMap<&str, String> = entries.iter().map(|(entry, size)| (*entry, "x".repeat(*size))).collect();
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "bench",
            "rampart.dev/owner-kind": "ApiKey", "rampart.dev/owner-name": name}},
        "type": "Opaque", "stringData": data,
    }))?)
}

/// The Job that the operator makes.
fn job(group: &str, nth: usize, id: &str) -> Result<Job> {
    let key = api_key(group, nth);
    let spec = Spec::parse(&serde_json::from_value(key)?, &Caps::default())?;
    let job = KeyJob { step: JobStep::Test, n: 1, id: id.into(), attempt: 0 };
    Ok(selftest_job(&spec, &job, ("rampart", None), [("app.kubernetes.io/managed-by".into(), "bench".into())].into()))
}

/// An event like the operator's.
fn event(namespace: &str, key: &str, reason: &str, note: &str) -> Result<Event> {
    let now = jiff::Timestamp::now().to_string();
    Ok(serde_json::from_value(json!({
        "metadata": {"name": format!("{key}.{}", reason.to_lowercase()), "namespace": namespace},
        "type": "Normal", "reason": reason, "note": note, "action": "Reconcile", "eventTime": now,
        "reportingController": "rampart", "reportingInstance": "bench",
        "regarding": {"apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "name": key, "namespace": namespace},
    }))?)
}

/// What one client needs for the writes that the operator makes. Nothing is left of them.
async fn write(client: &Client, peer: &Client, group: &str, keys: usize) -> Result<Duration> {
    create(client, group, keys).await?;
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": kind, "message": "", "observedGeneration": 1,
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let conditions = ["Accepted", "Ready", "VerifiersSynced", "Programmed"].map(condition);
    let record = |nth: usize, id: &str| {
        json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "KeyRecord",
            "metadata": {"name": id, "labels": {"app.kubernetes.io/managed-by": "bench",
                "rampart.dev/owner-kind": "ApiKey", "rampart.dev/owner-name": name(nth)}},
            "spec": {"apiKey": {"namespace": namespace(group, nth), "name": name(nth), "version": 1},
                "digest": format!("sha256:{}", "0".repeat(64)), "owner": {"customerId": "shop"}, "role": "Viewer",
                "verbs": ["Read"], "audiences": ["orders-api"], "state": "Active",
                "limits": {"perSecond": 10, "burst": 20, "perMinute": 100, "perHour": 1000, "perDay": 10000},
                "expiresAt": "2100-01-01T00:00:00Z"}})
    };
    let status = |nth: usize, step: usize| -> Value {
        json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": name(nth)},
            "status": {"observedGeneration": 1, "conditions": conditions, "currentVersion": step,
                "versions": [{"id": format!("{nth:08}"), "n": 1, "state": "Current",
                    "createdAt": "2026-01-01T00:00:00Z", "expiresAt": "2027-01-01T00:00:00Z"}]}})
    };
    let (record, status) = (&record, &status);
    let began = Instant::now();
    let writing = each(keys, |nth| async move {
        let (post, apply) = (PostParams::default(), PatchParams::apply("bench-peer").force());
        let namespace = namespace(group, nth);
        let secrets: Api<Secret> = Api::namespaced(peer.clone(), &namespace);
        secrets
            .create(&post, &secret(&format!("{}-v1", name(nth)), &[("key", 69), ("id", 8), ("digest", 71)])?)
            .await?;
        let records: Api<KeyRecord> = Api::namespaced(peer.clone(), "rampart-keys");
        let id = format!("{}{nth:07}", &group[..1]);
        records.create(&post, &serde_json::from_value(record(nth, &id))?).await?;
        let jobs: Api<Job> = Api::namespaced(peer.clone(), &namespace);
        jobs.create(&post, &job(group, nth, &id)?).await?;
        let consumer = format!("{}-current", name(nth));
        secrets.create(&post, &secret(&consumer, &[("API_KEY", 69), ("API_KEY_ID", 8)])?).await?;
        let owners: Api<ApiKey> = Api::namespaced(peer.clone(), &namespace);
        for step in 1..=STATUSES {
            owners.patch_status(&name(nth), &apply, &Patch::Apply(&status(nth, step))).await?;
        }
        let events: Api<Event> = Api::namespaced(peer.clone(), &namespace);
        for (reason, note) in EVENTS {
            events.create(&post, &event(&namespace, &name(nth), reason, note)?).await?;
        }
        Ok(())
    });
    // Watched as the operator is: that costs the API server time.
    let prefix = format!("{group}-");
    tokio::try_join!(writing, all_ready(client, &prefix, keys, is_ready))?;
    let took = began.elapsed();
    remove(client, group).await?;
    Ok(took)
}

fn is_ready(key: &ApiKey) -> bool {
    key.status.as_ref().is_some_and(|it| condition::is_true(&it.conditions, condition::Type::Ready))
}

/// What the operator needs, from the start of its process, for keys that are asked for.
async fn operate(plane: &ControlPlane, kubeconfig: &Path, ports: Ports, keys: usize) -> Result<(Duration, Operator)> {
    let client = plane.client();
    let before = plane.audit().counts_of(USER)?;
    let began = Instant::now();
    let operator = Operator::start(plane.dir(), kubeconfig, ports, &[])?;
    all_ready(&client, "operator-", keys, is_ready).await?;
    let took = began.elapsed();
    let (_, metrics) = operator.admin("/metrics").await?;
    let visits = |result| {
        value_of(&metrics, &format!("controller_runtime_reconcile_total{{controller=\"apikey\",result=\"{result}\"}}"))
            .unwrap_or(0_u64)
    };
    let outcomes = ["success", "requeue_after", "error"].map(|result| (result, visits(result)));
    println!("  the operator looked at ApiKeys: {outcomes:?}");
    for (what, count) in plane.audit().counts_of(USER)? {
        let count = count - before.get(&what).copied().unwrap_or_default();
        if count > 0 {
            println!("  the operator: {what} {count}");
        }
    }
    Ok((took, operator))
}

/// Removes what a client made in the place of the operator.
async fn remove(client: &Client, group: &str) -> Result<()> {
    let (params, all) = (DeleteParams::default(), ListParams::default());
    for nth in 0..NAMESPACES {
        let namespace = namespace(group, nth);
        Api::<ApiKey>::namespaced(client.clone(), &namespace).delete_collection(&params, &all).await?;
        Api::<Secret>::namespaced(client.clone(), &namespace).delete_collection(&params, &all).await?;
        Api::<Job>::namespaced(client.clone(), &namespace).delete_collection(&params, &all).await?;
        Api::<Event>::namespaced(client.clone(), &namespace).delete_collection(&params, &all).await?;
    }
    let peers = ListParams::default().labels("app.kubernetes.io/managed-by=bench");
    Api::<KeyRecord>::namespaced(client.clone(), "rampart-keys").delete_collection(&params, &peers).await?;
    Ok(())
}
