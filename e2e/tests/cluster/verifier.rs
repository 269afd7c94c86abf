//! The verifier on the real API server: what it knows and when, and what it may do.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use rampart::{
    api::{ApiKey, KeyRecord, VerifierReport},
    keys::format::ApiKeyText,
};
use rampart_e2e::{Verifier, control_plane, fixtures, operator::binary, proxy::Proxy, stories, verifier::token, wait};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("verifier::an_end_is_in_force_on_every_replica_within_a_second", an_end_is_in_force);
    tests.add("verifier::it_serves_on_while_the_api_server_is_away", serves_on);
    tests.add("verifier::it_may_read_records_and_write_its_own_report_alone", may_do_no_more);
    tests.add("verifier::its_report_tells_the_use_of_keys", report_tells_use);
    tests.add("verifier::refusals_and_a_sample_of_admitted_calls_are_recorded_and_no_key", calls_are_recorded);
    tests.add("verifier::the_test_of_a_new_version_asks_it", test_asks_it);
}

/// What is promised where nothing else runs: beside other tests it must be kept once in so many tries.
const IN_FORCE: Duration = Duration::from_secs(1);
const TRIES: usize = 10;
/// In the middle of those that it took.
const MOSTLY: Duration = Duration::from_secs(3);
/// And at the latest, in each of them.
const AT_THE_LATEST: Duration = Duration::from_secs(30);

/// An issued key of a namespace: the key, and its record.
async fn issued(client: &Client, namespace: &str) -> Result<(String, String)> {
    let mut key = stories::api_key(namespace);
    // A Viewer may call once a second.
    key["spec"]["role"] = json!("Editor");
    fixtures::apply(client, &key).await?;
    let key = stories::ready::<ApiKey>(client, namespace, "orders").await?;
    let id = key.status.and_then(|status| Some(status.versions.first()?.id.clone())).context("a version")?;
    let secret = Api::<Secret>::namespaced(client.clone(), namespace).get("orders-key").await?;
    let key = secret.data.and_then(|data| data.get("API_KEY").cloned()).context("a key")?;
    Ok((String::from_utf8(key.0)?, id))
}

fn records(client: &Client) -> Api<KeyRecord> {
    Api::namespaced(client.clone(), "rampart-keys")
}

async fn an_end_is_in_force(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let plane = &env.shared().await?.plane;
    let mut replicas = vec![];
    for nth in 0..2 {
        replicas.push(Verifier::start(plane, plane.server(), &format!("{namespace}-verifier-{nth}")).await?);
    }
    let (key, _) = issued(&client, &namespace).await?;
    for verifier in &replicas {
        ensure!(verifier.ask(&key).await? == 200, "consumers have a key that {} does not know", verifier.name());
    }
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    let suspended = async |it: bool| {
        let patch = Patch::Merge(json!({"spec": {"suspended": it}}));
        anyhow::Ok(keys.patch("orders", &PatchParams::default(), &patch).await.map(drop)?)
    };
    let mut took = vec![];
    for _ in 0..TRIES {
        suspended(true).await?;
        let written = Instant::now();
        let last = try_join_all(replicas.iter().map(|verifier| last_admitted(verifier, &key, written))).await?;
        let late = last.into_iter().max().context("nobody was asked")?;
        took.push(late);
        if late < IN_FORCE {
            let median = median(&took);
            ensure!(median < MOSTLY, "in force {median:.0?} after the write in the middle: {took:.0?}");
            println!("in force on both replicas {late:.0?} after the write, of {took:.0?}");
            return Ok(());
        }
        suspended(false).await?;
        for verifier in &replicas {
            wait::until("the key to come back", wait::SOON, || async {
                Ok(ensure!(verifier.ask(&key).await? == 200, "{} refuses it", verifier.name()))
            })
            .await?;
        }
    }
    bail!("admitted so long after each of {TRIES} ends: {took:?}")
}

fn median(took: &[Duration]) -> Duration {
    let mut took = took.to_vec();
    took.sort();
    took.get(took.len() / 2).copied().unwrap_or_default()
}

