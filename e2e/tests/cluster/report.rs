//! `rampart report`: what is told of a cluster, and what is not told to whom may not read it.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use rampart::api::ApiKey;
use rampart_e2e::{fixtures, operator, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests, explain::reader};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("report::names_what_there_is_and_how_far_it_is_in_force", names_what_there_is);
    tests.add("report::what_may_not_be_read_is_named_and_the_rest_is_told", what_may_not_be_read);
}

/// Exit code, and what is printed and said.
fn report(kubeconfig: &Path, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(operator::binary()?);
    let output = command.arg("report").args(arguments).arg("--kubeconfig").arg(kubeconfig).output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

fn in_json(kubeconfig: &Path, arguments: &[&str]) -> Result<Value> {
    let (code, out, err) = report(kubeconfig, &[arguments, &["-o", "json"]].concat())?;
    ensure!(code == Some(0), "{code:?} {err}");
    let told: Value = serde_json::from_str(&out)?;
    ensure!(told["schemaVersion"] == 1, "{told}");
    Ok(told)
}

/// A policy of each kind, an exception, a key, retention, and a hold.
fn objects(namespace: &str) -> Result<Vec<Value>> {
    let named = |kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": "rampart.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": namespace},
               "spec": spec})
    };
    let platform = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy",
        "metadata": {"name": format!("{namespace}-platform")},
        "spec": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                 "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}},
                 "exceptions": {"namespaces": [namespace], "maxDuration": "720h"}}});
    let own = json!({"dataClass": "Internal", "hardening": {"mode": "Audit", "podSecurity": {"level": "restricted"}},
        "network": {"mode": "Enforce", "podSelector": {}, "isolate": ["Ingress"]}});
    let exception = json!({"policies": [{"kind": "SecurityPolicy", "name": "web"}], "rules": ["pss/runAsNonRoot"],
        "images": ["registry.example.com/agent"], "reason": "until <b>it</b> is rewritten",
        "expiresAt": (Timestamp::now() + Duration::from_hours(24)).to_string()});
    let hold = json!({"resources": [{"resource": "configmaps"}], "selector": {"matchLabels": {"case": "17"}},
                      "indefinite": true, "ground": "litigation", "caseRef": "C-17"});
    let mut all = stories::retention_fixtures(namespace, 1, 1)?;
    all.extend([
        platform,
        named("SecurityPolicy", "web", own),
        named("PolicyException", "agent", exception),
        named("LegalHold", "case-17", hold),
        stories::api_key(namespace),
        stories::retention_policy(namespace, "DryRun"),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": namespace},
               "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1",
                                        "env": [{"name": "PASSWORD", "value": "hunter2"}]}]}}),
    ]);
    Ok(all)
}

async fn set_up(env: &Env) -> Result<(Client, String)> {
    let (client, namespace) = env.namespace().await?;
    for object in objects(&namespace)? {
        fixtures::apply(&client, &object).await.with_context(|| object.to_string())?;
    }
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    Ok((client, namespace))
}

/// The item of a section with this name.
fn item<'t>(told: &'t Value, section: &str, field: &str, name: &str) -> Result<&'t Value> {
    let items = told[section]["items"].as_array().with_context(|| format!("no section {section}"))?;
    items.iter().find(|it| it[field] == name).with_context(|| format!("{section} does not name {name}: {items:#?}"))
}

/// Whether everything that was made is told as it is; not so before the operator has seen it.
fn is_told(told: &Value, namespace: &str) -> Result<()> {
    ensure!(told["unread"] == json!([]), "{}", told["unread"]);
    let posture = item(told, "posture", "namespace", namespace)?;
    let hardening = &posture["hardening"];
    ensure!(hardening["level"] == "baseline" && hardening["mode"] == "Enforce", "{posture:#}");
    ensure!(hardening["state"] == "InForce", "{posture:#}");
    let by = hardening["enforcedBy"].as_array().context("enforcedBy")?;
    ensure!(by.contains(&json!("AdmissionPolicy")), "{posture:#}");
    ensure!(posture["ingress"] == "All" && posture["egress"] == "None", "{posture:#}");
    let platform = format!("{namespace}-platform");
    let names: Vec<&str> =
        posture["policies"].as_array().into_iter().flatten().filter_map(|it| it["name"].as_str()).collect();
    ensure!(names.contains(&"web") && names.contains(&platform.as_str()), "{names:?}");

    let violated = item(told, "violations", "rule", "pss/runAsNonRoot")?;
    ensure!(violated["workloads"][0]["name"] == "web" && violated["pods"] == 1, "{violated:#}");
    let exception = item(told, "exceptions", "name", "agent")?;
    ensure!(exception["state"] == "Active" && exception["expiresAt"].is_string(), "{exception:#}");
    let key = item(told, "keys", "name", "orders")?;
    ensure!(key["state"] == "InUse" && key["ageDays"] == 0 && key["nextRotationTime"].is_string(), "{key:#}");
    let retention = &told["retention"]["items"][0]["policies"][0];
    ensure!(
        retention["name"] == "exports" && retention["mode"] == "DryRun" && retention["wouldDelete"] == 1,
        "{retention:#}"
    );
    let hold = item(told, "holds", "name", "case-17")?;
    ensure!(hold["state"] == "Active" && hold["caseRef"] == "C-17", "{hold:#}");
    let network = item(told, "network", "name", "web")?;
    ensure!(network["state"] == "InForce" && network["isolated"]["ingress"].as_i64() >= Some(1), "{network:#}");
    let control = item(told, "controls", "id", "keyRotation")?;
    ensure!(control["inForce"] == json!([namespace]) && control["namespaces"] == 1, "{control:#}");
    let control = item(told, "controls", "id", "runAsNonRoot")?;
    ensure!(control["partial"] == json!([namespace]), "{control:#}");
    Ok(())
}

