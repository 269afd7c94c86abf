//! `rampart explain`: what is told of objects of a cluster, and what is not told to whom may not read it.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, api::PostParams};
use rampart_e2e::{fixtures, operator, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("explain::tells_of_pods_and_policies_what_the_operator_decides", tells_what_is_decided);
    tests.add("explain::what_may_not_be_read_is_named_and_the_rest_is_told", what_may_not_be_read_is_named);
}

/// Exit code, and what is printed and said.
fn explain(kubeconfig: &Path, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(operator::binary()?);
    let output = command.arg("explain").args(arguments).arg("--kubeconfig").arg(kubeconfig).output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

fn in_json(kubeconfig: &Path, namespace: &str, object: &str) -> Result<Value> {
    let (code, out, err) = explain(kubeconfig, &[object, "-n", namespace, "-o", "json"])?;
    ensure!(code == Some(0), "{code:?} {err}");
    let told: Value = serde_json::from_str(&out)?;
    ensure!(told["schemaVersion"] == 1, "{told}");
    Ok(told)
}

fn pod(namespace: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": app, "namespace": namespace, "labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1",
                                 "env": [{"name": "PASSWORD", "value": "hunter2"}]}]},
    })
}

/// Lets pods of one app be called by those of another alone, on one port.
fn policy(namespace: &str, app: &str, caller: &str, mode: &str) -> Value {
    let labels = |app: &str| json!({"matchLabels": {"app": app}});
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
        "metadata": {"name": app, "namespace": namespace},
        "spec": {
            "hardening": {"mode": "Warn", "podSecurity": {"level": "restricted"}},
            "network": {
                "mode": mode, "podSelector": labels(app), "isolate": ["Ingress"],
                "ingress": [{"name": "callers", "peers": [{"pods": {"selector": labels(caller)}}], "ports": [{"port": 5432}]}],
            },
        },
    })
}

/// Two callers of a `db` whose policy is in force, and a `queue` whose policy is a preview.
async fn set_up(env: &Env) -> Result<(Client, String)> {
    let (client, namespace) = env.namespace().await?;
    for app in ["web", "other", "db", "queue"] {
        fixtures::apply(&client, &pod(&namespace, app)).await?;
    }
    fixtures::apply(&client, &policy(&namespace, "db", "web", "Enforce")).await?;
    fixtures::apply(&client, &policy(&namespace, "queue", "web", "Preview")).await?;
    for policy in ["db", "queue"] {
        stories::ready::<rampart::api::SecurityPolicy>(&client, &namespace, policy).await?;
    }
    Ok((client, namespace))
}

/// The other ends of connections that are told for some ports.
fn peers(rows: &Value, ports: &str) -> Vec<String> {
    let rows = rows.as_array().into_iter().flatten().filter(|row| row["ports"] == ports);
    let pods = rows.flat_map(|row| row["peers"]["pods"].as_array().into_iter().flatten());
    pods.filter_map(|pod| Some(format!("{}/{}", pod["namespace"].as_str()?, pod["name"].as_str()?))).collect()
}

async fn tells_what_is_decided(env: Env) -> Result<()> {
    let (client, namespace) = set_up(&env).await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let rendered = stories::rendered(&client, &namespace, "db").await?;
    let rendered = rendered.metadata.name.unwrap_or_default();

    let db = in_json(&kubeconfig, &namespace, "pod/db")?;
    ensure!(db["unread"] == json!([]), "{}", db["unread"]);
    ensure!(db["hardening"]["admitted"] == true && db["hardening"]["policies"][0]["decision"] == "Violated", "{db:#}");
    let ingress = &db["network"]["ingress"];
    ensure!(ingress["isolatedBy"][0]["name"] == rendered, "{ingress:#}");
    ensure!(ingress["isolatedBy"][0]["owner"] == "SecurityPolicy db", "{ingress:#}");
    ensure!(peers(&ingress["allowed"], "5432/TCP") == [format!("{namespace}/web")], "{ingress:#}");
    ensure!(db["network"]["egress"]["isolatedBy"] == json!([]), "{db:#}");

    // What a preview would take from a caller, as the operator's own preview counts it.
    let other = in_json(&kubeconfig, &namespace, "po/other")?;
    let pending = &other["pending"][0];
    ensure!(pending["policy"] == format!("{namespace}/queue") && pending["selects"] == false, "{other:#}");
    ensure!(peers(&pending["newlyDenied"]["egress"], "any") == [format!("{namespace}/queue")], "{pending:#}");
    let web = in_json(&kubeconfig, &namespace, "po/web")?;
    let left = peers(&web["pending"][0]["newlyDenied"]["egress"], "all but 5432/TCP");
    ensure!(left == [format!("{namespace}/queue")], "{web:#}");
    ensure!(!serde_json::to_string(&web)?.contains("hunter2"), "the environment of a container is told");

    let told = in_json(&kubeconfig, &namespace, &format!("netpol/{rendered}"))?;
    ensure!(
        told["networkPolicy"]["owner"] == "SecurityPolicy db" && told["networkPolicy"]["selected"] == 1,
        "{told:#}"
    );
    let told = in_json(&kubeconfig, &namespace, "rsp/queue")?;
    ensure!(told["policy"]["network"]["preview"]["newlyDenied"].as_i64() > Some(1), "{told:#}");
    ensure!(told["policy"]["conditions"] == json!([]), "{told:#}");
    let told = in_json(&kubeconfig, &namespace, &format!("ns/{namespace}"))?;
    ensure!(told["namespace"]["open"] == json!({"ingress": 3, "egress": 4}), "{told:#}");

    let (code, text, err) = explain(&kubeconfig, &["pod/db", "-n", &namespace])?;
    let wanted =
        format!("  ingress: isolated by {rendered} (of SecurityPolicy db)\n    5432/TCP from {namespace}/web; ");
    ensure!(code == Some(0) && text.contains(&wanted), "{code:?} {err}\n{text}");
    println!("{text}");
    let (code, _, err) = explain(&kubeconfig, &["deploy/db", "-n", &namespace])?;
    ensure!(code == Some(2) && err.contains(&format!("there is no Deployment db in namespace {namespace}")), "{err}");
    Ok(())
}

