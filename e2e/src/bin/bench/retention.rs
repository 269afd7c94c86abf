//! Retention: a plan over 100,000 objects, and a sweep of 10,000 beside one client. `BENCH_OBJECTS` makes them fewer.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use rampart::api::RetentionPolicy;
use rampart_e2e::{Options, fixtures, operator, stories, wait};
use serde_json::{Value, json};

use super::{
    at_least, figure, number_of,
    process::peak_memory,
    stage::{Stage, each, writes},
};

const FLAGS: [&str; 2] = ["--retention-minimum-grace=1s", "--retention-interval=2s"];

/// Runs the command line and the operator on a real control plane.
pub(super) async fn bench() -> Result<bool> {
    let objects = number_of("BENCH_OBJECTS", 100_000);
    // Controllers would be busy with so many objects meanwhile.
    let (stage, _) = Stage::set(&Options { controllers: false, ..Options::default() }, &FLAGS).await?;
    let client = stage.plane.client();
    let mut good = planning(&stage, &client, objects).await?;
    good &= sweep(&client, objects / 10).await?;
    let start = writes(&stage.plane)?;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let rest = f64::from(u32::try_from(writes(&stage.plane)? - start)?);
    good &= figure("writes over 1 min of rest, the Lease aside", rest, 0.0, "writes");
    Ok(good)
}

/// A namespace with an account that may delete, and objects of which the first `old` are too old.
async fn fill(client: &Client, namespace: &str, old: usize, all: usize) -> Result<()> {
    fixtures::namespace(client, namespace, json!({"rampart.dev/retention": "allowed"})).await?;
    for object in stories::retention_fixtures(namespace, 0, 0)? {
        fixtures::apply(client, &object).await?;
    }
    let [past, present] =
        [stories::retention_fixtures(namespace, 1, 0)?, stories::retention_fixtures(namespace, 0, 1)?]
            .map(|mut objects| objects.pop().unwrap_or_default());
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let (maps, past, present) = (&maps, &past, &present);
    each(all, |nth| async move {
        let mut object: Value = if nth < old { past } else { present }.clone();
        object["metadata"]["name"] = json!(format!("export-{nth}"));
        maps.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    })
    .await
}

fn policy(namespace: &str, mode: &str) -> Value {
    let mut policy = stories::retention_policy(namespace, mode);
    policy["spec"]["safety"]["maxDeletionsPerRun"] = json!(10_000);
    policy["spec"]["safety"]["maxPercentPerRun"] = json!(100);
    policy
}

/// `rampart retention plan`, from the start of the process to its answer: what the operator does at each visit, too.
async fn planning(stage: &Stage, client: &Client, objects: usize) -> Result<bool> {
    let namespace = "planned";
    fill(client, namespace, objects / 2, objects).await?;
    let mut policy = policy(namespace, "DryRun");
    policy["spec"]["suspend"] = json!(true);
    fixtures::apply(client, &policy).await?;
    let kubeconfig = stage.plane.admin_kubeconfig()?;
    let mut took = vec![];
    let mut peak = 0_f64;
    for _ in 0..3 {
        let (seconds, memory) = plan_once(&kubeconfig, namespace, objects)?;
        took.push(seconds);
        peak = peak.max(memory);
    }
    let good = figure(&format!("a plan over {objects} objects, listed and judged"), super::median(took), 2.0, "s");
    Ok(good & figure("its memory at the most", peak, 200.0, "MiB"))
}

