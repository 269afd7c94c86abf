//! `manifests/samples` and `manifests/packs`: each is taken by the API server and the webhook, and Accepted.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use rampart::api::{ApiKey, crds};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, stories, wait};
use serde_json::Value;

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("samples::every_sample_and_pack_is_accepted", every_one_is_accepted);
}

/// Kinds that nobody writes by hand.
const INTERNAL: [&str; 3] = ["KeyRecord", "VerifierReport", "RetentionReport"];

/// Every object of a directory, in the order of `kubectl apply -f`: by file, as each stands there.
pub(crate) fn objects(directory: &str) -> Result<Vec<(String, Value)>> {
    let mut objects = vec![];
    for entry in fs::read_dir(fixtures::repository().join("manifests").join(directory))? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        objects.extend(fixtures::documents(&path)?.into_iter().map(|object| (file.clone(), object)));
    }
    for (_, object) in objects.iter_mut().filter(|(_, object)| object["kind"] == "PolicyException") {
        // The day in the file passes, and that is no fault of the code.
        let end: Timestamp = object["spec"]["expiresAt"].as_str().unwrap_or_default().parse()?;
        if end <= Timestamp::now() {
            let end = Timestamp::now().checked_add(SignedDuration::from_hours(240))?;
            object["spec"]["expiresAt"] = Timestamp::from_second(end.as_second())?.to_string().into();
        }
    }
    objects.sort_by_key(|(file, _)| file.clone());
    Ok(objects)
}

async fn every_one_is_accepted(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let operator = Operator::install(&plane, &[]).await?;
    let client = plane.client();
    let (mut kinds, mut packs) = (BTreeSet::new(), 0);
    for directory in ["samples", "packs"] {
        for (file, object) in objects(directory)? {
            fixtures::apply(&client, &object).await.with_context(|| format!("{directory}/{file}"))?;
            kinds.extend(object["kind"].as_str().map(ToOwned::to_owned));
            packs += usize::from(directory == "packs");
        }
    }
    for directory in ["samples", "packs"] {
        for (file, object) in objects(directory)? {
            accepted(&client, &object).await.with_context(|| format!("{directory}/{file}: {}", operator.log_tail()))?;
        }
    }
    for key in ["orders", "billing"] {
        stories::ready::<ApiKey>(&client, "ai-marketing-platform", key).await?;
    }
    let wanted = crds().into_iter().map(|crd| crd.spec.names.kind).filter(|kind| !INTERNAL.contains(&kind.as_str()));
    let without: Vec<String> = wanted.filter(|kind| !kinds.contains(kind)).collect();
    ensure!(without.is_empty(), "kinds without a sample: {without:?}");
    ensure!(packs >= 5, "{packs} policies in packs");
    Ok(())
}

/// Objects of our own kinds say that they are accepted; of others, that they were taken is enough.
async fn accepted(client: &Client, object: &Value) -> Result<()> {
    if !object["apiVersion"].as_str().unwrap_or_default().starts_with("rampart.dev/") {
        return Ok(());
    }
    let (api, name) =
        (fixtures::api_of(client, object).await?, object["metadata"]["name"].as_str().unwrap_or_default());
    wait::until("it to be accepted", wait::SOON, || async {
        let live = serde_json::to_value(api.get(name).await?)?;
        let accepted = stories::condition(&live, "Accepted").unwrap_or_default();
        Ok(ensure!(accepted["status"] == "True", "{accepted}"))
    })
    .await
}
