//! What a past operator left in a cluster: recorded from one that ran, and restored.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use rampart::api::{ApiKey, RetentionPolicy, SecurityPolicy};
use rampart_e2e::{fixtures, operator::Ports, stories};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{chart::Installed, floor::refused};

/// What is recorded: apiVersion, kind, and which of them. Owners go before what is made for them.
const RECORDED: [(&str, &str, &str); 8] = [
    ("rampart.dev/v1alpha1", "SecurityPolicy", ""),
    ("rampart.dev/v1alpha1", "ApiKey", ""),
    ("rampart.dev/v1alpha1", "RetentionPolicy", ""),
    ("v1", "Secret", "app.kubernetes.io/managed-by=rampart"),
    ("rampart.dev/v1alpha1", "KeyRecord", ""),
    ("networking.k8s.io/v1", "NetworkPolicy", "app.kubernetes.io/managed-by=rampart"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "rampart.dev/part=floor"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "rampart.dev/part=floor"),
];

/// Objects, as they were at a time.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Past {
    recorded_at: Timestamp,
    objects: Vec<Recorded>,
}

#[derive(Serialize, Deserialize)]
struct Recorded {
    /// Who wrote it.
    manager: String,
    /// Whether by server-side apply.
    applied: bool,
    object: Value,
}

fn directory() -> PathBuf {
    fixtures::repository().join("e2e/upgrade")
}

/// The chart of that time.
pub(super) fn chart() -> String {
    directory().join("rampart-d271217.tgz").display().to_string()
}

/// What others make: namespaces, an account that retention acts as, workloads.
pub(super) async fn stage(client: &Client) -> Result<()> {
    for namespace in [stories::SHOP, stories::WEB] {
        fixtures::namespace(client, namespace, json!({"rampart.dev/retention": "allowed"})).await?;
        fixtures::ready_for_pods(client, namespace).await?;
    }
    for object in stories::retention_fixtures(stories::SHOP, 0, 2)?.into_iter().chain(stories::sample_workloads()) {
        fixtures::apply(client, &object).await?;
    }
    Ok(())
}

/// Writes e2e/upgrade/objects.json; the program is that of the past (`RAMPART_BIN`).
pub(super) async fn record() -> Result<()> {
    ensure!(std::env::var_os("RAMPART_BIN").is_some(), "RAMPART_BIN must be the program of the past chart's commit");
    let installed = Installed::of(chart()).await?;
    let client = &installed.client;
    let webhook = installed.start("webhook", Ports::claim()?, &[]).await?;
    let controller = installed.start("controller", Ports::claim()?, &["--retention-minimum-grace=1s"]).await?;
    stage(client).await?;
    let (policy, key) = (stories::hardening_policy(stories::SHOP, "Enforce"), stories::api_key(stories::SHOP));
    for object in [policy, key, stories::retention_policy(stories::SHOP, "Enforce"), stories::sample_policy()] {
        fixtures::apply(client, &object).await?;
    }
    stories::ready::<SecurityPolicy>(client, stories::SHOP, "hardened").await?;
    stories::ready::<SecurityPolicy>(client, stories::WEB, "web").await?;
    stories::ready::<RetentionPolicy>(client, stories::SHOP, "exports").await?;
    stories::ready::<ApiKey>(client, stories::SHOP, "orders").await?;
    refused(client, stories::SHOP, true).await?;
    controller.stop().await?;
    webhook.stop().await?;
    let mut objects = vec![];
    for (api_version, kind, which) in RECORDED {
        let api = everywhere(client, api_version, kind).await?;
        let found = api.list(&ListParams::default().labels(which)).await?.items;
        // The operator makes its own authority anew.
        let found: Vec<DynamicObject> = found.into_iter().filter(|it| it.name_any() != "rampart-webhook-ca").collect();
        ensure!(!found.is_empty(), "there is no {kind}");
        objects.extend(found.into_iter().map(|mut object| {
            let writer = object.managed_fields().first().cloned().unwrap_or_default();
            let meta = &mut object.metadata;
            (meta.managed_fields, meta.resource_version, meta.creation_timestamp, meta.generation) =
                (None, None, None, None);
            let mut object = json!(object);
            (object["apiVersion"], object["kind"]) = (api_version.into(), kind.into());
            let applied = writer.operation.as_deref() == Some("Apply");
            Recorded { manager: writer.manager.unwrap_or_default(), applied, object }
        }));
    }
    let past = Past { recorded_at: Timestamp::now(), objects };
    fs::write(directory().join("objects.json"), serde_json::to_string_pretty(&past)? + "\n")?;
    Ok(())
}