fn plan_once(kubeconfig: &Path, namespace: &str, objects: usize) -> Result<(f64, f64)> {
    let mut command = Command::new(operator::binary()?);
    command.args(["retention", "plan", "exports", "-o", "json", "-n", namespace, "--kubeconfig"]).arg(kubeconfig);
    let out = tempfile::NamedTempFile::new()?;
    let began = Instant::now();
    let mut child = command.stdout(Stdio::from(out.reopen()?)).spawn()?;
    let mut peak = 0_f64;
    let status = loop {
        // Gone between two looks is gone.
        peak = peak.max(peak_memory(child.id()).unwrap_or_default());
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let took = began.elapsed().as_secs_f64();
    ensure!(status.code() == Some(1), "it says that nothing would be deleted: {status}");
    let told: Value = serde_json::from_reader(std::fs::File::open(out.path())?)?;
    ensure!(told["listed"] == json!(objects) && told["wouldDelete"] == json!(objects / 2), "{}", told["listed"]);
    Ok((took, peak))
}

/// How often operator and client take turns: what else this machine does comes and goes within minutes.
const TURNS: usize = 6;

/// Deletions of the operator, from the first to the last, between those of one client.
async fn sweep(client: &Client, count: usize) -> Result<bool> {
    let mut clients = vec![one_client(client, 0, count).await?];
    let mut operators = vec![];
    for turn in 1..=TURNS {
        operators.push(operator(client, turn, count).await?);
        clients.push(one_client(client, turn, count).await?);
    }
    let told = |all: &[f64]| all.iter().map(|it| format!("{it:.1} s")).collect::<Vec<_>>().join(", ");
    println!(
        "{count} deletions: operator {}; one client before, between and after {}",
        told(&operators),
        told(&clients)
    );
    // Each turn against what the client took before and after it.
    let beside = clients.windows(2).map(|two| two.iter().sum::<f64>() / 2.0);
    let share = 100.0 * beside.sum::<f64>() / operators.iter().sum::<f64>();
    Ok(at_least("operator against one client, deletions", share, 90.0, "% of its rate"))
}

async fn one_client(client: &Client, turn: usize, count: usize) -> Result<f64> {
    let namespace = format!("client-{turn}");
    fill(client, &namespace, count, count).await?;
    Ok(timed(client, &namespace, count, delete(client, &namespace)).await?.as_secs_f64())
}

async fn operator(client: &Client, turn: usize, count: usize) -> Result<f64> {
    let namespace = format!("swept-{turn}");
    fill(client, &namespace, count, count).await?;
    let asking = async { fixtures::apply(client, &policy(&namespace, "Enforce")).await.map(drop) };
    let took = timed(client, &namespace, count, asking).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    wait::until("none to be left", wait::SOON, || async {
        let left = maps.list(&ListParams::default().labels("data=export")).await?.items;
        Ok(ensure!(left.is_empty(), "{} are left", left.len()))
    })
    .await?;
    // Else it is looked at every two seconds during the turns that follow, which nobody measures here.
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    policies.delete("exports", &DeleteParams::default()).await?;
    Ok(took.as_secs_f64())
}

/// How long the deletions in a namespace take that something leads to: watched in the same way, whoever deletes, since
/// to be watched costs the API server time.
async fn timed(
    client: &Client,
    namespace: &str,
    count: usize,
    deleting: impl Future<Output = Result<()>>,
) -> Result<Duration> {
    let (tx, ready) = tokio::sync::oneshot::channel();
    let seen = tokio::spawn(watch(client.clone(), namespace.to_owned(), tx, count));
    ready.await.context("the watch ended")?;
    deleting.await?;
    tokio::time::timeout(Duration::from_mins(10), seen).await.context("not all went in 10 min")??
}

/// From the first deletion to the last, as they are seen; `ready` is told when nothing can be missed any more.
async fn watch(
    client: Client,
    namespace: String,
    ready: tokio::sync::oneshot::Sender<()>,
    count: usize,
) -> Result<Duration> {
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client, &namespace);
    let config = watcher::Config::default().labels("data=export");
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let (mut ready, mut first, mut gone) = (Some(ready), None, 0);
    while let Some(event) = events.next().await {
        match event? {
            watcher::Event::InitDone => drop(ready.take().map(|ready| ready.send(()))),
            watcher::Event::Delete(_) => {
                let first = *first.get_or_insert_with(Instant::now);
                gone += 1;
                if gone == count {
                    return Ok(first.elapsed());
                }
            }
            _ => {}
        }
    }
    anyhow::bail!("the watch ended")
}

/// One client, as exactly as the operator: what was listed, and nothing else.
async fn delete(client: &Client, namespace: &str) -> Result<()> {
    let maps: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client.clone(), namespace);
    let listed = maps.list_metadata(&ListParams::default().labels("data=export")).await?.items;
    let (maps, listed) = (&maps, &listed);
    each(listed.len(), |nth| async move {
        let Some(object) = listed.get(nth) else { return Ok(()) };
        let preconditions = Preconditions { uid: object.uid(), resource_version: object.resource_version() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        maps.delete(&object.name_any(), &params).await?;
        Ok(())
    })
    .await
}
