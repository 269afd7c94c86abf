//! SecurityPolicy, network: what it would change is told before it changes, and what it would break is not done.

use anyhow::{Result, ensure};
use k8s_openapi::api::{core::v1::Event, networking::v1::NetworkPolicy};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rampart::api::{NetworkStatus, SecurityPolicy};
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("preview_network::tells_what_would_change_and_writes_nothing", tells_what_would_change);
    tests.add("preview_network::what_would_break_is_refused_until_it_is_mended", what_would_break_is_refused);
    tests.add("preview_network::a_break_that_is_acknowledged_is_done", a_break_that_is_acknowledged_is_done);
    tests.add("preview_network::what_prometheus_operator_reads_is_known", what_prometheus_operator_reads_is_known);
    tests.add("preview_network::a_foreign_policy_that_widens_is_named", a_foreign_policy_that_widens_is_named);
}

fn pod(namespace: &str, app: &str, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": app, "namespace": namespace, "labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1"}]},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// Lets pods of the app `db` be called by those of the app `web` alone, on one port.
fn policy(namespace: &str, mode: &str, port: u16) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": "db", "namespace": namespace},
        "spec": {"network": {
            "mode": mode, "podSelector": {"matchLabels": {"app": "db"}}, "isolate": ["Ingress"],
            "ingress": [{"name": "web", "peers": [{"pods": {"selector": {"matchLabels": {"app": "web"}}}}],
                         "ports": [{"port": port}]}],
        }},
    })
}

struct Case {
    client: Client,
    namespace: String,
    policies: Api<SecurityPolicy>,
    rendered: Api<NetworkPolicy>,
}

async fn set_up(env: &Env) -> Result<Case> {
    let (client, namespace) = env.namespace().await?;
    for app in ["web", "db", "other"] {
        fixtures::apply(&client, &pod(&namespace, app, &json!({}))).await?;
    }
    let (policies, rendered) =
        (Api::namespaced(client.clone(), &namespace), Api::namespaced(client.clone(), &namespace));
    Ok(Case { client, namespace, policies, rendered })
}

impl Case {
    async fn patch(&self, network: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"network": network}}));
        self.policies.patch("db", &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// The network status once it is about the spec, and a condition has this status and reason.
    async fn told(&self, condition: &str, status: &str, reason: &str) -> Result<NetworkStatus> {
        wait::until(&format!("{condition}={status}, {reason}"), wait::SOON, || async {
            let policy = self.policies.get("db").await?;
            let live = serde_json::to_value(&policy)?;
            let found = stories::condition(&live, condition).unwrap_or_default();
            ensure!(found["observedGeneration"].as_i64() == policy.metadata.generation, "{found}");
            ensure!(found["status"] == status && found["reason"] == reason, "{found}");
            Ok(policy.status.and_then(|status| status.network).unwrap_or_default())
        })
        .await
    }

    async fn ports(&self) -> Result<Vec<Value>> {
        let all = self.rendered.list(&ListParams::default()).await?;
        let all = serde_json::to_value(all.items)?;
        Ok(all
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| it["spec"]["ingress"][0]["ports"][0]["port"].clone())
            .collect())
    }
}

async fn tells_what_would_change(env: Env) -> Result<()> {
    let case = set_up(&env).await?;
    fixtures::apply(&case.client, &policy(&case.namespace, "Preview", 5432)).await?;
    let namespace = &case.namespace;
    wait::until("the preview to tell of both callers", wait::SOON, || async {
        let told = case.told("Ready", "True", "Preview").await?;
        ensure!(told.selected_pods == Some(1), "{told:?}");
        let preview = told.preview.unwrap_or_default();
        ensure!(preview.newly_allowed == 0 && preview.newly_denied >= 2, "{preview:?}");
        let sample = |from: &str| preview.samples.iter().find(|it| it.src == format!("{namespace}/{from}"));
        let (web, other) = (sample("web"), sample("other"));
        ensure!(other.is_some_and(|it| it.port == "any" && it.dst == format!("{namespace}/db")), "{preview:?}");
        ensure!(web.is_some_and(|it| it.port == "all but 5432/TCP"), "{preview:?}");
        ensure!(other.is_some_and(|it| it.why.contains("ingress of") && it.why.contains("rampart-db-")), "{preview:?}");
        Ok(())
    })
    .await?;
    ensure!(case.ports().await?.is_empty(), "a preview wrote something");

    case.patch(json!({"mode": "Enforce"})).await?;
    let programmed = case.told("Programmed", "True", "Programmed").await?;
    ensure!(programmed.preview.is_none() && programmed.rendered.len() == 1, "{programmed:?}");
    ensure!(case.ports().await? == [5432]);

    // Of a new spec, the difference to what is in force; which stays.
    let next = policy(namespace, "Preview", 6432);
    fixtures::apply(&case.client, &next).await?;
    let told = case.told("Ready", "True", "Preview").await?;
    let preview = told.preview.unwrap_or_default();
    ensure!((preview.newly_denied, preview.newly_allowed) == (1, 1), "{preview:?}");
    let ports: Vec<(&str, bool)> = preview.samples.iter().map(|it| (it.port.as_str(), it.allowed)).collect();
    ensure!(ports == [("5432/TCP", false), ("6432/TCP", true)], "{ports:?}");
    ensure!(
        case.ports().await? == [5432] && told.rendered == programmed.rendered,
        "a preview changed what is in force"
    );

    case.patch(json!({"mode": "Disabled"})).await?;
    wait::until("what was rendered to go", wait::SOON, || async { Ok(ensure!(case.ports().await?.is_empty())) }).await
}

