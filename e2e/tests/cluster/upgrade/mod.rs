//! From the past chart to the present one, as docs/upgrade.md says it: with what the operator of that time had left.

mod past;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{
    api::{admissionregistration::v1::ValidatingWebhookConfiguration, apps::v1::Deployment, core::v1::Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};
use rampart::api::{ApiKey, PolicyException, RetentionPolicy, SecurityPolicy};
use rampart_e2e::{Verifier, chart, fixtures, operator::Ports, stories};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::past::Past;
use crate::{
    Env, Tests,
    chart::{Installed, nothing_was_forbidden},
    floor::refused,
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("upgrade::keeps_what_was_there_and_goes_back", keeps_what_was_there);
    // Not a test: e2e/upgrade/README.md.
    if std::env::var_os("RAMPART_RECORD_PAST").is_some() {
        tests.add("upgrade::record", |_| past::record());
    }
}

const SHOP: &str = stories::SHOP;
const BETWEEN_CALLS: Duration = Duration::from_millis(500);

async fn keeps_what_was_there(_: Env) -> Result<()> {
    let mut installed = Installed::of(past::chart()).await?;
    let client = installed.client.clone();
    let before = restored(&client).await.context("restoring the past")?;
    let kinds = crds(&client).await?;
    // The verifier of the present: that of the past is not kept.
    let verifier = Arc::new(Verifier::start(&installed.plane, installed.plane.server(), "rampart-verifier-1").await?);
    decided(&client).await.context("with what the past operator had left")?;
    let stop = CancellationToken::new();
    let calling = tokio::spawn(call(Arc::clone(&verifier), key(&client).await?, stop.clone()));

    installed.chart = chart::directory().display().to_string();
    installed.helm(&["upgrade", "rampart"], &["--reuse-values", "--wait", "--timeout=3m"])?;
    everything_is_on(&client).await?;
    decided(&client).await.context("while no operator runs")?;
    same(&before, &live(&client, before.keys()).await?)?;
    let present = crds(&client).await?;
    ensure!(kinds.iter().all(|kind| present.contains(kind)), "a kind was made anew: {kinds:?}, {present:?}");
    ensure!(present.len() > kinds.len(), "the past chart has every kind: take an older one");

    let webhook = installed.start("webhook", Ports::claim()?, &[]).await?;
    let controller = installed.start("controller", Ports::claim()?, &["--retention-minimum-grace=1s"]).await?;
    stories::ready::<SecurityPolicy>(&client, SHOP, "hardened").await?;
    stories::ready::<SecurityPolicy>(&client, stories::WEB, "web").await?;
    stories::ready::<RetentionPolicy>(&client, SHOP, "exports").await?;
    stories::ready::<ApiKey>(&client, SHOP, "orders").await?;
    stories::ready::<PolicyException>(&client, SHOP, "agent").await?;
    past::ready_of_cluster(&client).await?;
    same(&before, &live(&client, before.keys()).await?).with_context(|| controller.log_tail())?;
    decided(&client).await?;
    for process in [&webhook, &controller] {
        nothing_was_forbidden(&process.admin("/metrics").await?.1)?;
    }

    controller.stop().await?;
    installed.call_webhook_by_service().await?;
    webhook.stop().await?;
    installed.helm.run(&["rollback", "rampart", "--namespace", chart::NAMESPACE, "--wait", "--timeout=3m"])?;
    same(&before, &live(&client, before.keys()).await?).context("after the way back")?;
    ensure!(crds(&client).await? == present, "the way back takes kinds away, and all objects of them");
    decided(&client).await.context("after the way back")?;
    stop.cancel();
    let (asked, wrong) = calling.await?;
    ensure!(asked > 10 && wrong.is_empty(), "of {asked} calls with the key these were answered wrongly: {wrong:?}");
    Ok(())
}

/// The API server decides as it did: by SecurityPolicy, ClusterSecurityPolicy and PolicyException.
async fn decided(client: &Client) -> Result<()> {
    refused(client, SHOP, true).await?;
    past::answered(client, SHOP, &past::agent()?, 201).await?;
    // The ClusterSecurityPolicy alone covers this one, and nobody is excepted there.
    past::answered(client, stories::WEB, &past::agent()?, 403).await
}

/// What switches something off would be told to the controller.
async fn everything_is_on(client: &Client) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), chart::NAMESPACE);
    for part in ["controller", "webhook"] {
        let live = serde_json::to_string(&deployments.get(&format!("rampart-{part}")).await?.spec)?;
        ensure!(!live.contains("RAMPART_DISABLE"), "{part}: {live}");
    }
    Ok(())
}

