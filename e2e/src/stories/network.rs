//! Network intent: the sample of the README.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    core::v1::{Event, Pod},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use rampart::api::SecurityPolicy;
use serde_json::{Value, json};

use super::{WEB, checked, indented, ready, rendered, title};
use crate::{fixtures, wait};

fn workload(app: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": app, "namespace": WEB},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    })
}

fn default_deny(app: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("{app}-default-deny"), "namespace": WEB},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"]},
    })
}

/// An image that only kwok runs.
pub const IMAGE: &str = "registry.example.com/app:1";

/// The four workloads of the sample intent, and the default deny of its servers.
#[must_use]
pub fn sample_workloads() -> Vec<Value> {
    workloads(IMAGE)
}

fn workloads(image: &str) -> Vec<Value> {
    let apps = ["ai-marketing-platform", "frontend", "postgres", "redis"];
    let mut objects: Vec<Value> = apps.map(|app| workload(app, image)).into();
    objects.extend(["postgres", "redis"].map(default_deny));
    objects
}

/// The sample intent.
#[must_use]
pub fn sample_policy() -> Value {
    let app = |app: &str| json!({"pods": {"selector": {"matchLabels": {"app": app}}}});
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": "web", "namespace": WEB},
        "spec": {"network": {
            "mode": "Enforce",
            "podSelector": {"matchLabels": {"app": "ai-marketing-platform"}},
            "isolate": ["Ingress", "Egress"],
            "ingress": [{
                "name": "web",
                "peers": [{"entity": "SameNamespace"}, app("frontend"), {"external": {"cidrs": ["10.0.0.0/8"]}}],
                "ports": [{"port": 8000}],
            }],
            "egress": [
                {"name": "pg", "peers": [app("postgres")], "ports": [{"port": 5432}]},
                {"name": "cache", "peers": [app("redis")], "ports": [{"port": 6379}]},
                {"name": "out", "peers": [{"external": {"cidrs": ["0.0.0.0/0"]}}], "ports": [{"port": 443}, {"port": 80}]},
                {"name": "dns", "peers": [{"entity": "DNS"}]},
            ],
            "reciprocal": "Generate",
        }},
    })
}

/// Previewed, enforced, and kept; its workloads are of `image`.
///
/// # Errors
/// When a step does not go as it must.
pub async fn tell(client: &Client, image: &str) -> Result<()> {
    title("Network intent: a web application, its frontend, postgres and redis");
    fixtures::namespace(client, WEB, json!({})).await?;
    for object in workloads(image) {
        fixtures::apply(client, &object).await?;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), WEB);
    wait::until("four pods to run", wait::SOON, || async {
        let running = pods.list(&ListParams::default()).await?;
        let running =
            running.iter().filter(|pod| pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running"));
        ensure!(running.count() == 4, "they don't yet");
        Ok(())
    })
    .await?;
    checked("four workloads run; postgres and redis are default-deny by policies of their own");

    let mut policy = sample_policy();
    policy["spec"]["network"]["mode"] = json!("Preview");
    fixtures::apply(client, &policy).await?;
    let live: Api<SecurityPolicy> = Api::namespaced(client.clone(), WEB);
    let preview = wait::until("a preview", wait::SOON, || async {
        let network = live.get("web").await?.status.and_then(|status| status.network).unwrap_or_default();
        ensure!(network.selected_pods == Some(1), "it is about {:?} pods", network.selected_pods);
        network.preview.context("no preview")
    })
    .await?;
    for sample in preview.samples.iter().take(3) {
        println!("   {} -> {} {}: {}", sample.src, sample.dst, sample.port, sample.why);
    }
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), WEB);
    ensure!(policies.list(&ListParams::default()).await?.items.len() == 2, "a preview wrote something");
    ensure!(preview.newly_denied > 0, "isolation denies nothing: {preview:?}");
    checked(&format!("Preview: {} pairs could not talk as before; nothing was written", preview.newly_denied));

    fixtures::apply(client, &sample_policy()).await?;
    ready::<SecurityPolicy>(client, WEB, "web").await?;
    let main = rendered(client, WEB, "web").await?;
    println!("{}", indented(&serde_saphyr::to_string(&main.spec)?));
    let spec = main.spec.clone().unwrap_or_default();
    ensure!(spec.policy_types == Some(vec!["Ingress".into(), "Egress".into()]), "both directions are isolated");
    ensure!(spec.egress.as_ref().map(Vec::len) == Some(4), "postgres, redis, the internet and DNS");
    let json = serde_json::to_string(&spec)?;
    ensure!(json.contains("169.254.169.254/32") && json.contains("10.96.0.0/16"), "the internet is not the cluster");
    checked(
        "Enforce: it became a NetworkPolicy; the internet excepts the cluster's own ranges and the metadata address",
    );
    let halves = policies.list(&ListParams::default().labels("rampart.dev/part=reciprocal")).await?;
    ensure!(halves.items.len() == 2, "{} halves, not those of postgres and redis", halves.items.len());
    checked("postgres and redis let it in: their side was rendered too, since they are isolated already");

    let opened = json!({"spec": {"egress": [{}]}});
    let hand = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
    policies.patch(&main.name_any(), &hand, &Patch::Merge(&opened)).await?;
    wait::until("the edit to be undone", wait::SOON, || async {
        let live = policies.get(&main.name_any()).await?;
        ensure!(live.spec == main.spec, "it is still {:?}", live.spec);
        Ok(())
    })
    .await?;
    let events: Api<Event> = Api::namespaced(client.clone(), WEB);
    wait::until("an event about it", wait::SOON, || async {
        let events = events.list(&ListParams::default()).await?;
        ensure!(events.iter().any(|event| event.reason.as_deref() == Some("DriftReverted")), "there is none");
        Ok(())
    })
    .await?;
    checked("somebody opened all egress by hand; it was put back, and the event DriftReverted says so");
    Ok(())
}
