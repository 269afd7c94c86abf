//! Real manifests that nobody of this project wrote: what we warn about is what Pod Security Admission
//! warns about, no more and no less, in the same words.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use rampart_e2e::{Options, binaries, fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests, admission::post};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("psa::warnings_equal_those_of_pod_security_admission", warnings_equal);
}

/// Kinds with pods, and where they are created.
const KINDS: [(&str, &str, &str); 8] = [
    ("Pod", "/api/v1", "pods"),
    ("ReplicationController", "/api/v1", "replicationcontrollers"),
    ("ReplicaSet", "/apis/apps/v1", "replicasets"),
    ("Deployment", "/apis/apps/v1", "deployments"),
    ("StatefulSet", "/apis/apps/v1", "statefulsets"),
    ("DaemonSet", "/apis/apps/v1", "daemonsets"),
    ("Job", "/apis/batch/v1", "jobs"),
    ("CronJob", "/apis/batch/v1", "cronjobs"),
];

/// Manifests that were compared on 2026-11-22; fewer would mean that the test looks elsewhere.
const AT_LEAST: usize = 63;

fn manifests(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            manifests(&path, found)?;
        } else if path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "in") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

/// Some manifests are templates of Go or of scripts; what is filled in matters to no check.
fn filled_in(text: &str) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        filled.push_str("filled-in");
        rest = after.split_once("}}").map_or("", |(_, rest)| rest);
    }
    filled + rest
}

/// What Rampart warns of in an object, and what Pod Security Admission does; or why the API server refuses it.
async fn warned(client: &Client, path: &str, object: &Value) -> Result<Result<[Option<String>; 2], String>> {
    let (code, body, warnings) = post(client, path, object).await?;
    if !(200..300).contains(&code) {
        return Ok(Err(body));
    }
    let suffix = " [SecurityPolicy hardened]";
    let (rampart, reference): (Vec<String>, Vec<String>) = warnings.into_iter().partition(|it| it.ends_with(suffix));
    let rampart = rampart.first().map(|it| it.trim_end_matches(suffix).to_owned());
    Ok(Ok([rampart, reference.into_iter().find(|it| it.starts_with("would violate PodSecurity"))]))
}

async fn warnings_equal(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let label =
        json!({"pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/enforce": "privileged"});
    fixtures::namespace(&client, &namespace, label).await?;
    fixtures::apply(&client, &stories::hardening_policy(&namespace, "Warn")).await?;
    let mut bare = serde_json::to_value(stories::root_pod()?)?;
    bare["apiVersion"] = json!("v1");
    bare["kind"] = json!("Pod");
    wait::until("both to warn", wait::SOON, || async {
        let (_, _, warnings) = post(&client, &format!("/api/v1/namespaces/{namespace}/pods"), &bare).await?;
        ensure!(warnings.len() == 2, "{warnings:?}");
        Ok(())
    })
    .await?;

    let module = binaries::kubernetes_source(&Options::default().kubernetes)?;
    let mut files = vec![];
    for dir in ["test/e2e/testing-manifests", "cluster/addons"] {
        manifests(&module.join(dir), &mut files)?;
    }
    let (mut compared, mut refused, mut unread) = (0, vec![], vec![]);
    for file in files {
        let shown = file.strip_prefix(&module)?.display().to_string();
        let Ok(documents) = fixtures::parse(&filled_in(&std::fs::read_to_string(&file)?)) else {
            unread.push(shown);
            continue;
        };
        for mut object in documents {
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            let Some((_, group, plural)) = KINDS.iter().find(|(known, ..)| *known == kind) else { continue };
            object["metadata"]["namespace"] = json!(namespace);
            let path = format!("{group}/namespaces/{namespace}/{plural}");
            let mut told = warned(&client, &path, &object).await?;
            // The API server goes on without a webhook that is late: a difference counts if it stays.
            if told.as_ref().is_ok_and(|[rampart, wanted]| rampart != wanted) {
                told = warned(&client, &path, &object).await?;
            }
            let [rampart, wanted] = match told {
                Ok(told) => told,
                Err(body) => {
                    refused.push(format!("{shown}: {body}"));
                    continue;
                }
            };
            ensure!(rampart == wanted, "{shown}, {kind}:\n  ours {rampart:?}\n  reference {wanted:?}");
            compared += 1;
        }
    }
    println!("{compared} manifests compared; {} refused by the API server; {} not YAML", refused.len(), unread.len());
    ensure!(compared >= AT_LEAST, "only {compared} were compared; refused: {refused:#?}; not YAML: {unread:#?}");
    Ok(())
}
