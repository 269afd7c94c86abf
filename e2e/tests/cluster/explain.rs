//! `rampart explain`: what is told of objects of a cluster, and what is not told to whom may not read it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};
use rampart_e2e::{fixtures, operator, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("explain::tells_of_pods_and_policies_what_the_operator_decides", tells_what_is_decided);
    tests.add("explain::a_preview_takes_from_each_pod_what_the_operator_says", takes_what_the_operator_says);
    tests.add("explain::when_an_object_goes_is_told_as_the_plan_has_it", when_an_object_goes);
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

/// What is told of an intent that is not in force.
fn pending(told: &Value, policy: &str) -> Value {
    let all = told["pending"].as_array().into_iter().flatten();
    all.into_iter().find(|it| it["policy"] == policy).cloned().unwrap_or_default()
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
    let queue = format!("{namespace}/queue");
    let told = pending(&other, &queue);
    ensure!(told["selects"] == false && peers(&told["newlyDenied"]["egress"], "any") == [queue.clone()], "{other:#}");
    let web = in_json(&kubeconfig, &namespace, "po/web")?;
    let lost = peers(&pending(&web, &queue)["newlyDenied"]["egress"], "all but 5432/TCP");
    ensure!(lost == [queue], "{web:#}");
    ensure!(!serde_json::to_string(&web)?.contains("hunter2"), "the environment of a container is told");

    let told = in_json(&kubeconfig, &namespace, &format!("netpol/{rendered}"))?;
    ensure!(
        told["networkPolicy"]["owner"] == "SecurityPolicy db" && told["networkPolicy"]["selected"] == 1,
        "{told:#}"
    );
    // The status is as old as the operator's last look: it may not have seen every pod at that time.
    wait::until("the operator to have seen the pods", wait::SOON, || async {
        let told = in_json(&kubeconfig, &namespace, "rsp/queue")?;
        ensure!(told["policy"]["network"]["preview"]["newlyDenied"].as_i64() > Some(1), "{told:#}");
        // The control plane of these tests has no network plug-in.
        let troubles = told["policy"]["conditions"].as_array().into_iter().flatten();
        ensure!(troubles.into_iter().all(|it| it["type"] == "EnforcerDetected"), "{told:#}");
        Ok(())
    })
    .await?;
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
pub(crate) async fn reader(
    env: &Env,
    client: &Client,
    namespace: &str,
    name: &str,
    rules: &Value,
) -> Result<std::path::PathBuf> {
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

/// What a row of an end's changes must say for a sample of the operator's preview.
fn has(rows: &Value, ports: &str, other: &str) -> bool {
    let rows = rows.as_array().into_iter().flatten().filter(|row| row["ports"] == ports);
    rows.map(|row| &row["peers"]).any(|peers| {
        let pods = peers["pods"].as_array().into_iter().flatten();
        let is_pod = |pod: &Value| {
            let name = format!("{}/{}", pod["namespace"].as_str()?, pod["name"].as_str()?);
            Some(other == name || other.starts_with(&format!("{name}-")))
        };
        // Neighbouring ranges are told as one.
        let is_range = !other.chars().any(char::is_alphabetic) || other.starts_with("::");
        pods.filter_map(is_pod).any(|it| it) || (is_range && peers["addresses"] != json!([]))
    })
}

/// Whether an end is a pod of another test that has gone meanwhile.
async fn has_gone(client: &Client, own: &str, end: &str) -> Result<bool> {
    let Some((namespace, name)) = end.split_once('/') else { return Ok(false) };
    let is_range = namespace.contains(':') || !namespace.contains(char::is_alphabetic);
    if is_range || namespace == own {
        return Ok(false);
    }
    let pod = Api::<Pod>::namespaced(client.clone(), namespace).get_opt(name).await?;
    Ok(pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()))
}

async fn takes_what_the_operator_says(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let mut policy = stories::sample_policy();
    policy["spec"]["network"]["mode"] = json!("Preview");
    for mut object in stories::sample_workloads().into_iter().chain([policy]) {
        object["metadata"]["namespace"] = json!(namespace);
        fixtures::apply(&client, &object).await?;
    }
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let policies: Api<rampart::api::SecurityPolicy> = Api::namespaced(client.clone(), &namespace);
    let compared = wait::until("the operator to say the same", wait::SOON, || async {
        let network = policies.get("web").await?.status.and_then(|status| status.network).unwrap_or_default();
        let samples = network.preview.context("no preview")?.samples;
        // Once for each pod: it reads the whole cluster, where others are at work.
        let (mut told_of, mut compared) = (BTreeMap::new(), 0);
        for sample in &samples {
            let (me, way, other) = match sample.src.strip_prefix(&format!("{namespace}/")) {
                Some(me) => (me, "egress", &sample.dst),
                None => (sample.dst.strip_prefix(&format!("{namespace}/")).context("no pod")?, "ingress", &sample.src),
            };
            let told = match told_of.entry(me) {
                Entry::Occupied(told) => told.into_mut(),
                Entry::Vacant(entry) => entry.insert(in_json(&kubeconfig, &namespace, &format!("pod/{me}"))?),
            };
            ensure!(told["unread"] == json!([]), "{}", told["unread"]);
            let what = if sample.allowed { "newlyAllowed" } else { "newlyDenied" };
            let rows = &pending(told, &format!("{namespace}/web"))[what][way];
            if has(rows, &sample.port, other) {
                compared += 1;
            } else {
                ensure!(has_gone(&client, &namespace, other).await?, "{sample:?} is not in {rows:#}");
            }
        }
        ensure!(compared > 5, "only {compared} of {samples:?}");
        Ok(compared)
    })
    .await?;
    let (_, text, _) = explain(&kubeconfig, &["deploy/ai-marketing-platform", "-n", &namespace])?;
    ensure!(text.contains("NOT IN FORCE: network of SecurityPolicy"), "{text}");
    println!("{compared} samples\n{text}");
    Ok(())
}

async fn when_an_object_goes(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let mut policy = stories::retention_policy(&namespace, "Enforce");
    policy["spec"]["safety"]["gracePeriod"] = json!("1h");
    for object in stories::retention_fixtures(&namespace, 1, 3)?.into_iter().chain([policy]) {
        fixtures::apply(&client, &object).await?;
    }
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let policies: Api<rampart::api::RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    wait::until("old-0 to be marked", wait::SOON, || async {
        let plan = policies.get("exports").await?.status.and_then(|status| status.plan).unwrap_or_default();
        let sample = serde_json::to_value(plan.samples.first().context("no sample")?)?;
        let told = in_json(&kubeconfig, &namespace, "cm/old-0")?;
        let told = &told["retention"][0];
        ensure!(told["policy"] == "exports" && told["decision"] == sample["decision"], "{told:#} {sample:#}");
        ensure!(told["deleteAfter"].is_string() && told["deleteAfter"] == sample["deleteAfter"], "{told:#} {sample:#}");
        ensure!(told["heldBy"] == json!([]) && told["markedAt"].is_string(), "{told:#}");
        Ok(())
    })
    .await?;
    let young = in_json(&kubeconfig, &namespace, "cm/new-0")?;
    ensure!(young["retention"][0]["decision"] == "kept: it is not too old yet", "{young:#}");
    Ok(())
}
