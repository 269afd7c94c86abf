//! The fix: pods are completed where they then meet the policy, and left alone where they would not.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Pod};
use kube::{Api, Client, api::ListParams};
use rampart_e2e::{
    fixtures,
    pods::{Pods, acceptable},
    seed, stories, wait,
};
use rampart_pss::{Level, Version, explain};
use serde_json::{Value, json};

use crate::{Env, Tests, admission::post, floor::path};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("fix::pods_are_completed_or_left", pods_are_completed_or_left);
    tests.add("fix::what_is_completed_is_taken_and_good", what_is_completed_is_taken_and_good);
}

/// Random pods that are made with and without the fix.
const PODS: usize = 300;

fn policy(namespace: &str, mode: &str, fix: &str) -> Value {
    let mut policy = stories::hardening_policy(namespace, mode);
    policy["spec"]["hardening"]["fix"] = json!(fix);
    policy
}

fn bare_pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare"},
           "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1"}]}})
}

/// Asks about a pod until the answer is as wanted.
async fn answered(
    client: &Client,
    namespace: &str,
    pod: &Value,
    (wanted, warning): (u16, Option<&str>),
) -> Result<Value> {
    let what = format!("{wanted} and {warning:?} in {namespace}");
    wait::until(&what, wait::SOON, || async {
        let (code, body, warnings) = post(client, &path(namespace), pod).await?;
        ensure!(code == wanted, "{code}: {body} {warnings:?}");
        let told = warnings.iter().any(|it| warning.is_some_and(|wanted| it.contains(wanted)));
        ensure!(told == warning.is_some() && (told || warnings.is_empty()), "{warnings:?}");
        Ok(serde_json::from_str(&body)?)
    })
    .await
}

async fn pods_are_completed_or_left(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    fixtures::apply(&client, &policy(&namespace, "Enforce", "Preview")).await?;
    let would = "SecurityPolicy hardened with fix: Apply would set spec.containers[0].securityContext.allowPrivilegeEscalation=false";
    answered(&client, &namespace, &bare_pod(), (403, Some(would))).await?;

    fixtures::apply(&client, &policy(&namespace, "Enforce", "Apply")).await?;
    let pod = answered(&client, &namespace, &bare_pod(), (201, Some("SecurityPolicy hardened sets "))).await?;
    ensure!(pod["spec"]["securityContext"]["runAsNonRoot"] == true, "{pod}");
    let good = serde_json::to_value(stories::good_pod()?)?;
    answered(&client, &namespace, &good, (201, None)).await?;
    let mut host = bare_pod();
    host["spec"]["hostNetwork"] = json!(true);
    let nothing = "sets nothing in the pod: a fix would have to change spec.hostNetwork";
    answered(&client, &namespace, &host, (403, Some(nothing))).await?;

    // What controllers make is completed, too, and whoever writes the template is told.
    let template = json!({"metadata": {"labels": {"app": "bare"}}, "spec": bare_pod()["spec"]});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "bare", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "bare"}}, "template": template},
    });
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    wait::until("whoever writes the template to be told", wait::SOON, || async {
        let (code, body, warnings) = post(&client, &deployments, &deployment).await?;
        let told = warnings.iter().any(|it| it.starts_with("SecurityPolicy hardened sets "));
        Ok(ensure!(code == 201 && told, "{body} {warnings:?}"))
    })
    .await?;
    fixtures::apply(&client, &deployment).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    wait::until("the Deployment's pod to run", wait::SOON, || async {
        let pod = pods.list(&ListParams::default().labels("app=bare")).await?.items.pop().context("no pod")?;
        ensure!(pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running"), "{:?}", pod.status);
        let spec = pod.spec.and_then(|spec| spec.security_context).and_then(|context| context.run_as_non_root);
        ensure!(spec == Some(true));
        Ok(())
    })
    .await?;

    // Who asks for nothing waits for nothing.
    fixtures::apply(&client, &policy(&namespace, "Audit", "Disabled")).await?;
    answered(&client, &namespace, &bare_pod(), (201, None)).await?;
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    wait::until("the API server not to ask about the namespace", wait::SOON, || async {
        let live = configurations.get_opt("rampart-fix").await?;
        let text = live.map(|live| serde_json::to_string(&live)).transpose()?.unwrap_or_default();
        ensure!(!text.contains(&format!("\"{namespace}\"")), "{text}");
        Ok(())
    })
    .await
}

