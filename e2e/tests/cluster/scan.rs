//! The background scan: pods that were there before a policy, as its status tells of them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use rampart::api::{ClusterSecurityPolicy, HardeningStatus, PodCounts, PolicyException, Sample, SecurityPolicy};
use rampart_e2e::{fixtures, stories, wait};
use serde_json::json;

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("scan::counts_pods_that_were_there_before", counts_pods);
}

const LABEL: &str = "scanned";

/// A Deployment of two pods that violate, a good pod, one that violates, and one that did and has finished.
async fn workloads(client: &Client, namespace: &str) -> Result<()> {
    let (root, good) = (serde_json::to_value(stories::root_pod()?)?, serde_json::to_value(stories::good_pod()?)?);
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": root["spec"]});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    });
    fixtures::apply(client, &deployment).await?;
    for (name, pod) in [("good", good), ("alone", root.clone()), ("finished", root)] {
        let metadata = json!({"name": name, "namespace": namespace});
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]});
        // On no node, kwok does not say that it runs.
        pod["spec"]["schedulerName"] = json!("none");
        fixtures::apply(client, &pod).await?;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let done = json!({"status": {"phase": "Succeeded"}});
    let finished = pods.patch_status("finished", &PatchParams::default(), &Patch::Merge(done)).await?;
    ensure!(finished.status.and_then(|status| status.phase).as_deref() == Some("Succeeded"));
    Ok(())
}

fn counts(selected: u32, compliant: u32, violating: u32, exempt: u32) -> PodCounts {
    PodCounts { selected, compliant, violating, exempt }
}

fn shown(samples: &[Sample]) -> Vec<(&str, &str, u32)> {
    samples.iter().map(|it| (it.kind.as_str(), it.name.as_str(), it.pods)).collect()
}

async fn own(client: &Client, namespace: &str, wanted: PodCounts) -> Result<HardeningStatus> {
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("{wanted:?}"), wait::SOON, || async {
        let status = policies.get("hardened").await?.status.and_then(|status| status.hardening).context("no status")?;
        ensure!(status.pods == Some(wanted), "{:?} {:?}", status.pods, shown(&status.samples));
        Ok(status)
    })
    .await
}

async fn counts_pods(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    workloads(&client, &namespace).await?;
    fixtures::apply(&client, &stories::hardening_policy(&namespace, "Audit")).await?;
    let status = own(&client, &namespace, counts(4, 1, 3, 0)).await?;
    ensure!(shown(&status.samples) == [("Deployment", "web", 2), ("Pod", "alone", 1)], "{status:?}");
    ensure!(status.samples[0].message.contains("runAsNonRoot != true"), "{status:?}");

    // The rules of a sample are those that an exception names.
    let rules = status.samples[0].rules.clone();
    covered_by_cluster_policy(&client, &namespace).await?;
    except(&client, &namespace, &rules).await?;
    let status = own(&client, &namespace, counts(4, 1, 0, 3)).await?;
    ensure!(status.samples.is_empty(), "{status:?}");

    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete("alone", &at_once).await?;
    own(&client, &namespace, counts(3, 1, 0, 2)).await.map(drop)
}

/// By label: it covers the namespace from when it is labelled.
async fn covered_by_cluster_policy(client: &Client, namespace: &str) -> Result<()> {
    let policy = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": LABEL},
        "spec": {"namespaceSelector": {"matchLabels": {LABEL: "true"}},
                 "hardening": {"mode": "Audit", "podSecurity": {"level": "restricted"}},
                 "exceptions": {"namespaces": [namespace], "maxDuration": "1h"}},
    });
    fixtures::apply(client, &policy).await?;
    let policies: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    let status = |wanted: PodCounts| {
        let policies = policies.clone();
        async move {
            wait::until(&format!("{wanted:?} of the ClusterSecurityPolicy"), wait::SOON, || async {
                let status = policies.get(LABEL).await?.status.and_then(|it| it.hardening).context("no status")?;
                ensure!(status.pods == Some(wanted), "{status:?}");
                Ok(status)
            })
            .await
        }
    };
    status(counts(0, 0, 0, 0)).await?;
    fixtures::namespace(client, namespace, json!({LABEL: "true"})).await?;
    let seen = status(counts(4, 1, 3, 0)).await?;
    ensure!(seen.samples.iter().all(|it| it.namespace.as_deref() == Some(namespace)), "{seen:?}");
    Ok(())
}

async fn except(client: &Client, namespace: &str, rules: &[String]) -> Result<()> {
    let exception = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "PolicyException",
        "metadata": {"name": "legacy", "namespace": namespace},
        "spec": {"policies": [{"kind": "SecurityPolicy", "name": "hardened"}], "rules": rules,
                 "images": ["**"], "reason": "being rewritten",
                 "expiresAt": (Timestamp::now() + Duration::from_mins(30)).to_string()},
    });
    fixtures::apply(client, &exception).await?;
    let exceptions: Api<PolicyException> = Api::namespaced(client.clone(), namespace);
    wait::until("the pods that rely on the exception", wait::SOON, || async {
        let status = exceptions.get("legacy").await?.status.context("no status")?;
        ensure!(status.pods_relying == Some(3), "{status:?}");
        Ok(())
    })
    .await
}
