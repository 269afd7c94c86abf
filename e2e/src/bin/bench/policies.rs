//! The operator with 1,000 policies, in 100 namespaces and in as many. `BENCH_REST_MINUTES` shortens the rest.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::{core::v1::Pod, networking::v1::NetworkPolicy};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rampart::api::{SecurityPolicy, condition};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, operator::USER, stories, wait};
use serde_json::json;

use super::{
    figure,
    process::settled_memory,
    stage::{Stage, all_ready, each, silence, start, writes},
};

const POLICIES: usize = 1000;
/// Without nodes nobody could read them.
const FLAGS: [&str; 1] = ["--network-cluster-cidrs=10.96.0.0/16,10.244.0.0/16"];

/// A thousand policies, and the namespaces that they are spread over.
#[derive(Clone, Copy)]
struct Group {
    name: &'static str,
    namespaces: usize,
}

impl Group {
    const fn of(name: &'static str, namespaces: usize) -> Self {
        Self { name, namespaces }
    }

    fn namespace(self, nth: usize) -> String {
        format!("{}-{}", self.name, nth % self.namespaces)
    }
}

/// Runs the operator beside one client on a real control plane.
pub(super) async fn bench() -> Result<bool> {
    Ok(few_namespaces().await? & many_namespaces().await?)
}

/// The operator against one client with the same rights, the same writes, the same concurrency; neither sees what the
/// other does.
async fn compare(mut stage: Stage, namespaces: usize, limit: f64) -> Result<(Stage, bool)> {
    let client = stage.plane.client();
    let [before, group, after] = ["before", "operator", "after"].map(|name| Group::of(name, namespaces));
    let ports = silence(&client, stage.operator).await?;
    let first = write(&client, &stage.peer, before).await?;
    create(&client, group).await?;
    let began = Instant::now();
    let operator = Operator::start(stage.plane.dir(), &stage.kubeconfig, ports, &FLAGS)?;
    all_ready(&client, &format!("{}-", group.name), POLICIES, is_ready).await?;
    let operated = began.elapsed();
    let ports = operator.kill()?;
    let last = write(&client, &stage.peer, after).await?;
    let mean = f64::midpoint(first.as_secs_f64(), last.as_secs_f64());
    println!(
        "{POLICIES} policies in {namespaces} namespaces: operator {:.2} s; one client {:.2} s before and {:.2} s after",
        operated.as_secs_f64(),
        first.as_secs_f64(),
        last.as_secs_f64()
    );
    let what = format!("operator against one client, {namespaces} namespaces");
    let good = figure(&what, operated.as_secs_f64() / mean, limit, "times");
    stage.operator = start(&stage.plane, &stage.kubeconfig, ports, &FLAGS).await?;
    Ok((stage, good))
}

fn is_ready(policy: &SecurityPolicy) -> bool {
    policy.status.as_ref().is_some_and(|it| condition::is_true(&it.conditions, condition::Type::Ready))
}

async fn many_namespaces() -> Result<bool> {
    // Controllers would be busy with so many namespaces meanwhile.
    let (stage, _) = Stage::set(&Options { controllers: false, ..Options::default() }, &FLAGS).await?;
    Ok(compare(stage, POLICIES, 1.2).await?.1)
}

async fn few_namespaces() -> Result<bool> {
    let namespaces = 100;
    let (stage, ready) = Stage::set(&Options::default(), &FLAGS).await?;
    let mut good = figure("start to ready", ready, 1.0, "s");
    let (Stage { plane, operator, .. }, holds) = compare(stage, namespaces, 1.5).await?;
    good &= holds;
    let client = plane.client();
    good &= figure("resident memory with as many policies", settled_memory(operator.pid()).await?, 64.0, "MiB");
    good &= pod_comes(&plane, &client, Group::of("operator", namespaces)).await?;

    let minutes = std::env::var("BENCH_REST_MINUTES").ok().and_then(|it| it.parse().ok()).unwrap_or(10);
    let start = writes(&plane)?;
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    let rest = writes(&plane)? - start;
    good &= figure(
        &format!("writes over {minutes} min of rest, the Lease aside"),
        f64::from(u32::try_from(rest)?),
        0.0,
        "writes",
    );
    Ok(good)
}

/// A pod comes into one of the namespaces: its policy counts it, and no other is written to.
async fn pod_comes(plane: &ControlPlane, client: &Client, group: Group) -> Result<bool> {
    let (namespace, name) = (group.namespace(5), name(5));
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

fn name(nth: usize) -> String {
    format!("policy-{nth}")
}

fn policy(group: Group, nth: usize) -> serde_json::Value {
    let mut policy = stories::sample_policy();
    policy["metadata"] = json!({"name": name(nth), "namespace": group.namespace(nth)});
    policy["spec"]["network"]["podSelector"]["matchLabels"]["app"] = json!(name(nth));
    policy["spec"]["network"]["reciprocal"] = json!("Report");
    policy
}

/// Makes the policies of a group.
async fn create(client: &Client, group: Group) -> Result<()> {
    for nth in 0..group.namespaces {
        fixtures::namespace(client, &group.namespace(nth), json!({"group": group.name})).await?;
    }
    each(POLICIES, |nth| async move {
        let api: Api<SecurityPolicy> = Api::namespaced(client.clone(), &group.namespace(nth));
        api.patch(&name(nth), &PatchParams::apply("bench"), &Patch::Apply(&policy(group, nth))).await?;
        Ok(())
    })
    .await
}

/// What one client needs for the writes that the operator makes: a NetworkPolicy and a status each. Nothing is left of
/// them.
async fn write(client: &Client, peer: &Client, group: Group) -> Result<Duration> {
    create(client, group).await?;
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
        json!({"type": kind, "status": "True", "reason": kind, "message": "", "observedGeneration": 1,
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let types = ["Accepted", "Programmed", "Ready", "Rendered", "Analyzed", "EnforcerDetected"];
    let conditions = types.map(condition);
    let began = Instant::now();
    let params = PatchParams::apply("bench-peer").force();
    let (spec, conditions, params) = (&spec, &conditions, &params);
    let writing = each(POLICIES, |nth| async move {
        let (namespace, name) = (group.namespace(nth), name(nth));
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
            "status": {"observedGeneration": 1, "conditions": conditions, "network": {
                "rendered": [rendered], "selectedPods": 0, "isolated": {"ingress": 0, "egress": 0}}}});
        owners.patch_status(&name, params, &Patch::Apply(&object)).await?;
        Ok(())
    });
    // Watched as the operator is: that costs the API server time.
    let prefix = format!("{}-", group.name);
    tokio::try_join!(writing, all_ready(client, &prefix, POLICIES, is_ready))?;
    let took = began.elapsed();
    remove(client, group).await?;
    Ok(took)
}

/// Removes a group's policies, and the NetworkPolicies that the peer made for them.
async fn remove(client: &Client, group: Group) -> Result<()> {
    each(group.namespaces, |nth| async move {
        let (params, all) = (DeleteParams::default(), ListParams::default());
        let namespace = group.namespace(nth);
        Api::<SecurityPolicy>::namespaced(client.clone(), &namespace).delete_collection(&params, &all).await?;
        Api::<NetworkPolicy>::namespaced(client.clone(), &namespace).delete_collection(&params, &all).await?;
        Ok(())
    })
    .await
}
