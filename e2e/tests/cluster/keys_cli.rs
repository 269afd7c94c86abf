//! `rampart keys`: what is listed, asked for and revoked.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rampart::api::{ApiKey, VersionState};
use rampart_e2e::{fixtures, operator, stories};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("keys_cli::versions_are_listed_and_never_a_key", versions_are_listed);
    tests.add("keys_cli::a_rotation_is_asked_for_and_waited_for", rotation_is_asked_for);
    tests.add("keys_cli::what_can_not_be_rotated_is_told", what_can_not_be_rotated);
    tests.add("keys_cli::a_revocation_is_asked_for_once_and_with_a_reason", revocation_is_asked_for);
}

/// Exit code, and what is printed and said.
fn keys(kubeconfig: &Path, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(operator::binary()?);
    let command = command.arg("keys").args(arguments).arg("--kubeconfig").arg(kubeconfig).stdin(Stdio::null());
    let output = command.output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

async fn versions_are_listed(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    fixtures::apply(&client, &stories::api_key(&namespace)).await?;
    let live = stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    let id = live.status.context("a status")?.versions.pop().context("a version")?.id;
    let secret = Api::<Secret>::namespaced(client.clone(), &namespace).get("orders-key").await?;
    let material = secret.data.and_then(|mut data| data.remove("API_KEY")).context("the key")?;
    let material = String::from_utf8(material.0)?;

    let (code, out, err) = keys(&kubeconfig, &["list", "orders", "-n", &namespace])?;
    ensure!(code == Some(0) && out.contains(&id) && out.contains("Current"), "{code:?} {out} {err}");
    let (code, json, err) = keys(&kubeconfig, &["list", "-A", "-o", "json"])?;
    ensure!(code == Some(0), "{err}");
    let told: Value = serde_json::from_str(&json)?;
    let rows = told["keys"].as_array().context("keys")?;
    let row = rows.iter().find(|row| row["namespace"] == namespace.as_str()).context("a row")?;
    ensure!(
        row["versions"][0]["id"] == id.as_str() && row["ready"] == true && row["owner"] == namespace.as_str(),
        "{row}"
    );
    ensure!(![out, json].iter().any(|told| told.contains(&material)), "the key is told");

    let mut explain = Command::new(operator::binary()?);
    let explained =
        explain.args(["explain", "rkey/orders", "-n", &namespace, "--kubeconfig"]).arg(&kubeconfig).output()?;
    let told = String::from_utf8(explained.stdout)?;
    ensure!(explained.status.success() && told.contains("role: Viewer") && told.contains(&id), "{told}");
    ensure!(!told.contains(&material), "the key is told");

    let (code, _, err) = keys(&kubeconfig, &["list", "other", "-n", &namespace])?;
    ensure!(code == Some(2) && err.contains("there is no ApiKey other"), "{code:?} {err}");
    Ok(())
}

async fn rotation_is_asked_for(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    fixtures::apply(&client, &stories::api_key(&namespace)).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    // Three in a row are three rotations, whatever fits into a second.
    for n in 2..=4 {
        let (code, _, err) = keys(&kubeconfig, &["rotate", "orders", "-n", &namespace, "--wait", "--timeout=60s"])?;
        ensure!(code == Some(0) && err.contains(&format!("version {n} with id ")), "{code:?} {err}");
    }
    let live = Api::<ApiKey>::namespaced(client.clone(), &namespace).get("orders").await?;
    let versions = live.status.context("a status")?.versions;
    let valid = versions.iter().filter(|it| it.state == VersionState::Deprecated).count();
    ensure!(valid == 3, "{versions:?}");
    let managers = live.metadata.managed_fields.unwrap_or_default();
    ensure!(managers.iter().any(|it| it.manager.as_deref() == Some("rampart-cli")), "{managers:?}");
    Ok(())
}

async fn what_can_not_be_rotated(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let mut key = stories::api_key(&namespace);
    key["spec"]["ttl"] = json!("24h");
    key["spec"]["rotation"] = json!({"policy": "Disabled"});
    fixtures::apply(&client, &key).await?;
    let rotate = ["rotate", "orders", "-n", &namespace, "--wait"];
    let (code, _, err) = keys(&kubeconfig, &rotate)?;
    ensure!(code == Some(2) && err.contains("spec.rotation.policy is Disabled"), "{code:?} {err}");
    let (code, _, err) = keys(&kubeconfig, &["rotate", "other", "-n", &namespace])?;
    ensure!(code == Some(2) && err.contains("there is no ApiKey other"), "{code:?} {err}");

    // Pods of Jobs fail in this namespace: why there is no new version is said at once.
    fixtures::namespace(&client, "failing", json!({})).await?;
    let mut failing = stories::api_key("failing");
    failing["metadata"]["name"] = json!("failing-cli");
    failing["spec"]["secret"]["name"] = json!("failing-cli");
    fixtures::apply(&client, &failing).await?;
    let (code, _, err) = keys(&kubeconfig, &["rotate", "failing-cli", "-n", "failing", "--wait", "--timeout=60s"])?;
    ensure!(code == Some(1) && err.contains("TestFailed: the test of version 1 failed"), "{code:?} {err}");
    Ok(())
}

async fn revocation_is_asked_for(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    fixtures::apply(&client, &stories::api_key(&namespace)).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    let api: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    let revoke =
        |more: &[&str]| keys(&kubeconfig, &[&["revoke", "orders", "-n", &namespace, "--no-wait"], more].concat());
    let (code, _, err) = revoke(&["--reason=Leaked"])?;
    ensure!(code == Some(2) && err.contains("say --yes"), "{code:?} {err}");
    let (code, _, err) = revoke(&["--reason=", "--yes"])?;
    ensure!(code == Some(2) && err.contains("--reason must say why"), "{code:?} {err}");
    ensure!(api.get("orders").await?.spec.revocation.is_none(), "nothing was agreed to");

    let (code, _, err) = revoke(&["--reason=Leaked", "--yes"])?;
    ensure!(code == Some(0) && err.contains("can't be taken back"), "{code:?} {err}");
    let reason = async || anyhow::Ok(api.get("orders").await?.spec.revocation.map(|it| it.reason));
    ensure!(reason().await?.as_deref() == Some("Leaked"));
    let (code, _, err) = revoke(&["--reason=Again", "--yes"])?;
    ensure!(code == Some(0) && err.contains("is revoked already: Leaked"), "{code:?} {err}");
    ensure!(reason().await?.as_deref() == Some("Leaked"), "the first reason stays");
    let rotated = keys(&kubeconfig, &["rotate", "orders", "-n", &namespace])?;
    ensure!(rotated.0 == Some(2) && rotated.2.contains("it is revoked"), "{rotated:?}");
    let back = Patch::Merge(json!({"spec": {"revocation": null}}));
    ensure!(api.patch("orders", &PatchParams::default(), &back).await.is_err(), "a revocation was taken back");
    Ok(())
}
