//! SecurityPolicies, until Rampart says that they are in force.

use anyhow::{Context as _, Result, bail, ensure};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use rampart::api::SecurityPolicy;
use rampart_e2e::{fixtures, stories::condition, wait};
use serde_json::{Value, json};

/// Applies policies and waits until each is programmed. What they would break is meant, and acknowledged.
///
/// # Errors
/// When one is refused, or is not programmed in time.
pub(crate) async fn apply(client: &Client, policies: &[Value]) -> Result<()> {
    for policy in policies {
        fixtures::apply(client, policy).await.with_context(|| policy.to_string())?;
    }
    for policy in policies {
        let text = |pointer: &str| policy.pointer(pointer).and_then(Value::as_str).context("a policy with a name");
        programmed(client, text("/metadata/namespace")?, text("/metadata/name")?).await?;
    }
    Ok(())
}

/// Takes back what a policy became. To delete it would do so, too, but where several objects lose their owner at once
/// Rampart asks before it prunes them.
///
/// # Errors
/// When the API server refuses it.
pub(crate) async fn disable(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let api: Api<SecurityPolicy> = Api::namespaced(client.clone(), namespace);
    let disabled = Patch::Merge(json!({"spec": {"network": {"mode": "Disabled"}}}));
    api.patch(name, &PatchParams::default(), &disabled).await?;
    Ok(())
}

async fn programmed(client: &Client, namespace: &str, name: &str) -> Result<()> {
    let api: Api<SecurityPolicy> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("{namespace}/{name} to be programmed"), wait::SOON, || async {
        let policy = api.get(name).await?;
        let live = serde_json::to_value(&policy)?;
        let observed = live.pointer("/status/observedGeneration").and_then(Value::as_i64);
        ensure!(observed == policy.metadata.generation, "its status is about generation {observed:?}");
        let programmed = condition(&live, "Programmed").unwrap_or_default();
        if programmed["reason"] == "EnforceRefused" {
            let status = policy.status.and_then(|status| status.network).unwrap_or_default();
            let ids: Vec<String> = status.findings.into_iter().map(|finding| finding.id).collect();
            let acknowledge = Patch::Merge(json!({"spec": {"network": {"acknowledge": ids}}}));
            api.patch(name, &PatchParams::default(), &acknowledge).await?;
        }
        if programmed["status"] != "True" {
            bail!("Programmed is {programmed}");
        }
        Ok(())
    })
    .await
}
