//! Legal holds: every way around one that we know of is tried, and refused.

mod attempts;
mod beyond;
mod life;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use rampart_e2e::{ControlPlane, audit::Event, fixtures, wait};
use serde_json::{Value, json};

use crate::Tests;

pub(crate) fn tests(tests: &mut Tests) {
    attempts::tests(tests);
    life::tests(tests);
    beyond::tests(tests);
}

/// A hold on ConfigMaps of a case, with some of its spec changed.
fn hold(namespace: &str, name: &str, change: &Value) -> Value {
    let mut hold = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "LegalHold", "metadata": {"name": name, "namespace": namespace},
        "spec": {"resources": [{"resource": "configmaps"}], "selector": {"matchLabels": {"case": "17"}},
                 "indefinite": true, "ground": "litigation", "caseRef": "C-17"},
    });
    for (key, value) in change.as_object().into_iter().flatten() {
        hold["spec"][key] = value.clone();
    }
    hold
}

fn map(namespace: &str, name: &str, case: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"evidence": "a"},
        "metadata": {"name": name, "namespace": namespace, "labels": {"case": case, "app": "books"}},
    })
}

/// That the API server refuses, in words that hold `wanted`.
fn refused<T: std::fmt::Debug>(what: &str, answer: kube::Result<T>, wanted: &str) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) => {
            ensure!(
                status.code == 403 && status.message.contains(wanted),
                "{what}: {}: {}",
                status.code,
                status.message
            );
            Ok(())
        }
        Err(other) => bail!("{what}: {other}"),
        Ok(answer) => bail!("{what} was not refused: {answer:?}"),
    }
}

async fn merge(api: &Api<DynamicObject>, name: &str, patch: Value) -> kube::Result<DynamicObject> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

/// Somebody with these rights everywhere, and no others.
async fn somebody(plane: &ControlPlane, name: &str, rules: Value) -> Result<Client> {
    let client = plane.client();
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                      "metadata": {"name": name}, "rules": rules.clone()});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]});
    for object in [role, binding] {
        fixtures::apply(&client, &object).await?;
    }
    let kubeconfig = std::fs::read_to_string(plane.certificate_kubeconfig(name, name, None)?)?;
    let kubeconfig: Kubeconfig = serde_json::from_str(&kubeconfig)?;
    let client = Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?;
    let (group, resource, verb) = (&rules[0]["apiGroups"][0], &rules[0]["resources"][0], &rules[0]["verbs"][0]);
    let asked = json!({"spec": {"resourceAttributes": {"group": group, "resource": resource, "verb": verb}}});
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    wait::until("the rights to be in force", wait::SOON, || async {
        let review = reviews.create(&PostParams::default(), &serde_json::from_value(asked.clone())?).await?;
        Ok(ensure!(review.status.is_some_and(|it| it.allowed), "{name} may do nothing yet"))
    })
    .await?;
    Ok(client)
}

/// Waits until a condition of an object has this reason, for its newest spec, and returns the message.
async fn reason(api: &Api<DynamicObject>, name: &str, kind: &str, wanted: &str) -> Result<String> {
    wait::until(&format!("{kind} of {name} with {wanted}"), wait::SOON, || async {
        let live = api.get(name).await?;
        let observed = live.data.pointer("/status/observedGeneration").and_then(Value::as_i64);
        ensure!(observed == live.metadata.generation, "its status is about generation {observed:?}");
        let conditions = live.data.pointer("/status/conditions").and_then(Value::as_array).context("no conditions")?;
        let found = conditions.iter().find(|it| it["type"] == kind).context("no such condition")?;
        ensure!(found["reason"] == wanted, "{kind} is {found}");
        Ok(found["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// Makes a hold, and waits until it is in force.
async fn held(client: &Client, hold: &Value) -> Result<Api<DynamicObject>> {
    fixtures::apply(client, hold).await?;
    let api = fixtures::api_of(client, hold).await?;
    reason(&api, hold["metadata"]["name"].as_str().unwrap_or_default(), "Ready", "Active").await?;
    Ok(api)
}

/// Waits until the API server refuses to delete an object: it takes a moment after each change, and longer while it compiles the
/// policies of others. What is tried for good after this leaves no object behind that is gone.
async fn kept<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    wait::until(&format!("the API server to keep {name}"), wait::SOON, || async {
        let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
        refused("delete", api.delete(name, &dry_run).await, "Hold ")
    })
    .await
}

/// Waits until somebody was refused to delete an object.
async fn was_refused_to(plane: &ControlPlane, user: &str, name: &str) -> Result<()> {
    wait::until(&format!("{user} to be refused to delete {name}"), wait::SOON, || async {
        let text = plane.audit().text()?;
        // The log is long, and few lines are about it.
        let lines = text.lines().filter(|line| line.contains(name));
        let mut events = lines.filter_map(|line| serde_json::from_str::<Event>(line).ok());
        let tried = events.any(|it| {
            it.verb == "delete"
                && it.user.username == user
                && it.object_ref.name == name
                && it.response_status.code == 403
        });
        ensure!(tried, "it did not try");
        Ok(())
    })
    .await
}