async fn names_what_there_is(env: Env) -> Result<()> {
    let (client, namespace) = set_up(&env).await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let secret = Api::<Secret>::namespaced(client.clone(), &namespace).get("orders-key").await?;
    let material = secret.data.and_then(|mut data| data.remove("API_KEY")).context("the key")?;
    let material = String::from_utf8(material.0)?;
    wait::until("the report to tell everything", wait::SOON, || async {
        is_told(&in_json(&kubeconfig, &["-n", &namespace])?, &namespace)
    })
    .await?;

    let (_, json, _) = report(&kubeconfig, &["-n", &namespace, "-o", "json"])?;
    let (code, text, err) = report(&kubeconfig, &["-n", &namespace])?;
    ensure!(code == Some(0), "{code:?} {err}");
    println!("{text}");
    let (code, html, err) = report(&kubeconfig, &["-n", &namespace, "-o", "html"])?;
    ensure!(code == Some(0) && html.starts_with("<!DOCTYPE html>"), "{code:?} {err}");
    ensure!(html.contains("until &lt;b&gt;it&lt;/b&gt; is rewritten"), "{html}");
    for told in [&text, &html, &json] {
        for name in ["web", "agent", "orders", "exports", "case-17", "pss/runAsNonRoot", "5.2.7"] {
            ensure!(told.contains(name), "{name} is not told: {told}");
        }
        ensure!(!told.contains(&material) && !told.contains("hunter2"), "a secret is told");
        ensure!(!told.to_lowercase().contains("compliant"), "something is called compliant: {told}");
    }
    // Of the whole cluster, beside what other tests made there.
    let all = in_json(&kubeconfig, &[])?;
    item(&all, "posture", "namespace", &namespace)?;
    ensure!(item(&all, "posture", "namespace", "kube-system")?["system"] == true);
    Ok(())
}

async fn what_may_not_be_read(env: Env) -> Result<()> {
    let (client, namespace) = set_up(&env).await?;
    let rules = json!([{"apiGroups": ["rampart.dev"], "resources": ["securitypolicies"], "verbs": ["get", "list"]}]);
    let tenant = reader(&env, &client, &namespace, "reporter", &rules).await?;
    wait::until("the tenant to be told", wait::SOON, || async {
        let told = in_json(&tenant, &["-n", &namespace])?;
        let unread: Vec<&str> = told["unread"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for wanted in [
            "namespaces: forbidden".to_owned(),
            "clustersecuritypolicies: forbidden".into(),
            format!("policyexceptions in {namespace}: forbidden"),
            format!("apikeys in {namespace}: forbidden"),
            format!("retentionpolicies in {namespace}: forbidden"),
            format!("legalholds in {namespace}: forbidden"),
            "clusterlegalholds: forbidden".into(),
            "whether hardening is paused (configmap rampart-system/rampart-pause): forbidden".into(),
        ] {
            ensure!(unread.contains(&wanted.as_str()), "{wanted} is not in {unread:#?}");
        }
        let posture = item(&told, "posture", "namespace", &namespace)?;
        ensure!(posture["policies"][0]["name"] == "web", "{posture:#}");
        ensure!(told["keys"]["unread"] == json!([format!("apikeys in {namespace}: forbidden")]), "{}", told["keys"]);
        Ok(())
    })
    .await?;
    let (code, text, _) = report(&tenant, &["-n", &namespace])?;
    ensure!(code == Some(0) && text.contains("NOT READ") && !text.contains("There are no keys"), "{code:?} {text}");

    let nobody = reader(&env, &client, &namespace, "nobody", &json!([])).await?;
    let (code, out, err) = report(&nobody, &["-n", &namespace])?;
    ensure!(code == Some(3) && out.is_empty() && err.contains("nothing could be read"), "{code:?} {out} {err}");
    Ok(())
}
