//! What a past operator left in a cluster: recorded from one that ran, and restored.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use rampart::api::{ApiKey, ClusterSecurityPolicy, RetentionPolicy, SecurityPolicy};
use rampart_e2e::{fixtures, operator::Ports, stories, wait};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    admission::post,
    chart::Installed,
    floor::{path, refused},
};

const PLATFORM: &str = "platform";
const EXCEPTION: &str = "agent";
/// Length of a time as Kubernetes writes it: whole seconds.
const TIME: usize = "2026-11-27T00:00:00Z".len();

/// What is recorded: apiVersion, kind, and which of them. Owners go before what is made for them.
const RECORDED: [(&str, &str, &str); 10] = [
    ("rampart.dev/v1alpha1", "SecurityPolicy", ""),
    ("rampart.dev/v1alpha1", "ClusterSecurityPolicy", ""),
    ("rampart.dev/v1alpha1", "PolicyException", ""),
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
        fixtures::namespace(client, namespace, json!({"rampart.dev/retention": "allowed", "tier": "web"})).await?;
        fixtures::ready_for_pods(client, namespace).await?;
    }
    for object in stories::retention_fixtures(stories::SHOP, 0, 2)?.into_iter().chain(stories::sample_workloads()) {
        fixtures::apply(client, &object).await?;
    }
    Ok(())
}

/// The least of all namespaces with this label, and who may be excepted.
fn cluster_policy() -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": PLATFORM},
        "spec": {
            "namespaceSelector": {"matchLabels": {"tier": "web"}},
            "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}},
            "exceptions": {"namespaces": [stories::SHOP], "maxDuration": "720h"},
        },
    })
}

/// What excepts [`agent`].
fn exception() -> Result<Value> {
    let end = Timestamp::now().checked_add(SignedDuration::from_hours(700))?;
    Ok(json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "PolicyException",
        "metadata": {"name": EXCEPTION, "namespace": stories::SHOP},
        "spec": {
            "policies": [{"kind": "ClusterSecurityPolicy", "name": PLATFORM}, {"kind": "SecurityPolicy", "name": "hardened"}],
            "rules": ["pss/hostPathVolumes", "pss/restrictedVolumes"], "images": ["registry.example.com/app"],
            "reason": "the log agent reads the node's logs", "expiresAt": Timestamp::from_second(end.as_second())?.to_string(),
        },
    }))
}

/// A good pod that reads the node's logs.
pub(super) fn agent() -> Result<Value> {
    let mut pod = serde_json::to_value(stories::good_pod()?)?;
    pod["spec"]["volumes"] = json!([{"name": "logs", "hostPath": {"path": "/var/log"}}]);
    Ok(pod)
}

/// Waits until a pod is answered so, in a dry run.
pub(super) async fn answered(client: &Client, namespace: &str, pod: &Value, wanted: u16) -> Result<()> {
    wait::until(&format!("a pod in {namespace} to be answered with {wanted}"), wait::SOON, || async {
        let (code, body, _) = post(client, &path(namespace), pod).await?;
        Ok(ensure!(code == wanted, "{code}: {body}"))
    })
    .await
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
    let retention = stories::retention_policy(stories::SHOP, "Enforce");
    for object in [policy, key, retention, stories::sample_policy(), cluster_policy(), exception()?] {
        fixtures::apply(client, &object).await?;
    }
    stories::ready::<SecurityPolicy>(client, stories::SHOP, "hardened").await?;
    stories::ready::<SecurityPolicy>(client, stories::WEB, "web").await?;
    stories::ready::<RetentionPolicy>(client, stories::SHOP, "exports").await?;
    stories::ready::<ApiKey>(client, stories::SHOP, "orders").await?;
    refused(client, stories::SHOP, true).await?;
    ready_of_cluster(client).await?;
    answered(client, stories::SHOP, &agent()?, 201).await?;
    answered(client, stories::WEB, &agent()?, 403).await?;
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

/// Waits until the ClusterSecurityPolicy is Ready for its newest spec.
pub(super) async fn ready_of_cluster(client: &Client) -> Result<()> {
    let policies: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    wait::until("the ClusterSecurityPolicy to be Ready", wait::SOON, || async {
        let live = serde_json::to_value(policies.get(PLATFORM).await?)?;
        let ready = stories::condition(&live, "Ready").unwrap_or_default();
        let is_current = live["status"]["observedGeneration"] == live["metadata"]["generation"];
        Ok(ensure!(is_current && ready["status"] == "True", "{}", live["status"]))
    })
    .await
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
        Value::String(text) => *text = moved_text(text, by),
        Value::Array(values) => values.iter_mut().for_each(|it| moved(it, by)),
        Value::Object(fields) => fields.values_mut().for_each(|it| moved(it, by)),
        _ => {}
    }
}

/// A time, or a text with times in it, such as the expression of an admission policy.
fn moved_text(text: &str, by: SignedDuration) -> String {
    let moved = |time: &str| {
        let moved = time.parse::<Timestamp>().ok()?.checked_add(by).ok()?;
        Some(Timestamp::from_second(moved.as_second()).ok()?.to_string())
    };
    if let Some(time) = moved(text) {
        return time;
    }
    let (mut all, mut rest) = (String::new(), text);
    while let Some(next) = rest.chars().next() {
        let time = rest.get(..TIME).filter(|time| time.ends_with('Z')).and_then(moved);
        let length = if time.is_some() { TIME } else { next.len_utf8() };
        all += &time.unwrap_or_else(|| next.to_string());
        rest = &rest[length..];
    }
    all
}
