//! A review as the API server sends it: caught from one.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use hyper::body::Bytes;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use rampart_e2e::{ControlPlane, fixtures, null_webhook, wait};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};

use super::{
    super::pod::pod,
    servers::{certificate, key},
};

const NAME: &str = "bench-captures";

/// The review of a pod of a namespace.
pub(crate) async fn review(plane: &ControlPlane, namespace: &str) -> Result<Bytes> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("https://{}/validate", listener.local_addr()?);
    let (seen, mut caught) = mpsc::unbounded_channel();
    let (certificate, key) = (certificate(plane), key(plane));
    let serving = tokio::spawn(async move { null_webhook::serve(listener, &certificate, &key, Some(seen)).await });
    let client = plane.client();
    pods_ask(&client, NAME, &url, plane.ca_pem(), namespace).await?;
    let review = wait::until("a review to be caught", wait::SOON, || {
        let caught = caught.try_recv();
        let client = &client;
        async move {
            if let Ok(review) = caught {
                return Ok(review);
            }
            create_dry(client, namespace).await?;
            anyhow::bail!("none came")
        }
    })
    .await;
    Api::<ValidatingWebhookConfiguration>::all(client.clone()).delete(NAME, &DeleteParams::default()).await?;
    serving.abort();
    review
}

/// Creates the pod without its being stored.
async fn create_dry(client: &Client, namespace: &str) -> Result<()> {
    let params = PostParams { dry_run: true, field_manager: Some("kube-controller-manager".into()) };
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client.clone(), namespace);
    pods.create(&params, &serde_json::from_value(pod())?).await?;
    Ok(())
}

/// Makes the API server ask a webhook about the pods of a namespace.
pub(crate) async fn pods_ask(client: &Client, name: &str, url: &str, ca_pem: &str, namespace: &str) -> Result<()> {
    let ca = k8s_openapi::ByteString(ca_pem.as_bytes().to_vec());
    let configuration: Value = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": format!("{name}.rampart.dev"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "timeoutSeconds": 3, "clientConfig": {"url": url, "caBundle": ca},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        }],
    });
    fixtures::apply(client, &configuration).await.context("registering a webhook").map(drop)
}
