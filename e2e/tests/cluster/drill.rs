//! The drill: the strictest policy everywhere, Rampart gone, every machine restarted and every pod of the system
//! made anew. The cluster comes back by itself, what must be refused is refused, and after an uninstall nothing is
//! left that could refuse anything.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    admissionregistration::v1::{
        ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
    },
    core::v1::{Node, Pod},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
};
use rampart::api::{
    ClusterSecurityPolicy, LegalHold,
    labels::{FLOOR, HOLD, PART},
};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, operator, stories, wait};
use serde_json::{Value, json};

use crate::{
    Env, Tests,
    admission::post,
    floor::{path, refused},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("drill::a_cluster_without_rampart_comes_back_and_an_uninstall_leaves_nothing", drill);
}

/// Namespaces of the system, and how many pods there shall be.
const SYSTEM: [(&str, usize); 2] = [("kube-system", 2), ("rampart-system", 2)];

/// What a node needs to work, which no standard would admit; and what Rampart itself would be, run as root.
fn workloads() -> Value {
    let root = json!({"containers": [{"name": "a", "image": "registry.example.com/a:1",
                                      "securityContext": {"privileged": true}}], "hostNetwork": true});
    let object = |kind: &str, namespace: &str, mut spec: Value| {
        spec["selector"] = json!({"matchLabels": {"app": "a"}});
        spec["template"] = json!({"metadata": {"labels": {"app": "a"}}, "spec": root});
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "a", "namespace": namespace}, "spec": spec})
    };
    json!([
        object("DaemonSet", "kube-system", json!({})),
        object("Deployment", "rampart-system", json!({"replicas": 2}))
    ])
}

/// UIDs of the pods that run in a namespace, when there are as many as there shall be.
async fn running(client: &Client, (namespace, wanted): (&str, usize)) -> Result<BTreeSet<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("{wanted} pods to run in {namespace}"), wait::SOON, || async {
        let runs = |pod: &Pod| pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running");
        let all = pods.list(&ListParams::default()).await?.items;
        let uids: BTreeSet<String> = all.iter().filter(|pod| runs(pod)).filter_map(ResourceExt::uid).collect();
        ensure!(uids.len() == wanted && all.len() == wanted, "{} of {} run", uids.len(), all.len());
        Ok(uids)
    })
    .await
}

async fn restart_machines(plane: &ControlPlane) -> Result<()> {
    let client = plane.client();
    let nodes: Api<Node> = Api::all(client.clone());
    for node in nodes.list(&ListParams::default()).await? {
        nodes.delete(&node.name_any(), &DeleteParams::default()).await?;
    }
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    for (namespace, _) in SYSTEM {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        pods.delete_collection(&at_once, &ListParams::default()).await?;
    }
    wait::until("the nodes to be gone", wait::SOON, || async {
        let left = nodes.list(&ListParams::default()).await?.items.len();
        ensure!(left == 0, "{left} are there");
        Ok(())
    })
    .await?;
    plane.create_nodes().await
}

async fn refuses_by_itself(client: &Client) -> Result<()> {
    let (root, good) = (serde_json::to_value(stories::root_pod()?)?, serde_json::to_value(stories::good_pod()?)?);
    wait::until("the API server to refuse by itself, and only what it must", wait::SOON, || async {
        let (code, body, _) = post(client, &path("shop"), &root).await?;
        ensure!(code == 403 && body.contains("kubectl get rsp,rcsp"), "{code}: {body}");
        let (code, body, _) = post(client, &path("shop"), &good).await?;
        ensure!(code == 201, "{code}: {body}");
        Ok(())
    })
    .await
}

async fn drill(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let operator = Operator::install(&plane, &[]).await?;
    fixtures::namespace(&client, "shop", json!({})).await?;
    for namespace in ["shop", "kube-system", "rampart-system"] {
        fixtures::ready_for_pods(&client, namespace).await?;
    }
    let strict = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "strict"},
        "spec": {"namespaceSelector": {}, "hardening": {"mode": "Enforce", "podSecurity": {"level": "restricted"}}},
    });
    fixtures::apply(&client, &strict).await?;
    refuses_by_itself(&client).await?;
    let hold = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "LegalHold", "metadata": {"name": "case-17", "namespace": "shop"},
        "spec": {"resources": [{"resource": "configmaps"}], "selector": {}, "indefinite": true, "ground": "litigation"},
    });
    fixtures::apply(&client, &hold).await?;
    stories::ready::<LegalHold>(&client, "shop", "case-17").await?;
    for workload in workloads().as_array().context("a list")? {
        fixtures::apply(&client, workload).await?;
    }
    let mut before = BTreeSet::new();
    for system in SYSTEM {
        before.extend(running(&client, system).await?);
    }

    let ports = operator.kill()?;
    restart_machines(&plane).await?;
    for system in SYSTEM {
        ensure!(running(&client, system).await?.is_disjoint(&before), "pods of {} are the old ones", system.0);
    }
    refuses_by_itself(&client).await?;

    let kubeconfig = operator::kubeconfig(&plane, plane.server()).await?;
    let operator = Operator::start(plane.dir(), &kubeconfig, ports, &[])?;
    operator.ready().await?;
    uninstall(&client, operator).await
}

/// As the README says it: the policies and holds first, then what was installed.
async fn uninstall(client: &Client, operator: Operator) -> Result<()> {
    let policies: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    policies.delete("strict", &DeleteParams::default()).await?;
    let holds: Api<LegalHold> = Api::namespaced(client.clone(), "shop");
    holds.delete("case-17", &DeleteParams::default()).await?;
    let floor: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    wait::until("admission policies to go", wait::SOON, || async {
        // What ties reports to verifiers, and the end of holds to a verb, was installed, and goes with what was.
        let made = ListParams::default().labels(&format!("{PART} in ({FLOOR}, {HOLD})"));
        let left = floor.list(&made).await?.items.len();
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
    .await?;
    operator.stop().await?;
    for file in ["webhook", "verifier", "retention", "holds", "rbac"].map(|file| format!("manifests/{file}.yaml")) {
        for object in fixtures::documents(&fixtures::repository().join(file))? {
            let name = object["metadata"]["name"].as_str().context("no name")?.to_owned();
            fixtures::api_of(client, &object).await?.delete(&name, &DeleteParams::default()).await?;
        }
    }
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let (webhooks, bindings) =
        (webhooks.list(&ListParams::default()).await?.items, bindings.list(&ListParams::default()).await?.items);
    ensure!(webhooks.is_empty() && bindings.is_empty(), "{webhooks:?} {bindings:?}");
    let left = floor.list(&ListParams::default()).await?.items;
    ensure!(left.is_empty(), "{left:?}");
    // The API server lets go of what is deleted within a second or so.
    refused(client, "shop", false).await
}
