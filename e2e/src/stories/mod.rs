//! The stories that demo and tests tell, a file each: what users apply, and what they see then. Each step is checked, and
//! needs nothing but the API server.

pub mod hardening;
pub mod holds;
pub mod keys;
pub mod network;
pub mod retention;

use std::fmt::Debug;

use anyhow::{Result, bail, ensure};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{events::v1::Event, networking::v1::NetworkPolicy},
};
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::wait;
pub use hardening::{good_pod, hardening_policy, root_pod};
pub use keys::api_key;
pub use network::{sample_policy, sample_workloads};
pub use retention::{retention_fixtures, retention_policy};

/// Namespace of the sample network intent.
pub const WEB: &str = "ai-marketing-platform";
/// Namespace of hardening and keys.
pub const SHOP: &str = "shop";
/// Namespace of retention and holds.
pub const REPORTS: &str = "reports";

/// Waits for an event in a namespace that holds these words.
///
/// # Errors
/// When there is none in time.
pub async fn told(client: &Client, namespace: &str, reason: &str, words: &str) -> Result<()> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("{reason}: {words}"), wait::SOON, || async {
        let all = events.list(&ListParams::default()).await?.items;
        let notes = all.iter().filter(|event| event.reason.as_deref() == Some(reason)).map(|event| &event.note);
        let notes: Vec<&str> = notes.flatten().map(String::as_str).collect();
        Ok(ensure!(notes.iter().any(|note| note.contains(words)), "{notes:?}"))
    })
    .await
}

/// Waits until a resource is Ready for its newest spec.
///
/// # Errors
/// When it is not in time; the text holds its conditions.
pub async fn ready<K>(client: &Client, namespace: &str, name: &str) -> Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + serde::Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("{} {name} to be ready", K::kind(&())), wait::SOON, || async {
        let object = api.get(name).await?;
        let json = serde_json::to_value(&object)?;
        let condition = condition(&json, "Ready").unwrap_or_default();
        let observed = json.pointer("/status/observedGeneration").and_then(Value::as_i64);
        ensure!(observed == object.meta().generation, "its status is about generation {observed:?}");
        ensure!(condition["status"] == "True", "Ready is {condition}");
        Ok(object)
    })
    .await
}

/// A condition of an object.
#[must_use]
pub fn condition(object: &Value, kind: &str) -> Option<Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind).cloned()
}

/// The main NetworkPolicy that a SecurityPolicy became.
///
/// # Errors
/// When there is not exactly one.
pub async fn rendered(client: &Client, namespace: &str, policy: &str) -> Result<NetworkPolicy> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let selector = format!("rampart.dev/owner-name={policy},!rampart.dev/part");
    let mut found = api.list(&ListParams::default().labels(&selector)).await?.items;
    match (found.pop(), found.is_empty()) {
        (Some(policy), true) => Ok(policy),
        (None, _) => bail!("no NetworkPolicy of {policy}"),
        (Some(_), false) => bail!("several NetworkPolicies of {policy}"),
    }
}

/// Begins a story.
pub fn title(text: &str) {
    println!("\n== {text}");
}

/// Something that was seen to be so.
pub fn checked(text: &str) {
    println!("   ok  {text}");
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("   | {line}")).collect::<Vec<_>>().join("\n")
}