async fn everywhere(client: &Client, api_version: &str, kind: &str) -> Result<Api<DynamicObject>> {
    let kind = kube::core::GroupVersionKind::try_from(&kube::core::TypeMeta {
        api_version: api_version.into(),
        kind: kind.into(),
    })?;
    let (resource, _) = kube::discovery::pinned_kind(client, &kind).await?;
    Ok(Api::all_with(client.clone(), &resource))
}

impl Past {
    pub(super) fn read() -> Result<Self> {
        let path = directory().join("objects.json");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Puts the objects into a cluster, as they would be if all had been recorded now: times are as far, and UIDs are those
    /// that the owners have here. Returns kinds and names.
    pub(super) async fn restore(self, client: &Client) -> Result<Vec<(String, String, String)>> {
        let since = Timestamp::now().duration_since(self.recorded_at);
        let (mut uids, mut restored) = (Vec::<(String, String)>::new(), vec![]);
        for Recorded { manager, applied, mut object } in self.objects {
            moved(&mut object, since);
            let text = uids.iter().fold(object.to_string(), |text, (old, new)| text.replace(old, new));
            let mut object: Value = serde_json::from_str(&text)?;
            let old = object["metadata"].as_object_mut().and_then(|meta| meta.remove("uid")).unwrap_or_default();
            let status = object.as_object_mut().and_then(|object| object.remove("status"));
            let api = fixtures::api_of(client, &object).await?;
            let named: DynamicObject = serde_json::from_value(object.clone())?;
            let name = named.name_any();
            let made = if applied {
                api.patch(&name, &PatchParams::apply(&manager), &Patch::Apply(&object)).await
            } else {
                let params = PostParams { field_manager: Some(manager.clone()), ..PostParams::default() };
                api.create(&params, &named).await
            };
            let made = made.with_context(|| format!("{} {name}", object["kind"]))?;
            if let Some(status) = status {
                let status = Patch::Merge(json!({"status": status}));
                let params = PatchParams { field_manager: Some(manager), ..PatchParams::default() };
                api.patch_status(&name, &params, &status).await.with_context(|| format!("the status of {name}"))?;
            }
            let (old, new) = (old.as_str().context("a recorded UID")?.to_owned(), made.uid().context("a UID")?);
            // Names have its beginning: what is whole goes first.
            let short = |uid: &str| uid.chars().take(8).collect::<String>();
            uids.extend([(old.clone(), new.clone()), (short(&old), short(&new))]);
            let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
            let kind = format!("{} {}", text(&object["apiVersion"]), text(&object["kind"]));
            restored.push((kind, named.namespace().unwrap_or_default(), name));
        }
        Ok(restored)
    }
}

/// Moves every time in an object.
fn moved(value: &mut Value, by: SignedDuration) {
    match value {
        Value::String(text) => {
            let moved = text.parse::<Timestamp>().ok().and_then(|time| time.checked_add(by).ok());
            // As Kubernetes writes them: whole seconds.
            let whole = moved.and_then(|time| Timestamp::from_second(time.as_second()).ok());
            if let Some(time) = whole {
                *text = time.to_string();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|it| moved(it, by)),
        Value::Object(fields) => fields.values_mut().for_each(|it| moved(it, by)),
        _ => {}
    }
}
