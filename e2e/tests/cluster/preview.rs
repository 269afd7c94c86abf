//! What a change of policies or labels would refuse of the pods that are there, in the warnings of that change.

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests, admission::post};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("preview::changes_count_the_pods_that_they_would_refuse", changes_count);
}

const LABEL: &str = "previewed";
const WHY: &str =
    "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, runAsUser=0, seccompProfile";

async fn label(client: &Client, namespace: &str) -> Result<Vec<String>> {
    let request = http::Request::patch(format!("/api/v1/namespaces/{namespace}?dryRun=All"))
        .header("Content-Type", "application/merge-patch+json")
        .body(kube::client::Body::from(serde_json::to_vec(&json!({"metadata": {"labels": {LABEL: "true"}}}))?))?;
    let answer = client.send(request).await?;
    let warnings = answer.headers().get_all("warning").iter().filter_map(|value| value.to_str().ok());
    Ok(warnings.map(ToOwned::to_owned).collect())
}

async fn changes_count(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let (root, good) = (serde_json::to_value(stories::root_pod()?)?, serde_json::to_value(stories::good_pod()?)?);
    for (name, pod) in [("good", good), ("root-b", root.clone()), ("root-a", root)] {
        let metadata = json!({"name": name, "namespace": namespace});
        fixtures::apply(
            &client,
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}),
        )
        .await?;
    }
    let path = format!("/apis/rampart.dev/v1alpha1/namespaces/{namespace}/securitypolicies");
    let title =
        format!("existing pods in namespace \"{namespace}\" violate what SecurityPolicy hardened comes to enforce");
    let wanted = [title, format!("root-a (and 1 other pod): {WHY}")];
    // Who has not read all pods in its time warns of none.
    wait::until("a warning of the pods", wait::SOON, || async {
        let (code, body, warnings) = post(&client, &path, &stories::hardening_policy(&namespace, "Enforce")).await?;
        Ok(ensure!(code == 201 && warnings == wanted, "{code} {body} {warnings:?}"))
    })
    .await?;
    let (_, _, warnings) = post(&client, &path, &stories::hardening_policy(&namespace, "Audit")).await?;
    ensure!(warnings.is_empty(), "an audit refuses nothing: {warnings:?}");

    let policy = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": LABEL},
        "spec": {"namespaceSelector": {"matchLabels": {LABEL: "true"}},
                 "hardening": {"mode": "Enforce", "podSecurity": {"level": "restricted"}}},
    });
    fixtures::apply(&client, &policy).await?;
    wait::until("a warning of the label", wait::SOON, || async {
        let warnings = label(&client, &namespace).await?;
        let first = warnings.first().context("no warning")?;
        ensure!(first.contains("violate what ClusterSecurityPolicy previewed comes to enforce"), "{warnings:?}");
        ensure!(warnings.get(1).is_some_and(|it| it.contains("root-a (and 1 other pod): ")), "{warnings:?}");
        Ok(())
    })
    .await?;
    fixtures::namespace(&client, &namespace, json!({LABEL: "true"})).await?;
    let mut other: Value = policy;
    other["metadata"]["name"] = json!("previewed-too");
    wait::until("a warning of a ClusterSecurityPolicy", wait::SOON, || async {
        let path = "/apis/rampart.dev/v1alpha1/clustersecuritypolicies";
        let (code, body, warnings) = post(&client, path, &other).await?;
        let counted = format!("2 pods: {WHY}");
        ensure!(code == 201 && warnings.get(1) == Some(&counted), "{code} {body} {warnings:?}");
        Ok(())
    })
    .await
}
