//! `rampart import psa-labels`: what it prints refuses and warns of what Pod Security Admission does.

use std::process::Command;

use anyhow::{Result, ensure};
use kube::Client;
use rampart_e2e::{fixtures, pods::Pods, seed, wait};
use serde_json::{Value, json};

use crate::{Env, Tests, admission::post, floor::path};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("import::policies_say_what_the_labels_say", same_answers);
}

/// Random pods that are asked about in both namespaces, at the least, and at the most.
const PODS: (usize, usize) = (60, 600);
/// So many must be refused, and so many warned of, for the rest to say something: what comes at random may be late.
const EACH: usize = 6;

/// The policies that the command prints for a namespace.
fn imported(kubeconfig: &std::path::Path, namespace: &str) -> Result<Vec<Value>> {
    let output = Command::new(rampart_e2e::operator::binary()?)
        .args(["import", "psa-labels", "--kubeconfig"])
        .arg(kubeconfig)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let policies = fixtures::parse(&String::from_utf8(output.stdout)?)?;
    Ok(policies.into_iter().filter(|policy| policy["metadata"]["namespace"] == namespace).collect())
}

/// What is said of a pod, without who says it: why it is refused, or what is warned of.
async fn said(client: &Client, namespace: &str, pod: &Value) -> Result<(u16, Vec<String>)> {
    let mut pod = pod.clone();
    pod["metadata"]["namespace"] = json!(namespace);
    let (code, body, warnings) = post(client, &path(namespace), &pod).await?;
    let what = |text: &str| -> Option<String> {
        let (_, said) = text.split_once("PodSecurity \"")?;
        let end = [" [", "; to fix"].iter().filter_map(|end| said.find(end)).min().unwrap_or(said.len());
        Some(said[..end].to_owned())
    };
    let answer: Value = serde_json::from_str(&body)?;
    let refused = what(answer["message"].as_str().unwrap_or_default());
    Ok((code, refused.into_iter().chain(warnings.iter().filter_map(|warning| what(warning))).collect()))
}

async fn same_answers(env: Env) -> Result<()> {
    let (client, labelled) = env.namespace().await?;
    let (_, policed) = env.namespace().await?;
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30",
        "pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/audit": "baseline",
    });
    fixtures::namespace(&client, &labelled, labels).await?;
    let policies = imported(&env.shared().await?.plane.admin_kubeconfig()?, &labelled)?;
    ensure!(policies.len() == 2, "{policies:?}");
    for mut policy in policies {
        policy["metadata"]["namespace"] = json!(policed);
        fixtures::apply(&client, &policy).await?;
    }
    let both =
        async |pod: &Value| anyhow::Ok((said(&client, &labelled, pod).await?, said(&client, &policed, pod).await?));
    let mut privileged = serde_json::to_value(rampart_e2e::stories::root_pod()?)?;
    let warned = privileged.clone();
    privileged["spec"]["hostNetwork"] = json!(true);
    for pod in [&privileged, &warned] {
        wait::until("both to say the same", wait::SOON, || async {
            let (theirs, ours) = both(pod).await?;
            ensure!(theirs == ours && !ours.1.is_empty(), "{ours:?}, not {theirs:?}");
            Ok(())
        })
        .await?;
    }
    let seed = seed();
    let (mut refused, mut warned) = (0, 0);
    for (nth, made) in Pods::new(seed).take(PODS.1).enumerate() {
        if nth >= PODS.0 && refused >= EACH && warned >= EACH {
            break;
        }
        let mut pod = rampart_e2e::pods::acceptable(made.pod);
        pod["metadata"]["name"] = json!("random");
        let (mut theirs, mut ours) = both(&pod).await?;
        // The API server goes on without a webhook that is late: a difference counts if it stays.
        if theirs != ours {
            (theirs, ours) = both(&pod).await?;
        }
        ensure!(theirs == ours, "RAMPART_SEED={seed}: {ours:?}, not {theirs:?}\n{pod}");
        refused += usize::from(theirs.0 == 403);
        warned += usize::from(theirs.0 == 201 && !theirs.1.is_empty());
    }
    ensure!(refused >= EACH && warned >= EACH, "RAMPART_SEED={seed}: only {refused} were refused, {warned} warned of");
    Ok(())
}
