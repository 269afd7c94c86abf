//! ClusterSecurityPolicies: webhook and floor, by the labels of namespaces.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};
use rampart::api::{ClusterSecurityPolicy, Enforcer, SecurityPolicy};
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests, admission::post};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("cluster_policy::covers_by_label_whatever_namespaces_ask", covers_by_label);
    tests.add("cluster_policy::what_is_no_selector_is_refused", what_is_no_selector_is_refused);
}

const NAME: &str = "web-baseline";

fn policy(mode: &str, included: &[&str]) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": NAME},
        "spec": {
            "namespaceSelector": {"matchLabels": {"tier": "web"}}, "includeSystemNamespaces": included,
            "hardening": {"mode": mode, "podSecurity": {"level": "baseline"}},
        },
    })
}

/// A dry run of a pod on the node's network: code, message, warnings.
async fn post_host_pod(client: &Client, namespace: &str) -> Result<(u16, String, Vec<String>)> {
    let mut pod = serde_json::to_value(stories::good_pod()?)?;
    pod["spec"]["hostNetwork"] = json!(true);
    post(client, &format!("/api/v1/namespaces/{namespace}/pods"), &pod).await
}

async fn refused(client: &Client, namespace: &str, wanted: bool) -> Result<()> {
    wait::until(&format!("a pod in {namespace} to be refused: {wanted}"), wait::SOON, || async {
        let (code, body, _) = post_host_pod(client, namespace).await?;
        ensure!(code == if wanted { 403 } else { 201 }, "{code}: {body}");
        Ok(())
    })
    .await
}

async fn covers_by_label(env: Env) -> Result<()> {
    let (client, outside) = env.namespace().await?;
    let (_, inside) = env.namespace().await?;
    fixtures::namespace(&client, &inside, json!({"tier": "web"})).await?;
    fixtures::apply(&client, &policy("Warn", &[])).await?;
    wait::until("a warning that names the policy", wait::SOON, || async {
        let (code, body, warnings) = post_host_pod(&client, &inside).await?;
        let named = warnings.iter().any(|it| it.ends_with("[ClusterSecurityPolicy web-baseline]"));
        ensure!(code == 201 && named, "{code}: {body} {warnings:?}");
        Ok(())
    })
    .await?;

    fixtures::apply(&client, &policy("Enforce", &[])).await?;
    let policies: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    wait::until("status to say what enforces", wait::SOON, || async {
        let status = policies.get(NAME).await?.status.context("no status")?;
        let by = status.hardening.context("no hardening in status")?.enforced_by;
        ensure!(by == [Enforcer::Webhook, Enforcer::AdmissionPolicy], "{by:?}");
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").context("not Ready")?;
        ensure!(ready.status == "True", "{ready:?}");
        Ok(())
    })
    .await?;
    refused(&client, &inside, true).await?;
    refused(&client, &outside, false).await?;
    // A namespace can't take back what the cluster asks, and one that is new is covered from its first pod.
    fixtures::apply(&client, &stories::hardening_policy(&inside, "Disabled")).await?;
    stories::ready::<SecurityPolicy>(&client, &inside, "hardened").await?;
    let (code, body, _) = post_host_pod(&client, &inside).await?;
    ensure!(code == 403, "{code}: {body}");
    let (_, fresh) = env.namespace().await?;
    fixtures::namespace(&client, &fresh, json!({"tier": "web"})).await?;
    refused(&client, &fresh, true).await?;
    fixtures::namespace(&client, &fresh, json!({"tier": "other"})).await?;
    refused(&client, &fresh, false).await?;

    // System namespaces are left out, unless they are named.
    fixtures::namespace(&client, "kube-public", json!({"tier": "web"})).await?;
    refused(&client, "kube-public", false).await?;
    fixtures::apply(&client, &policy("Enforce", &["kube-public"])).await?;
    refused(&client, "kube-public", true).await?;

    policies.delete(NAME, &DeleteParams::default()).await?;
    refused(&client, &inside, false).await?;
    let floors: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    wait::until("its admission policies to go", wait::SOON, || async {
        let left = floors.list(&ListParams::default().labels("rampart.dev/part=floor")).await?.items;
        // Other tests have others.
        let is_ours = |policy: &&ValidatingAdmissionPolicy| {
            let constraints = policy.spec.as_ref().and_then(|spec| spec.match_constraints.as_ref());
            let selector = constraints.and_then(|constraints| constraints.namespace_selector.as_ref());
            selector.is_some_and(|it| it.match_labels.as_ref().is_some_and(|labels| labels.contains_key("tier")))
        };
        ensure!(left.iter().find(is_ours).is_none(), "one is left");
        Ok(())
    })
    .await
}

async fn what_is_no_selector_is_refused(env: Env) -> Result<()> {
    let client = env.shared().await?.plane.client();
    for (change, said) in [
        (json!({"namespaceSelector": {"matchLabels": {"a b": "c"}}}), "spec.namespaceSelector"),
        (json!({"includeSystemNamespaces": ["rampart-system"]}), "spec.includeSystemNamespaces[0]"),
        (json!({"namespaceSelector": null}), "spec.namespaceSelector"),
    ] {
        let mut bad = policy("Audit", &[]);
        bad["metadata"]["name"] = json!("bad");
        for (key, value) in change.as_object().into_iter().flatten() {
            bad["spec"][key] = value.clone();
        }
        let (code, body, _) = post(&client, "/apis/rampart.dev/v1alpha1/clustersecuritypolicies", &bad).await?;
        ensure!(code == 422 && body.contains(said), "{code}: {body}");
    }
    Ok(())
}