/// A kubeconfig of a service account that may read some resources of its namespace.
async fn reader(env: &Env, client: &Client, namespace: &str, name: &str, rules: &Value) -> Result<std::path::PathBuf> {
    let metadata = json!({"name": name, "namespace": namespace});
    for object in [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]}),
    ] {
        fixtures::apply(client, &object).await?;
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let request = TokenRequest { spec: Some(TokenRequestSpec::default()), ..TokenRequest::default() };
    let token = accounts.create_token_request(name, &PostParams::default(), &request).await?;
    let token = token.status.and_then(|status| status.token).context("a token request without a token")?;
    let plane = &env.shared().await?.plane;
    plane.token_kubeconfig(&format!("{namespace}-{name}"), plane.server(), &token)
}

async fn what_may_not_be_read_is_named(env: Env) -> Result<()> {
    let (client, namespace) = set_up(&env).await?;
    let read = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["get", "list"]});
    let ours = read("rampart.dev", &["securitypolicies", "policyexceptions", "retentionpolicies"]);
    let some = json!([read("", &["pods"]), ours, read("networking.k8s.io", &["networkpolicies"])]);
    let tenant = reader(&env, &client, &namespace, "tenant", &some).await?;
    wait::until("the tenant to be told", wait::SOON, || async {
        let told = in_json(&tenant, &namespace, "pod/db")?;
        let unread: Vec<&str> = told["unread"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let rest = format!("; told are those in {namespace}");
        for wanted in [
            "namespaces: forbidden".to_owned(),
            "clustersecuritypolicies: forbidden".into(),
            format!("pods of all namespaces: forbidden{rest}"),
            format!("networkpolicies of all namespaces: forbidden{rest}"),
            "whether hardening is paused (configmap rampart-system/rampart-pause): forbidden".into(),
        ] {
            ensure!(unread.contains(&wanted.as_str()), "{wanted} is not in {unread:#?}");
        }
        ensure!(told["hardening"]["complete"] == false, "{told:#}");
        let ingress = &told["network"]["ingress"]["allowed"];
        ensure!(peers(ingress, "5432/TCP") == [format!("{namespace}/web")], "{ingress:#}");
        Ok(())
    })
    .await?;
    let (_, text, _) = explain(&tenant, &["pod/db", "-n", &namespace])?;
    ensure!(text.contains("would be admitted, as far as could be read"), "{text}");
    ensure!(text.contains("\n  could not read clustersecuritypolicies: forbidden\n"), "{text}");
    println!("{text}");

    let stranger = reader(&env, &client, &namespace, "stranger", &json!([read("", &["pods"])])).await?;
    wait::until("the stranger to be told", wait::SOON, || async {
        let told = in_json(&stranger, &namespace, "pod/db")?;
        let notes = told["notes"].to_string();
        ensure!(told.get("network").is_none() && notes.contains("NetworkPolicies could not be read"), "{told:#}");
        Ok(())
    })
    .await?;
    let (code, out, err) = explain(&stranger, &["rsp/db", "-n", &namespace])?;
    ensure!(code == Some(3) && out.is_empty() && err.contains("cannot get resource"), "{code:?} {out} {err}");
    Ok(())
}
