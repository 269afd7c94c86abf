//! Objects of a tenant that say that they were written when nobody can count any more: they hide no other.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, api::DeleteParams};
use rampart::api::{ApiKey, RecordState, SecurityPolicy};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, operator::kubeconfig, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests, keys::records};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("far_times::one_object_hides_no_other", one_object_hides_no_other);
}

const FAR: &str = "9999-12-31T23:59:59Z";
const TENANT: &str = "tenant";

/// Has every manager of an object's fields have written it at that time. Another field changes with it: of these times
/// alone the API server writes no change. What comes back kube can't read, so it is looked at as text.
async fn date(client: &Client, path: &str) -> Result<()> {
    wait::until(&format!("{path} to be dated"), wait::SOON, || async {
        let mut object: Value =
            serde_json::from_str(&client.request_text(http::Request::get(path).body(vec![])?).await?)?;
        object["metadata"]["annotations"]["dated"] = FAR.into();
        for manager in object["metadata"]["managedFields"].as_array_mut().context("no managers")? {
            manager["time"] = FAR.into();
        }
        let request =
            http::Request::put(format!("{path}?fieldManager=tenant")).header("Content-Type", "application/json");
        let written = client.request_text(request.body(serde_json::to_vec(&object)?)?).await?;
        ensure!(written.contains(&format!("\"time\":\"{FAR}\"")), "the API server told another time: {written}");
        Ok(())
    })
    .await
}

/// One object of each kind that the operator lists, all of which an editor of a namespace may write.
async fn dated(client: &Client) -> Result<()> {
    // Among the Secrets of a key that stays: one of a key that is not there would go.
    let labels = json!({"app.kubernetes.io/managed-by": "rampart", "rampart.dev/owner-kind": "ApiKey",
        "rampart.dev/owner-name": "orders"});
    let mut pod = serde_json::to_value(stories::good_pod()?)?;
    pod["metadata"] = json!({"name": "far", "namespace": TENANT});
    let metadata = json!({"name": "far", "namespace": TENANT});
    let backend = json!({"service": {"name": "far", "port": {"number": 80}}});
    let objects = [
        (
            "/api/v1",
            "secrets",
            json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "far", "namespace": stories::WEB, "labels": labels}}),
        ),
        (
            "/api/v1",
            "configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}),
        ),
        (
            "/api/v1",
            "services",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"selector": {"app": "far"}, "ports": [{"port": 80}]}}),
        ),
        (
            "/apis/networking.k8s.io/v1",
            "networkpolicies",
            json!({"apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy", "metadata": metadata, "spec": {"podSelector": {"matchLabels": {"app": "far"}}}}),
        ),
        (
            "/apis/networking.k8s.io/v1",
            "ingresses",
            json!({"apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress", "metadata": metadata, "spec": {"defaultBackend": backend}}),
        ),
        ("/api/v1", "pods", pod),
    ];
    for (group, plural, object) in objects {
        fixtures::apply(client, &object).await?;
        let namespace = object["metadata"]["namespace"].as_str().context("no namespace")?;
        date(client, &format!("{group}/namespaces/{namespace}/{plural}/far")).await?;
    }
    Ok(())
}

async fn one_object_hides_no_other(_: Env) -> Result<()> {
    // An instance of its own: other tests list all of a kind, with what can't read these.
    let plane = ControlPlane::start(&Options::default()).await?;
    let operator = Operator::install(&plane, &[]).await?;
    let client = plane.client();
    for namespace in [TENANT, stories::WEB, stories::SHOP] {
        fixtures::namespace(&client, namespace, json!({})).await?;
        fixtures::ready_for_pods(&client, namespace).await?;
    }
    // Two, so that not all keys go at once.
    for namespace in [stories::WEB, stories::SHOP] {
        fixtures::apply(&client, &stories::api_key(namespace)).await?;
        stories::ready::<ApiKey>(&client, namespace, "orders").await?;
    }
    dated(&client).await?;
    let report = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "VerifierReport",
        "metadata": {"name": "far", "namespace": "rampart-keys"},
        "spec": {"revision": "1", "startedAt": FAR, "renewedAt": FAR, "keys": 1},
    });
    fixtures::apply(&client, &report).await?;

    // It hears of them by its watches, and, started anew, by its lists.
    let config = kubeconfig(&plane, plane.server()).await?;
    let operator = Operator::start(plane.dir(), &config, operator.kill()?, &[])?;
    operator.ready().await?;
    fixtures::apply(&client, &stories::hardening_policy(stories::SHOP, "Enforce")).await?;
    stories::ready::<SecurityPolicy>(&client, stories::SHOP, "hardened").await.with_context(|| operator.log_tail())?;
    fixtures::apply(&client, &stories::sample_policy()).await?;
    stories::ready::<SecurityPolicy>(&client, stories::WEB, "web").await.with_context(|| operator.log_tail())?;

    let keys: Api<ApiKey> = Api::namespaced(client.clone(), stories::SHOP);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), stories::SHOP);
    keys.delete("orders", &DeleteParams::default()).await?;
    wait::until("the deleted key to end", wait::SOON, || async {
        let record = records(&client, stories::SHOP).await?.remove(&1).context("the tombstone")?.spec;
        ensure!(record.state == RecordState::Destroyed && record.digest.is_none(), "{record:?}");
        ensure!(secrets.get_opt("orders-v1").await?.is_none(), "its Secret is left");
        Ok(())
    })
    .await
    .with_context(|| operator.log_tail())
}
