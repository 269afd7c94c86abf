//! The operator with 1,000 namespaces that have a policy each. `BENCH_REST_MINUTES` shortens the rest.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Pod, networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt as _, watcher},
};
use rampart::api::{SecurityPolicy, condition};
use rampart_e2e::{
    ControlPlane, Operator, Options, fixtures,
    operator::{Ports, USER, kubeconfig},
    stories, wait,
};
use serde_json::json;

use super::{
    figure,
    process::{ready_after, settled_memory},
};

const NAMESPACES: usize = 1000;
const POLICIES: usize = 1000;
const CONCURRENCY: usize = 16;

/// Runs the operator beside one client on a real control plane.
pub(super) async fn bench() -> Result<bool> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let ports = Ports::claim()?;
    fixtures::install(&client, &ports.webhook_url()).await?;
    let kubeconfig = kubeconfig(&plane, plane.server()).await?;

    // The first start makes the CA; the second is what a restart costs.
    let first = Operator::start(plane.dir(), &kubeconfig, ports, &[])?;
    first.ready().await?;
    let ports = first.kill()?;
    let began = Instant::now();
    let operator = Operator::start(plane.dir(), &kubeconfig, ports, &[])?;
    let mut good = figure("start to ready", ready_after(&operator, began).await?, 1.0, "s");

    // The peer: one client with the same rights, the same writes, the same concurrency.
    let text = std::fs::read_to_string(&kubeconfig)?;
    let options = KubeConfigOptions::default();
    let peer = Config::from_custom_kubeconfig(serde_json::from_str::<Kubeconfig>(&text)?, &options).await?;
    let peer = Client::try_from(peer)?;
    create(&client, "before").await?;
    let before = write(&peer, "before").await?;
    create(&client, "operator").await?;
    let (operated, operator) = operate(&plane, &kubeconfig, operator).await?;
    create(&client, "after").await?;
    let after = write(&peer, "after").await?;
    let mean = f64::midpoint(before.as_secs_f64(), after.as_secs_f64());
    println!(
        "{POLICIES} policies in {NAMESPACES} namespaces: operator {:.2} s; one client {:.2} s before and {:.2} s after",
        operated.as_secs_f64(),
        before.as_secs_f64(),
        after.as_secs_f64()
    );
    good &= figure("operator against one client", operated.as_secs_f64() / mean, 1.2, "times");

    // Only the operator's thousand are left for memory and rest.
    for group in ["before", "after"] {
        remove(&client, group).await?;
    }
    good &= figure("resident memory", settled_memory(operator.pid()).await?, 64.0, "MiB");

    let minutes = std::env::var("BENCH_REST_MINUTES").ok().and_then(|it| it.parse().ok()).unwrap_or(10);
    let writes = || async {
        let counts = plane.audit().counts_of(USER)?;
        anyhow::Ok(
            counts.into_iter().filter(|(what, _)| !what.ends_with(" leases")).map(|(_, count)| count).sum::<usize>(),
        )
    };
    good &= pod_comes(&plane, &client).await?;

    let start = writes().await?;
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    let rest = writes().await? - start;
    good &= figure(
        &format!("writes over {minutes} min of rest, the Lease aside"),
        f64::from(u32::try_from(rest)?),
        0.0,
        "writes",
    );
    Ok(good)
}

/// A pod comes into one of the namespaces: its policy counts it, and no other is written to.
async fn pod_comes(plane: &ControlPlane, client: &Client) -> Result<bool> {
    let (namespace, name) = (namespace("operator", 5), name(5));
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "one", "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1"}]},
    }))?;
    let before = plane.audit().writes_of(USER)?.len();
    pods.create(&PostParams::default(), &pod).await?;
    let api: Api<SecurityPolicy> = Api::namespaced(client.clone(), &namespace);
    wait::until("the pod to be counted", wait::SOON, || async {
        let status = api.get(&name).await?.status.and_then(|status| status.network).unwrap_or_default();
        Ok(anyhow::ensure!(status.selected_pods == Some(1), "{status:?}"))
    })
    .await?;
    // Longer than counts are held back.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let writes = plane.audit().writes_of(USER)?;
    let elsewhere = writes.iter().skip(before).filter(|it| it.object_ref.resource != "leases");
    let elsewhere = elsewhere.filter(|it| it.object_ref.namespace != namespace).count();
    Ok(figure("writes elsewhere when a pod comes", f64::from(u32::try_from(elsewhere)?), 0.0, "writes"))
}

fn namespace(group: &str, nth: usize) -> String {
    format!("{group}-{}", nth % NAMESPACES)
}

fn name(nth: usize) -> String {
    format!("policy-{nth}")
}

fn policy(group: &str, nth: usize) -> serde_json::Value {
    let mut policy = stories::sample_policy();
    policy["metadata"] = json!({"name": name(nth), "namespace": namespace(group, nth)});
    policy["spec"]["network"]["podSelector"]["matchLabels"]["app"] = json!(name(nth));
    policy["spec"]["network"]["reciprocal"] = json!("Report");
    policy
}

async fn each<F, Fut>(what: F) -> Result<()>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    stream::iter(0..POLICIES).map(|nth| Ok(what(nth))).try_buffer_unordered(CONCURRENCY).try_collect().await
}