/// A webhook that the API server calls in the pods of the app `db`; its rules match nothing.
async fn webhook(case: &Case) -> Result<Value> {
    let namespace = &case.namespace;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook", "namespace": namespace},
        "spec": {"selector": {"app": "db"}, "ports": [{"port": 443, "targetPort": 8443}]},
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": namespace},
        "webhooks": [{
            "name": "hook.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Ignore", "clientConfig": {"service": {"name": "hook", "namespace": namespace}},
            "rules": [{"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["CREATE"],
                       "resources": ["nothing"]}],
        }],
    });
    fixtures::apply(&case.client, &service).await?;
    fixtures::apply(&case.client, &configuration).await?;
    Ok(json!(format!("WebhookBlocked/{namespace}/hook")))
}

async fn what_would_break_is_refused(env: Env) -> Result<()> {
    let case = set_up(&env).await?;
    let id = webhook(&case).await?;
    fixtures::apply(&case.client, &policy(&case.namespace, "Preview", 5432)).await?;
    wait::until("the preview to name the break", wait::SOON, || async {
        let told = case.told("Ready", "True", "Preview").await?;
        ensure!(told.findings.iter().any(|it| id == it.id), "{told:?}");
        Ok(())
    })
    .await?;
    case.patch(json!({"mode": "Enforce"})).await?;
    let refused = case.told("Programmed", "False", "EnforceRefused").await?;
    ensure!(refused.preview.is_some_and(|it| it.newly_denied > 0) && refused.findings.iter().any(|it| id == it.id));
    ensure!(case.ports().await?.is_empty(), "what breaks was programmed");
    // With what the webhook needs, it is done without being asked again.
    let hook = json!({"name": "hook", "peers": [{"entity": "Webhooks"}], "ports": [{"port": 8443}]});
    let mut mended = policy(&case.namespace, "Enforce", 5432);
    mended["spec"]["network"]["ingress"].as_array_mut().into_iter().for_each(|rules| rules.push(hook.clone()));
    fixtures::apply(&case.client, &mended).await?;
    let programmed = case.told("Programmed", "True", "Programmed").await?;
    ensure!(!programmed.findings.iter().any(|it| id == it.id), "{programmed:?}");
    let live = serde_json::to_value(case.rendered.list(&ListParams::default()).await?.items)?;
    let from = &live[0]["spec"]["ingress"][0]["from"];
    ensure!(from[0]["ipBlock"]["cidr"].as_str().is_some_and(|cidr| cidr.ends_with("/32")), "{live:#}");
    remove(&case).await
}

async fn a_break_that_is_acknowledged_is_done(env: Env) -> Result<()> {
    let case = set_up(&env).await?;
    let id = webhook(&case).await?;
    fixtures::apply(&case.client, &policy(&case.namespace, "Preview", 5432)).await?;
    wait::until("the preview to name the break", wait::SOON, || async {
        let told = case.told("Ready", "True", "Preview").await?;
        ensure!(told.findings.iter().any(|it| id == it.id), "{told:?}");
        Ok(())
    })
    .await?;
    case.patch(json!({"mode": "Enforce", "acknowledge": [id]})).await?;
    case.told("Programmed", "True", "Programmed").await?;
    ensure!(case.ports().await? == [5432]);
    // Drift is undone without asking what it breaks: that was decided.
    case.rendered.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    wait::until("the policy to be back", wait::SOON, || async { Ok(ensure!(case.ports().await? == [5432])) }).await?;
    remove(&case).await
}

