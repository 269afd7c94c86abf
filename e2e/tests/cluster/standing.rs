//! SecurityPolicy, network: how pods stand, told in conditions, events and status.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};
use rampart::api::SecurityPolicy;
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("standing::pods_that_are_cut_off_are_counted", pods_that_are_cut_off);
    tests.add("standing::what_no_policy_sees_is_told", what_no_policy_sees);
    tests.add("standing::a_network_plug_in_is_found_by_its_resources", a_plug_in_is_found);
    tests.add("standing::a_change_of_the_cluster_is_no_drift", a_change_of_the_cluster_is_no_drift);
}

fn pod(namespace: &str, name: &str, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1"}]},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

fn policy(namespace: &str, network: &Value) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"network": network},
    })
}

/// The policy once `is_so` finds what it looks for.
async fn until(
    client: &Client,
    namespace: &str,
    what: &str,
    is_so: impl Fn(&SecurityPolicy, &Value) -> Result<()>,
) -> Result<SecurityPolicy> {
    let api: Api<SecurityPolicy> = Api::namespaced(client.clone(), namespace);
    wait::until(what, wait::SOON, || async {
        let policy = api.get("web").await?;
        let live = serde_json::to_value(&policy)?;
        let observed = live["status"]["observedGeneration"].as_i64();
        ensure!(observed == policy.metadata.generation, "its status is about {observed:?}");
        is_so(&policy, &live)?;
        Ok(policy)
    })
    .await
}

fn has(live: &Value, kind: &str, status: &str) -> Result<()> {
    let found = stories::condition(live, kind).unwrap_or_default();
    Ok(ensure!(found["status"] == status, "{kind} is {found}"))
}

async fn events(client: &Client, namespace: &str) -> Result<Vec<String>> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    Ok(events.list(&ListParams::default()).await?.into_iter().filter_map(|event| event.reason).collect())
}

async fn pods_that_are_cut_off(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "caller", "namespace": namespace}});
    fixtures::apply(&client, &account).await?;
    fixtures::apply(&client, &pod(&namespace, "caller", &json!({"serviceAccountName": "caller"}))).await?;
    fixtures::apply(&client, &pod(&namespace, "other", &json!({}))).await?;
    let mut network = json!({"mode": "Preview", "podSelector": {}, "isolate": ["Egress"], "allowNoDns": true});
    fixtures::apply(&client, &policy(&namespace, &network)).await?;
    let id = format!("ApiServerBlocked/{namespace}/caller");
    // A preview tells what would be; conditions and counts, what is.
    until(&client, &namespace, "the preview", |policy, live| {
        let told = policy.status.clone().and_then(|status| status.network).unwrap_or_default();
        ensure!(told.selected_pods == Some(2) && told.findings.iter().any(|it| it.id == id), "{told:?}");
        ensure!(told.isolated.is_some_and(|it| it.egress == 0), "{told:?}");
        has(live, "ApiServerReachable", "True")
    })
    .await?;
    wait::until("an event about the preview", wait::SOON, || async {
        let found = events(&client, &namespace).await?;
        Ok(ensure!(found.iter().any(|it| it == "PreviewComputed"), "{found:?}"))
    })
    .await?;
    network["mode"] = json!("Enforce");
    network["acknowledge"] = json!([id]);
    fixtures::apply(&client, &policy(&namespace, &network)).await?;
    until(&client, &namespace, "the pods to be cut off", |policy, live| {
        let told = policy.status.clone().and_then(|status| status.network).unwrap_or_default();
        ensure!(told.isolated.is_some_and(|it| (it.ingress, it.egress) == (0, 2)), "{told:?}");
        has(live, "Programmed", "True")?;
        has(live, "ApiServerReachable", "False")
    })
    .await?;
    network["egress"] = json!([{"name": "api", "peers": [{"entity": "APIServer"}]}]);
    fixtures::apply(&client, &policy(&namespace, &network)).await?;
    until(&client, &namespace, "the API server to be reached", |_, live| has(live, "ApiServerReachable", "True"))
        .await?;
    Ok(())
}

async fn what_no_policy_sees(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    fixtures::apply(&client, &pod(&namespace, "agent", &json!({"hostNetwork": true}))).await?;
    let network = json!({"mode": "Enforce", "podSelector": {}, "isolate": ["Ingress"]});
    fixtures::apply(&client, &policy(&namespace, &network)).await?;
    until(&client, &namespace, "what can't be said", |policy, _| {
        let told = policy.status.clone().and_then(|status| status.network).unwrap_or_default();
        let first = told.not_expressible.first().map(String::as_str).unwrap_or_default();
        Ok(ensure!(first.starts_with(&format!("pod {namespace}/agent ")), "{told:?}"))
    })
    .await?;
    Ok(())
}

async fn a_plug_in_is_found(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let network = json!({"mode": "Enforce", "podSelector": {}, "isolate": ["Ingress"]});
    fixtures::apply(&client, &policy(&namespace, &network)).await?;
    until(&client, &namespace, "no plug-in", |_, live| has(live, "EnforcerDetected", "False")).await?;
    let name = "ippools.crd.projectcalico.org";
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
        "spec": {
            "group": "crd.projectcalico.org", "scope": "Cluster",
            "names": {"kind": "IPPool", "listKind": "IPPoolList", "plural": "ippools", "singular": "ippool"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    fixtures::apply(&client, &crd).await?;
    // It is told with the next look, which a pod asks for here.
    fixtures::apply(&client, &pod(&namespace, "web", &json!({}))).await?;
    until(&client, &namespace, "Calico", |_, live| has(live, "EnforcerDetected", "True")).await?;
    fixtures::api_of(&client, &crd).await?.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

async fn a_change_of_the_cluster_is_no_drift(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let service = |port: u16| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "namespace": namespace},
            "spec": {"selector": {"app": "db"}, "ports": [{"port": 80, "targetPort": port}]},
        })
    };
    fixtures::apply(&client, &service(5432)).await?;
    let network = json!({"mode": "Enforce", "podSelector": {}, "isolate": ["Egress"], "allowNoDns": true,
        "egress": [{"name": "db", "peers": [{"service": {"name": "db"}}]}]});
    fixtures::apply(&client, &policy(&namespace, &network)).await?;
    stories::ready::<SecurityPolicy>(&client, &namespace, "web").await?;
    let port_is = |wanted: u16| {
        let (client, namespace) = (client.clone(), namespace.clone());
        async move {
            wait::until(&format!("port {wanted}"), wait::SOON, || async {
                let spec = serde_json::to_value(stories::rendered(&client, &namespace, "web").await?.spec)?;
                let port = &spec["egress"][0]["ports"][0]["port"];
                Ok(ensure!(*port == wanted, "{port}"))
            })
            .await
        }
    };
    port_is(5432).await?;
    fixtures::apply(&client, &service(6432)).await?;
    port_is(6432).await?;
    // An event about drift would have come before this one, which is.
    let live = stories::rendered(&client, &namespace, "web").await?;
    let api: Api<k8s_openapi::api::networking::v1::NetworkPolicy> = Api::namespaced(client.clone(), &namespace);
    api.delete(live.metadata.name.as_deref().unwrap_or_default(), &DeleteParams::default()).await?;
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    wait::until("an event about drift", wait::SOON, || async {
        let all = events.list(&ListParams::default()).await?;
        let drift: Vec<String> = all
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some("DriftReverted"))
            .filter_map(|event| event.message)
            .collect();
        ensure!(!drift.is_empty(), "there is none");
        Ok(ensure!(drift.iter().all(|note| note.contains("was deleted by another hand")), "{drift:?}"))
    })
    .await
}
