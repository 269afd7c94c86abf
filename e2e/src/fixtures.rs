//! Putting objects into a cluster.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{GroupVersionKind, Status, TypeMeta},
    discovery::{self, Scope},
};
use rampart::{api::whole_second, hardening::Floor};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::wait;

/// Root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every document of a YAML file.
///
/// # Errors
/// When it can't be read.
pub fn documents(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("parsing {}", path.display()))
}

/// Every document of a YAML text.
///
/// # Errors
/// When it is not YAML.
pub fn parse(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The API of an object, found by its kind.
///
/// # Errors
/// When the API server does not serve the kind.
pub async fn api_of(client: &Client, object: &Value) -> Result<Api<DynamicObject>> {
    let types: TypeMeta = serde_json::from_value(object.clone())?;
    let kind = GroupVersionKind::try_from(&types)?;
    let (resource, capabilities) = discovery::pinned_kind(client, &kind).await?;
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default");
    Ok(match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
    })
}

/// Applies an object, as `kubectl apply --server-side` does; again, for a while, where nobody was in time to judge it.
///
/// # Errors
/// When the API server refuses it; the error is kube's own.
pub async fn apply(client: &Client, object: &Value) -> Result<DynamicObject> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str).context("an object without a name")?;
    let params = PatchParams::apply("kubectl").force();
    let (api, end) = (api_of(client, object).await?, Instant::now() + wait::SOON);
    loop {
        match api.patch(name, &params, &Patch::Apply(object)).await {
            Err(kube::Error::Api(status)) if is_late(&status) && Instant::now() < end => {
                sleep(Duration::from_millis(200)).await;
            }
            answer => return Ok(answer?),
        }
    }
}

/// Whether the API server, or a webhook that it asks, was too busy to answer: nothing is said of the object then.
fn is_late(status: &Status) -> bool {
    let message = status.message.to_lowercase();
    // Not "timeout" alone: the address of every webhook that is called has it.
    let words =
        ["not answered in time", "client.timeout exceeded", "tls handshake timeout", "timed out", "deadline exceeded"];
    status.code == 504 || (matches!(status.code, 500 | 503) && words.iter().any(|it| message.contains(it)))
}

/// Now, in whole seconds: times on the wire have no parts of one.
#[must_use]
pub fn this_second() -> Timestamp {
    whole_second(Timestamp::now())
}

/// Makes a namespace, or labels it.
///
/// # Errors
/// When the API server refuses it.
pub async fn namespace(client: &Client, name: &str, labels: Value) -> Result<()> {
    apply(client, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}))
        .await?;
    Ok(())
}

/// Waits until pods can be made in a namespace: they need its service account.
///
/// # Errors
/// When it is not there in time.
pub async fn ready_for_pods(client: &Client, namespace: &str) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    wait::until("pods to be possible", wait::SOON, || async { Ok(accounts.get("default").await?) }).await.map(drop)
}

/// Puts admission policies into force, without Rampart running.
///
/// # Errors
/// When the API server refuses one.
pub async fn floors(client: &Client, floors: &[Floor]) -> Result<()> {
    for floor in floors {
        Api::all(client.clone()).create(&PostParams::default(), &floor.policy).await?;
        Api::all(client.clone()).create(&PostParams::default(), &floor.binding).await?;
    }
    Ok(())
}

/// Installs Rampart's CRDs, roles and webhook configuration, with the webhook at `url`.
///
/// # Errors
/// When the API server refuses one of them, or the CRDs are not served in time.
pub async fn install(client: &Client, url: &str) -> Result<()> {
    let root = repository();
    for object in documents(&root.join("manifests/namespaces.yaml"))? {
        apply(client, &object).await?;
    }
    // `rampart run` is controller and webhook in one process, and so may do what either may.
    let account = json!({"kind": "ServiceAccount", "name": "rampart", "namespace": "rampart-system"});
    let made = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                      "metadata": {"name": account["name"], "namespace": account["namespace"]}});
    apply(client, &made).await?;
    for mut object in documents(&root.join("manifests/rbac.yaml"))? {
        if let Some(subjects) = object.get_mut("subjects").and_then(Value::as_array_mut) {
            subjects.push(account.clone());
        }
        apply(client, &object).await?;
    }
    install_crds(client).await?;
    for file in ["verifier", "retention", "holds", "flow"] {
        for object in documents(&root.join("manifests").join(file).with_extension("yaml"))? {
            apply(client, &object).await?;
        }
    }
    for mut object in documents(&root.join("manifests/webhook.yaml"))? {
        for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
            webhook["clientConfig"] = json!({"url": url});
        }
        apply(client, &object).await?;
    }
    Ok(())
}

/// Installs the CRDs and waits until they are served.
///
/// # Errors
/// When the API server refuses one of them, or they are not served in time.
pub async fn install_crds(client: &Client) -> Result<()> {
    let mut crds = vec![];
    for entry in std::fs::read_dir(repository().join("crds"))? {
        crds.extend(documents(&entry?.path())?);
    }
    for crd in crds {
        let applied = apply(client, &crd).await?;
        let api = api_of(client, &crd).await?;
        wait::until("a CRD to be served", wait::SOON, || async {
            let live = api.get(&applied.name_any()).await?;
            let conditions =
                live.data.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
            let established = conditions.iter().any(|it| it["type"] == "Established" && it["status"] == "True");
            established.then_some(()).context("it is not established")
        })
        .await?;
    }
    Ok(())
}