/// The key that consumers mount.
async fn key(client: &Client) -> Result<String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SHOP);
    let key = secrets.get("orders-key").await?.data.and_then(|mut data| data.remove("API_KEY")).context("no key")?;
    Ok(String::from_utf8(key.0)?)
}

/// Calls with a key until told to stop: how often, and where it was not taken for what it is. That it calls too often (a
/// Viewer has ten calls a minute) is said of keys that are admitted alone.
async fn call(verifier: Arc<Verifier>, key: String, stop: CancellationToken) -> (usize, Vec<String>) {
    let (mut asked, mut wrong) = (0, vec![]);
    while !stop.is_cancelled() {
        let answer = verifier.ask(&key).await;
        asked += 1;
        if !matches!(answer, Ok(200 | 429)) {
            wrong.push(format!("{answer:?}"));
        }
        tokio::time::sleep(BETWEEN_CALLS).await;
    }
    (asked, wrong)
}

/// What must outlive an upgrade, by kind and name.
type Kept = BTreeMap<(String, String, String), Value>;

/// Restores what the past operator had left; the API server asks no webhook meanwhile, which is no pod here.
async fn restored(client: &Client) -> Result<Kept> {
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let as_installed = webhooks.get("rampart").await?;
    let mut off = as_installed.clone();
    off.webhooks.iter_mut().flatten().for_each(|it| it.failure_policy = Some("Ignore".into()));
    webhooks.replace("rampart", &PostParams::default(), &off).await?;
    past::stage(client).await?;
    let keys = Past::read()?.restore(client).await?;
    let mut back = webhooks.get("rampart").await?;
    back.webhooks = as_installed.webhooks;
    webhooks.replace("rampart", &PostParams::default(), &back).await?;
    live(client, keys.iter()).await
}

/// Which each object is, and of a key what it is.
async fn live<'a>(client: &Client, keys: impl Iterator<Item = &'a (String, String, String)>) -> Result<Kept> {
    let mut kept = Kept::new();
    for key @ (kind, namespace, name) in keys {
        let (api_version, kind) = kind.split_once(' ').context("an apiVersion and a kind")?;
        let of = json!({"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace}});
        let api = fixtures::api_of(client, &of).await?;
        let object = api.get(name).await.with_context(|| format!("{kind} {namespace}/{name} is gone"))?;
        let current = object.data.pointer("/status/versions/0/id").cloned();
        kept.insert(
            key.clone(),
            json!({"uid": object.uid(), "data": object.data.get("data"), "digest": object.data.pointer("/spec/digest"), "id": current}),
        );
    }
    Ok(kept)
}

fn same(before: &Kept, now: &Kept) -> Result<()> {
    for (key, was) in before {
        let is = now.get(key);
        ensure!(is == Some(was), "{key:?} was {was} and is {is:?}");
    }
    Ok(())
}

/// Our kinds, by name and UID.
async fn crds(client: &Client) -> Result<Vec<(String, Option<String>)>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let all = api.list_metadata(&ListParams::default()).await?.items;
    let ours = all.iter().filter(|it| it.name_any().ends_with(".rampart.dev"));
    Ok(ours.map(|it| (it.name_any(), it.uid())).collect())
}