/// Whether everything that `less` says, `more` says, too.
fn keeps(less: &Value, more: &Value) -> bool {
    match (less, more) {
        (Value::Object(less), Value::Object(more)) => {
            less.iter().all(|(key, value)| more.get(key).is_some_and(|other| keeps(value, other)))
        }
        (Value::Array(less), Value::Array(more)) => {
            less.len() == more.len() && less.iter().zip(more).all(|(value, other)| keeps(value, other))
        }
        _ => less == more,
    }
}

/// Whether the fix completes a pod, which would be `without` otherwise; an error if what comes of it is not good.
async fn completes(client: &Client, namespace: &str, pod: &Value, without: &Value) -> Result<bool> {
    let (code, with, warnings) = post(client, &path(namespace), pod).await?;
    ensure!(code == 201, "the fix made a pod that is refused: {with}\n{pod}");
    let with: Value = serde_json::from_str(&with)?;
    let is_completed = warnings.iter().any(|it| it.starts_with("SecurityPolicy hardened sets spec"));
    if is_completed {
        let text = with.to_string();
        let left = explain(Level::Restricted, Version::LATEST, &serde_json::from_str(&text)?);
        ensure!(left.is_empty(), "{left:?} {text}");
        ensure!(keeps(&without["spec"], &with["spec"]), "{without} became {with}");
    } else {
        ensure!(without["spec"] == with["spec"], "{without} became {with}");
    }
    Ok(is_completed)
}

/// A fix may make no pod that the API server refuses, change nothing that is set, and leave nothing to be mended.
async fn what_is_completed_is_taken_and_good(env: Env) -> Result<()> {
    let (client, fixed) = env.namespace().await?;
    let (_, free) = env.namespace().await?;
    let mut asked = policy(&fixed, "Audit", "Apply");
    asked["spec"]["hardening"]["rules"] =
        json!({"readOnlyRootFilesystem": "Required", "userNamespaces": "Required", "appArmor": {}});
    fixtures::apply(&client, &asked).await?;
    answered(&client, &fixed, &bare_pod(), (201, Some("SecurityPolicy hardened sets "))).await?;
    // The API server takes no such pod with a user namespace of its own.
    let mut with_disk = bare_pod();
    with_disk["spec"]["containers"][0]["volumeDevices"] = json!([{"name": "disk", "devicePath": "/dev/xvda"}]);
    with_disk["spec"]["volumes"] = json!([{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]);
    let nothing = "sets nothing in the pod: a fix would have to change spec.hostUsers";
    answered(&client, &fixed, &with_disk, (201, Some(nothing))).await?;
    let seed = seed();
    let (mut taken, mut completed) = (0, 0);
    for made in Pods::new(seed).take(PODS) {
        let mut pod = acceptable(made.pod);
        // The volume that the API server adds has a random name.
        pod["spec"]["automountServiceAccountToken"] = json!(false);
        let (code, body, _) = post(&client, &path(&free), &pod).await?;
        if code != 201 {
            continue;
        }
        taken += 1;
        let without: Value = serde_json::from_str(&body)?;
        let mut is_completed = completes(&client, &fixed, &pod, &without).await;
        // The API server goes on without one of the two webhooks that is late: what is wrong counts if it stays.
        if is_completed.is_err() {
            is_completed = completes(&client, &fixed, &pod, &without).await;
        }
        completed += usize::from(is_completed.with_context(|| format!("RAMPART_SEED={seed}"))?);
    }
    ensure!(taken > PODS / 3 && completed > 10, "{taken} were taken, {completed} completed");
    Ok(())
}