/// The configuration is the cluster's, and would outlive the namespace.
async fn remove(case: &Case) -> Result<()> {
    use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
    let api: Api<ValidatingWebhookConfiguration> = Api::all(case.client.clone());
    api.delete(&case.namespace, &DeleteParams::default()).await?;
    Ok(())
}

async fn a_foreign_policy_that_widens_is_named(env: Env) -> Result<()> {
    let case = set_up(&env).await?;
    fixtures::apply(&case.client, &policy(&case.namespace, "Enforce", 5432)).await?;
    case.told("Programmed", "True", "Programmed").await?;
    let foreign = |name: &str, ingress: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": case.namespace},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": ingress},
        })
    };
    fixtures::apply(&case.client, &foreign("deny", json!([]))).await?;
    fixtures::apply(&case.client, &foreign("open", json!([{}]))).await?;
    let told = case.told("WidenedByOthers", "True", "ForeignPolicies").await?;
    ensure!(told.widened_by == ["open"], "{told:?}");
    // Another that opens the same hides neither.
    fixtures::apply(&case.client, &foreign("wide", json!([{}]))).await?;
    wait::until("both to be named", wait::SOON, || async {
        let told = case.told("WidenedByOthers", "True", "ForeignPolicies").await?;
        Ok(ensure!(told.widened_by == ["open", "wide"], "{told:?}"))
    })
    .await?;
    case.rendered.delete("wide", &DeleteParams::default()).await?;
    // Nor do labels of Rampart's own: they name a policy that is not there.
    let mut disguised = foreign("rampart-ghost-01234567", json!([{}]));
    disguised["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "rampart",
        "rampart.dev/owner-kind": "SecurityPolicy", "rampart.dev/owner-name": "ghost", "rampart.dev/owner-uid": "0123456789"});
    wait::until("the one in disguise to be named", wait::SOON, || async {
        // It is pruned whenever a policy goes.
        fixtures::apply(&case.client, &disguised).await?;
        let told = case.told("WidenedByOthers", "True", "ForeignPolicies").await?;
        Ok(ensure!(told.widened_by.iter().any(|it| it == "rampart-ghost-01234567"), "{told:?}"))
    })
    .await?;
    if case.rendered.get_opt("rampart-ghost-01234567").await?.is_some() {
        let _ = case.rendered.delete("rampart-ghost-01234567", &DeleteParams::default()).await;
    }
    let events: Api<Event> = Api::namespaced(case.client.clone(), &case.namespace);
    wait::until("an event about it", wait::SOON, || async {
        let events = events.list(&ListParams::default()).await?;
        Ok(ensure!(events.iter().any(|event| event.reason.as_deref() == Some("PolicyWidened")), "there is none"))
    })
    .await?;
    case.rendered.delete("open", &DeleteParams::default()).await?;
    wait::until("the condition to go", wait::SOON, || async {
        let live = serde_json::to_value(case.policies.get("db").await?)?;
        let found = stories::condition(&live, "WidenedByOthers");
        Ok(ensure!(found.is_none(), "{found:?}"))
    })
    .await
}

async fn what_prometheus_operator_reads_is_known(env: Env) -> Result<()> {
    let case = set_up(&env).await?;
    let namespace = &case.namespace;
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "podmonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": "PodMonitor", "listKind": "PodMonitorList", "plural": "podmonitors", "singular": "podmonitor"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    let monitor = json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "db", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "db"}}, "podMetricsEndpoints": [{"portNumber": 9187}]},
    });
    fixtures::apply(&case.client, &crd).await?;
    wait::until("the kind to be served", wait::SOON, || fixtures::apply(&case.client, &monitor)).await?;
    fixtures::apply(&case.client, &policy(namespace, "Preview", 5432)).await?;
    let id = format!("ScrapeBlocked/{namespace}/db");
    wait::until("the preview to name the break", wait::SOON, || async {
        let told = case.told("Ready", "True", "Preview").await?;
        Ok(ensure!(told.findings.iter().any(|it| it.id == id), "{told:?}"))
    })
    .await?;
    // With the kind goes what it said.
    let api = fixtures::api_of(&case.client, &crd).await?;
    api.delete("podmonitors.monitoring.coreos.com", &DeleteParams::default()).await?;
    wait::until("the finding to go", wait::SOON, || async {
        let told = case.told("Ready", "True", "Preview").await?;
        Ok(ensure!(!told.findings.iter().any(|it| it.id == id), "{told:?}"))
    })
    .await
}
