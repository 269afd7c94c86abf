//! The life of a key.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rampart::api::{ApiKey, KeyRecord, RecordState, VersionState};
use serde_json::{Value, json};

use super::{SHOP, checked, ready, title};
use crate::{fixtures, wait};

/// The longest that a revoked key may be admitted, on a machine that does much else.
const REVOKED_WITHIN: Duration = Duration::from_secs(30);

/// An ApiKey of the namespace.
#[must_use]
pub fn api_key(namespace: &str) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey",
        "metadata": {"name": "orders", "namespace": namespace},
        "spec": {
            "owner": {"customerId": namespace, "contact": "ops@example.com"},
            "audiences": ["orders-api"], "role": "Viewer", "prefix": "shop_live",
            "secret": {"name": "orders-key"},
        },
    })
}

/// Issued, tested, rotated, and another one revoked; `ask` tells the status of the verifier's answer to a key.
///
/// # Errors
/// When a step does not go as it must.
pub async fn tell(client: &Client, ask: impl AsyncFn(&str) -> Result<u16>) -> Result<()> {
    title("An API key: issued, tested, rotated, and the old one still valid");
    fixtures::apply(client, &api_key(SHOP)).await?;
    ready::<ApiKey>(client, SHOP, "orders").await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SHOP);
    let entry =
        |secret: &Secret, name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|it| it.0.clone());
    let first = secrets.get("orders-key").await?;
    ensure!(entry(&first, "API_KEY").is_some() && entry(&first, "API_KEY_PREVIOUS").is_none(), "one key, no previous");
    checked("version 1 was issued into Secret orders-key, after every verifier had it and a Job had tested it");
    let text = |secret: &Secret, name: &str| String::from_utf8(entry(secret, name).unwrap_or_default());
    let old = text(&first, "API_KEY")?;
    ensure!(ask(&old).await? == 200, "a good key is refused");
    // One key in 62 ends with an x.
    let (start, last) = old.split_at(old.len() - 1);
    let mistyped = format!("{start}{}", if last == "x" { "y" } else { "x" });
    ensure!(ask(&mistyped).await? == 401, "a mistyped key is admitted");
    checked("the verifier admits it, and not with one wrong character");

    let keys: Api<ApiKey> = Api::namespaced(client.clone(), SHOP);
    let now = fixtures::this_second();
    let request = json!({"spec": {"rotation": {"requestedAt": now.to_string()}}});
    keys.patch("orders", &PatchParams::default(), &Patch::Merge(&request)).await?;
    let key = wait::until("version 2", wait::SOON, || async {
        let key = keys.get("orders").await?;
        let status = key.status.clone().unwrap_or_default();
        ensure!(status.current_version == Some(2) && status.next_version.is_none(), "status is {status:?}");
        Ok(key)
    })
    .await?;
    let second = secrets.get("orders-key").await?;
    ensure!(entry(&second, "API_KEY") != entry(&first, "API_KEY"), "the key did not change");
    ensure!(entry(&second, "API_KEY_PREVIOUS") == entry(&first, "API_KEY"), "the old key is not beside the new one");
    let versions = key.status.unwrap_or_default().versions;
    let old = versions.iter().find(|version| version.n == 1).context("version 1")?;
    ensure!(old.state == VersionState::Deprecated && old.is_valid(Timestamp::now()), "version 1 is {:?}", old.state);
    let records: Api<KeyRecord> = Api::namespaced(client.clone(), "rampart-keys");
    wait::until("verifiers to know both", wait::SOON, || async {
        let records = records.list(&ListParams::default()).await?;
        let mut states: Vec<_> = records.iter().map(|it| (it.spec.api_key.version, it.spec.state)).collect();
        states.sort_by_key(|(version, _)| *version);
        ensure!(states == [(1, RecordState::Deprecated), (2, RecordState::Active)], "records are {states:?}");
        Ok(())
    })
    .await?;
    let until = old.destroy_at.as_ref().map(|at| at.0.to_string()).unwrap_or_default();
    checked(&format!("version 2 is current; version 1 ({}) stays valid until {until}", old.id));
    revoked(client, ask).await
}

/// A second key, since a revocation can't be taken back.
async fn revoked(client: &Client, ask: impl AsyncFn(&str) -> Result<u16>) -> Result<()> {
    let mut leaked = api_key(SHOP);
    leaked["metadata"]["name"] = json!("leaked");
    leaked["spec"]["secret"]["name"] = json!("leaked-key");
    fixtures::apply(client, &leaked).await?;
    ready::<ApiKey>(client, SHOP, "leaked").await?;
    let secret = Api::<Secret>::namespaced(client.clone(), SHOP).get("leaked-key").await?;
    let key = secret.data.and_then(|data| data.get("API_KEY").cloned()).context("a key")?;
    let key = String::from_utf8(key.0)?;
    ensure!(ask(&key).await? == 200, "a good key is refused");
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), SHOP);
    let revoke = Patch::Merge(json!({"spec": {"revocation": {"reason": "Leaked"}}}));
    keys.patch("leaked", &PatchParams::default(), &revoke).await?;
    let began = Instant::now();
    while ask(&key).await? != 401 {
        ensure!(began.elapsed() < REVOKED_WITHIN, "a revoked key is admitted");
        tokio::task::yield_now().await;
    }
    checked(&format!("a key that leaked is revoked: refused {} ms after the write", began.elapsed().as_millis()));
    keys.delete("leaked", &DeleteParams::default()).await?;
    Ok(())
}