/// How long after the write of its end the last call with a key began that a verifier did not refuse for that end.
async fn last_admitted(verifier: &Verifier, key: &str, written: Instant) -> Result<Duration> {
    let mut last = Duration::ZERO;
    loop {
        let began = written.elapsed();
        // The end is told before the rate: who has called too often (429) calls with a key that lives.
        if verifier.ask(key).await? == 401 {
            return Ok(last);
        }
        ensure!(began < AT_THE_LATEST, "{} admits it {began:?} later", verifier.name());
        last = began;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn serves_on(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let plane = &env.shared().await?.plane;
    let proxy = Proxy::start(plane).await?;
    let (key, id) = issued(&client, &namespace).await?;
    let verifier = Verifier::start(plane, proxy.url(), &format!("{namespace}-verifier")).await?;
    ensure!(verifier.ask(&key).await? == 200);
    let soon = fixtures::this_second() + jiff::SignedDuration::from_secs(90);
    let end = Patch::Merge(json!({"spec": {"hardExpiry": soon.to_string()}}));
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    keys.patch("orders", &PatchParams::default(), &end).await?;
    let known: u64 = wait::until("the record to follow", wait::SOON, || async {
        let record = records(&client).get(&id).await?;
        ensure!(record.spec.expires_at.0 == soon, "{:?}", record.spec);
        Ok(record.metadata.resource_version.context("a version")?.parse()?)
    })
    .await?;
    let reports: Api<VerifierReport> = Api::namespaced(client.clone(), "rampart-keys");
    wait::until("the record to be known", wait::SOON, || async {
        let report = reports.get(verifier.name()).await?;
        Ok(ensure!(report.spec.revision.parse::<u64>()? >= known, "{:?}", report.spec))
    })
    .await?;
    drop(proxy);
    // Nobody else's rotation is to wait for it.
    wait::until("its report to stay away", wait::SOON, || async {
        // One that was under way comes after the first deletion.
        let left = reports.get_opt(verifier.name()).await?.is_some();
        if left {
            reports.delete(verifier.name(), &DeleteParams::default()).await?;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(ensure!(!left && reports.get_opt(verifier.name()).await?.is_none(), "it is back"))
    })
    .await?;
    let still = verifier.ask(&key).await.with_context(|| control_plane::log_tail(plane.dir(), verifier.name()))?;
    ensure!(still == 200, "without the API server it knows what it knew");
    wait::until("the key to end, by the verifier's own clock", wait::SOON, || async {
        Ok(ensure!(verifier.ask(&key).await? == 401))
    })
    .await?;
    ensure!(jiff::Timestamp::now() >= soon, "it ended too early");
    ensure!(verifier.admin("/readyz").await?.0 == 200, "it serves, and so it is ready");
    Ok(())
}

async fn may_do_no_more(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let plane = &env.shared().await?.plane;
    let (_, id) = issued(&client, &namespace).await?;
    let own = format!("{namespace}-own");
    let kubeconfig = plane.token_kubeconfig(&own, plane.server(), &token(plane, &own).await?)?;
    let kubeconfig: Kubeconfig = serde_json::from_str(&std::fs::read_to_string(kubeconfig)?)?;
    let as_verifier =
        Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?;

    let report = |name: &str| {
        serde_json::from_value::<VerifierReport>(json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "VerifierReport", "metadata": {"name": name},
            "spec": {"revision": "1", "startedAt": "2026-01-01T00:00:00Z", "renewedAt": "2026-01-01T00:00:00Z",
                     "keys": 0, "stopped": true},
        }))
    };
    let reports: Api<VerifierReport> = Api::namespaced(as_verifier.clone(), "rampart-keys");
    reports.create(&PostParams::default(), &report(&own)?).await?;
    let foreign = reports.create(&PostParams::default(), &report("another")?).await;
    let refused = foreign.expect_err("the report of another pod").to_string();
    ensure!(refused.contains("named after its own pod"), "{refused}");

    records(&as_verifier).list(&ListParams::default()).await?;
    let change = Patch::Merge(json!({"spec": {"state": "Active"}}));
    let changed = records(&as_verifier).patch(&id, &PatchParams::default(), &change).await;
    let secrets = Api::<Secret>::namespaced(as_verifier.clone(), &namespace).list(&ListParams::default()).await;
    let keys = Api::<ApiKey>::all(as_verifier).list(&ListParams::default()).await;
    for refused in [changed.map(drop), secrets.map(drop), keys.map(drop)] {
        ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");
    }
    Ok(())
}

async fn report_tells_use(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let plane = &env.shared().await?.plane;
    let verifier = Verifier::start(plane, plane.server(), &format!("{namespace}-verifier")).await?;
    let (key, id) = issued(&client, &namespace).await?;
    for _ in 0..3 {
        ensure!(verifier.ask(&key).await? == 200);
    }
    // A change of a record is reported sooner than the use, and takes nothing of it away.
    let touch = Patch::Merge(json!({"metadata": {"annotations": {"test": "1"}}}));
    let touched = records(&client).patch(&id, &PatchParams::default(), &touch).await?.resource_version();
    let touched: u64 = touched.context("a version")?.parse()?;
    let reports: Api<VerifierReport> = Api::namespaced(client.clone(), "rampart-keys");
    wait::until("the change to be in force", Duration::from_secs(10), || async {
        Ok(ensure!(reports.get(verifier.name()).await?.spec.revision.parse::<u64>()? >= touched))
    })
    .await?;
    wait::until("the use to be told", wait::SOON, || async {
        let report = reports.get(verifier.name()).await?.spec;
        let used = report.usage.iter().find(|used| used.id == id).context("no use")?;
        Ok(ensure!(used.count == 3 && !report.stopped, "{report:?}"))
    })
    .await?;
    let metrics = verifier.admin("/metrics").await?.1;
    ensure!(metrics.contains("rampart_apikey_verify_total{result=\"admitted\"} 3"), "{metrics}");
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    wait::until("the use to be in the status", wait::SOON, || async {
        let usage = keys.get("orders").await?.status.and_then(|status| status.usage).context("no usage")?;
        Ok(ensure!(usage.count == 3 && usage.last_used.is_some(), "{usage:?}"))
    })
    .await?;
    let metrics = env.shared().await?.operator.admin("/metrics").await?.1;
    let ready = format!("rampart_apikey_ready_status{{namespace=\"{namespace}\",name=\"orders\"}} 1");
    ensure!(metrics.contains(&ready) && metrics.contains("rampart_apikey_expiration_timestamp_seconds{"), "{metrics}");
    Ok(())
}

async fn calls_are_recorded(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let plane = &env.shared().await?.plane;
    let verifier = Verifier::start(plane, plane.server(), &format!("{namespace}-verifier")).await?;
    let (key, id) = issued(&client, &namespace).await?;
    let unknown = ApiKeyText::new("shop_live", &id, &[1; 32]);
    for (key, answer) in [(&*key, 200), (&*key, 200), (unknown.expose(), 401), ("junk", 401), (&*key, 200)] {
        ensure!(verifier.ask(key).await? == answer);
    }
    let log = verifier.log()?;
    let lines = log.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let audit = lines.iter().filter(|line| line["target"] == "rampart::audit").map(|line| {
        let mut line = line.clone();
        let fields = line.as_object_mut().context("an object")?;
        fields.remove("timestamp").context("a time")?;
        anyhow::Ok(line)
    });
    let refused = |reason: &str| {
        json!({"level": "INFO", "target": "rampart::audit", "message": "refused", "reason": reason,
               "audience": "orders-api", "method": "GET"})
    };
    let admitted = json!({"level": "INFO", "target": "rampart::audit", "message": "admitted", "one_of": 1000, "key": id,
                          "owner": namespace, "role": "Editor", "audience": "orders-api", "method": "GET"});
    let audit = audit.collect::<Result<Vec<_>>>()?;
    ensure!(audit == [admitted, refused("unknown"), refused("malformed")], "{audit:#?}");
    for key in [ApiKeyText::parse(&key)?, unknown] {
        let body = key.expose().rsplit('_').next().context("a body")?;
        ensure!(!log.contains(body) && !log.contains(&key.digest()), "key material in the log");
    }
    Ok(())
}

/// What the test Job does, which no kubelet runs here.
async fn test_asks_it(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let plane = &env.shared().await?.plane;
    let verifier = Verifier::start(plane, plane.server(), &format!("{namespace}-verifier")).await?;
    issued(&client, &namespace).await?;
    let secret = Api::<Secret>::namespaced(client.clone(), &namespace).get("orders-v1").await?;
    let dir = tempfile::tempdir()?;
    for (name, value) in secret.data.unwrap_or_default() {
        std::fs::write(dir.path().join(name), value.0)?;
    }
    let test = |audience: &str| {
        let mut command = std::process::Command::new(binary()?);
        command.args(["keys", "selftest", "--dir"]).arg(dir.path());
        command.arg(format!("--verifier=http://127.0.0.1:{}", verifier.http_port()));
        anyhow::Ok(command.arg(format!("--audience={audience}")).output()?)
    };
    ensure!(test("orders-api")?.status.success(), "{:?}", test("orders-api")?);
    let refused = test("payments-api")?;
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("answers 403"), "{refused:?}");
    Ok(())
}
