//! Container hardening.

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::PostParams};
use rampart::api::{Enforcer, SecurityPolicy};
use serde_json::{Value, json};

use super::{SHOP, WEB, checked, indented, ready, title};
use crate::{fixtures, wait};

/// A policy that asks for restricted:latest.
#[must_use]
pub fn hardening_policy(namespace: &str, mode: &str) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": "hardened", "namespace": namespace},
        "spec": {"hardening": {"mode": mode, "podSecurity": {"level": "restricted"}}},
    })
}

/// A pod that runs as root.
///
/// # Errors
/// None: the JSON is a pod.
pub fn root_pod() -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "root"},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1", "securityContext": {"runAsUser": 0}}]},
    }))?)
}

/// A pod that meets the restricted standard.
///
/// # Errors
/// None: the JSON is a pod.
pub fn good_pod() -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "good"},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "main", "image": "registry.example.com/app:1",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }))?)
}

/// The restricted standard, enforced by webhook and API server.
///
/// # Errors
/// When a step does not go as it must.
pub async fn restricted(client: &Client) -> Result<()> {
    title("Container hardening: the restricted Pod Security Standard, enforced");
    fixtures::namespace(client, SHOP, json!({})).await?;
    fixtures::apply(client, &hardening_policy(SHOP, "Enforce")).await?;
    ready::<SecurityPolicy>(client, SHOP, "hardened").await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), SHOP);
    let refusal = wait::until("a root container to be refused", wait::SOON, || async {
        asked(client, &root_pod()?).await?.err().context("it was admitted")
    })
    .await?;
    println!("{}", indented(&refusal));
    for part in [
        "violates PodSecurity \"restricted:latest\"",
        "runAsNonRoot != true",
        "must set securityContext.runAsNonRoot=true",
    ] {
        ensure!(refusal.contains(part), "the refusal does not say {part:?}");
    }
    checked("a root container was refused, with the reason and what to set");
    pods.create(&PostParams::default(), &good_pod()?).await.context("the good pod")?;
    checked("a hardened one was admitted");
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), SHOP);
    let status = policies.get("hardened").await?.status.and_then(|status| status.hardening).context("no status")?;
    ensure!(status.enforced_by == [Enforcer::Webhook, Enforcer::AdmissionPolicy], "{:?}", status.enforced_by);
    checked("the API server refuses by itself, too: status.hardening.enforcedBy names Webhook and AdmissionPolicy");
    Ok(())
}

/// What the API server makes of a pod in a dry run: the pod, or why it is refused.
async fn asked(client: &Client, pod: &Pod) -> Result<std::result::Result<Pod, String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), SHOP);
    match pods.create(&PostParams { dry_run: true, ..PostParams::default() }, pod).await {
        Ok(pod) => Ok(Ok(pod)),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Err(status.message)),
        Err(other) => Err(other.into()),
    }
}

/// A hardened pod beside the one that is there.
fn another_pod() -> Result<Pod> {
    let mut pod = good_pod()?;
    pod.metadata.name = Some("another".into());
    Ok(pod)
}

/// A cluster policy over it: rules beyond the standard, an exception, pods completed.
///
/// # Errors
/// When a step does not go as it must.
pub async fn platform(client: &Client) -> Result<()> {
    title("The platform team: rules beyond the standard, an exception with an end, and pods completed");
    let covered = json!({"matchLabels": {"kubernetes.io/metadata.name": SHOP}});
    fixtures::apply(client, &json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "platform"},
        "spec": {
            "namespaceSelector": covered, "exceptions": {"namespaces": [SHOP], "maxDuration": "720h"},
            "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}, "fix": "Apply",
                          "rules": {"images": {"allow": ["registry.example.com/*", "rampart.dev/*"]}, "readOnlyRootFilesystem": "Required"}},
        },
    })).await?;
    let mut foreign = another_pod()?;
    let containers = |pod: &mut Pod| {
        pod.spec.get_or_insert_default().containers.iter_mut().map(|it| it.image = Some("nginx:1".into())).count()
    };
    ensure!(containers(&mut foreign) == 1);
    let refusal = wait::until("an image from elsewhere to be refused", wait::SOON, || async {
        let refusal = asked(client, &foreign).await?.err().context("it was admitted")?;
        ensure!(refusal.contains("hardening/images.allow"), "{refusal}");
        Ok(refusal)
    })
    .await?;
    println!("{}", indented(&refusal));
    checked("an image from elsewhere was refused by a rule beyond the standard");

    let completed = wait::until("a pod to be completed", wait::SOON, || async {
        asked(client, &another_pod()?).await?.map_err(anyhow::Error::msg)
    })
    .await?;
    let contexts =
        completed.spec.iter().flat_map(|spec| &spec.containers).filter_map(|it| it.security_context.as_ref());
    ensure!(contexts.filter(|it| it.read_only_root_filesystem == Some(true)).count() == 1, "it is not read-only");
    checked("a pod that left its root filesystem writable was completed by fix: Apply, and admitted");

    let mut agent = another_pod()?;
    let logs = serde_json::from_value(json!({"name": "logs", "hostPath": {"path": "/var/log"}}))?;
    agent.spec.get_or_insert_default().volumes = Some(vec![logs]);
    ensure!(asked(client, &agent).await?.is_err(), "a pod with the node's logs was admitted");
    let tomorrow = Timestamp::now() + std::time::Duration::from_hours(24);
    fixtures::apply(client, &json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "PolicyException",
        "metadata": {"name": "log-agent", "namespace": SHOP},
        "spec": {
            "policies": [{"kind": "SecurityPolicy", "name": "hardened"}, {"kind": "ClusterSecurityPolicy", "name": "platform"}],
            "rules": ["pss/hostPathVolumes", "pss/restrictedVolumes"], "images": ["registry.example.com/app"],
            "reason": "the log agent reads the node's logs", "expiresAt": tomorrow.to_string(),
        },
    })).await?;
    wait::until("the exception to hold", wait::SOON, || async {
        asked(client, &agent).await?.map(drop).map_err(anyhow::Error::msg)
    })
    .await?;
    checked(
        "a log agent with a hostPath was refused, and is admitted until tomorrow by a PolicyException for its image",
    );
    Ok(())
}

/// Pods that were there before, of the story of the network.
///
/// # Errors
/// When a step does not go as it must.
pub async fn scanned(client: &Client) -> Result<()> {
    title("Pods that were there before: counted, and named with the rules that they violate");
    fixtures::apply(client, &hardening_policy(WEB, "Audit")).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), WEB);
    let found = wait::until("the pods to be counted", wait::SOON, || async {
        let status = policies.get("hardened").await?.status.and_then(|status| status.hardening).context("no status")?;
        ensure!(status.pods.is_some_and(|pods| pods.violating == 4), "{:?}", status.pods);
        Ok(status)
    })
    .await?;
    for sample in &found.samples {
        println!("{}", indented(&format!("{} {}: {}", sample.kind, sample.name, sample.rules.join(", "))));
    }
    ensure!(found.samples.len() == 4, "{:?}", found.samples);
    checked("status.hardening counts 4 pods that would be refused, and names their workloads");
    Ok(())
}