/// Makes the policies of a group, suspended, so that nobody acts on them yet.
async fn create(client: &Client, group: &str) -> Result<()> {
    for nth in 0..NAMESPACES {
        fixtures::namespace(client, &namespace(group, nth), json!({"group": group})).await?;
    }
    each(|nth| async move {
        let mut policy = policy(group, nth);
        policy["spec"]["suspend"] = json!(true);
        let api: Api<SecurityPolicy> = Api::namespaced(client.clone(), &namespace(group, nth));
        api.patch(&name(nth), &PatchParams::apply("bench"), &Patch::Apply(&policy)).await?;
        Ok(())
    })
    .await
}

/// What one client needs for the writes that the operator makes: a NetworkPolicy and a status each.
async fn write(peer: &Client, group: &str) -> Result<Duration> {
    // What is written is what the operator writes, taken from an operator's own result of the same spec.
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "x"}}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {}}, {"podSelector": {"matchLabels": {"app": "frontend"}}},
                              {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.96.0.0/16", "10.244.0.0/23"]}}],
                     "ports": [{"port": 8000, "protocol": "TCP"}]}],
        "egress": [
            {"to": [{"podSelector": {"matchLabels": {"app": "redis"}}}], "ports": [{"port": 6379, "protocol": "TCP"}]},
            {"to": [{"podSelector": {"matchLabels": {"app": "postgres"}}}], "ports": [{"port": 5432, "protocol": "TCP"}]},
            {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                     "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}, {"ipBlock": {"cidr": "169.254.20.10/32"}}],
             "ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]},
            {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.96.0.0/16", "10.244.0.0/23", "169.254.169.254/32"]}}],
             "ports": [{"port": 80, "protocol": "TCP"}, {"port": 443, "protocol": "TCP"}]},
        ],
    });
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": kind, "message": "", "observedGeneration": 2,
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let conditions = ["Accepted", "Programmed", "Ready"].map(condition);
    let began = Instant::now();
    let params = PatchParams::apply("bench-peer").force();
    let (spec, conditions, params) = (&spec, &conditions, &params);
    each(|nth| async move {
        let (namespace, name) = (namespace(group, nth), name(nth));
        let policies: Api<NetworkPolicy> = Api::namespaced(peer.clone(), &namespace);
        let rendered = format!("rampart-{name}-01234567");
        let labels = json!({"app.kubernetes.io/managed-by": "bench", "rampart.dev/owner-kind": "SecurityPolicy",
            "rampart.dev/owner-name": name, "rampart.dev/owner-uid": "01234567-89ab-cdef-0123-456789abcdef"});
        let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": rendered, "labels": labels}, "spec": spec});
        policies.patch(&rendered, params, &Patch::Apply(&object)).await?;
        let owners: Api<SecurityPolicy> = Api::namespaced(peer.clone(), &namespace);
        let object = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
            "metadata": {"name": name},
            "status": {"observedGeneration": 2, "conditions": conditions, "network": {"rendered": [rendered]}}});
        owners.patch_status(&name, params, &Patch::Apply(&object)).await?;
        Ok(())
    })
    .await?;
    Ok(began.elapsed())
}

/// What the operator needs, from the start of its process, for policies that are there.
async fn operate(
    plane: &ControlPlane,
    kubeconfig: &std::path::Path,
    operator: Operator,
) -> Result<(Duration, Operator)> {
    let client = plane.client();
    let ports = operator.kill()?;
    // While it is away nobody could change its kinds: its webhook is the one that must agree.
    let url = ports.webhook_url();
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    webhooks.delete("rampart", &DeleteParams::default()).await?;
    each(|nth| {
        let api: Api<SecurityPolicy> = Api::namespaced(client.clone(), &namespace("operator", nth));
        async move {
            wait::until("a policy to be resumed", wait::SOON, || async {
                let resume = Patch::Merge(json!({"spec": {"suspend": null}}));
                Ok(api.patch(&name(nth), &PatchParams::default(), &resume).await.map(drop)?)
            })
            .await
        }
    })
    .await?;
    let began = Instant::now();
    let operator = Operator::start(plane.dir(), kubeconfig, ports, &[])?;
    all_ready(&client, "operator", POLICIES).await?;
    let took = began.elapsed();
    fixtures::install(&client, &url).await?;
    operator.ready().await?;
    Ok((took, operator))
}

async fn all_ready(client: &Client, group: &str, count: usize) -> Result<()> {
    let api: Api<SecurityPolicy> = Api::all(client.clone());
    let mut ready = HashSet::new();
    let prefix = format!("{group}-");
    let stream = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
    let mut stream = std::pin::pin!(stream);
    let finished = async {
        while let Some(policy) = stream.next().await {
            let Ok(policy) = policy else { continue };
            let is_ready =
                policy.status.as_ref().is_some_and(|it| condition::is_true(&it.conditions, condition::Type::Ready));
            if is_ready && policy.namespace().unwrap_or_default().starts_with(&prefix) {
                ready.insert(policy.name_any());
                if ready.len() == count {
                    return;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(5), finished).await.context("not all became ready in 5 min")
}

/// Removes a group's policies, and the NetworkPolicies that the peer made for them.
async fn remove(client: &Client, group: &str) -> Result<()> {
    for nth in 0..NAMESPACES {
        let (params, all) = (DeleteParams::default(), ListParams::default());
        let namespace = namespace(group, nth);
        Api::<SecurityPolicy>::namespaced(client.clone(), &namespace).delete_collection(&params, &all).await?;
        Api::<NetworkPolicy>::namespaced(client.clone(), &namespace).delete_collection(&params, &all).await?;
    }
    Ok(())
}
