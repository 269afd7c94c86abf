//! Bodies that are not what the webhook is for: each gets a clear answer, and changes nothing.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::{Env, Shared, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("bad_input::each_has_its_answer", each_has_its_answer);
}

/// A client of the webhook itself, which trusts what the API server was told to trust.
async fn webhook(shared: &Shared) -> Result<Client> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(shared.plane.client());
    let webhooks = api.get("rampart").await?.webhooks.context("webhooks")?;
    let bundle = webhooks.first().and_then(|webhook| webhook.client_config.ca_bundle.clone()).context("a bundle")?;
    let url = shared.operator.webhook_url();
    let kubeconfig: Kubeconfig = serde_json::from_value(json!({
        "current-context": "webhook",
        "clusters": [{"name": "webhook", "cluster": {"server": url.trim_end_matches("/validate"), "certificate-authority-data": bundle}}],
        "contexts": [{"name": "webhook", "context": {"cluster": "webhook", "user": "nobody"}}],
        "users": [{"name": "nobody", "user": {}}],
    }))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

async fn send(client: &Client, method: &str, path: &str, body: Vec<u8>) -> Result<(u16, String)> {
    let request = http::Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    let answer = client.send(request.body(kube::client::Body::from(body))?).await?;
    let code = answer.status().as_u16();
    let body =
        http_body_util::BodyExt::collect(answer.into_body()).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok((code, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

fn review(padding: usize) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "the-uid", "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "namespace": "no-policy", "name": "p", "operation": "CREATE",
            "object": {"metadata": {"annotations": {"padding": "x".repeat(padding)}}, "spec": {"containers": [{"name": "a"}]}},
        },
    });
    review.to_string().into_bytes()
}

async fn each_has_its_answer(env: Env) -> Result<()> {
    let client = webhook(env.shared().await?).await?;
    let other = json!({"apiVersion": "v1", "kind": "Pod"}).to_string();
    let old = json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": null}).to_string();
    let empty = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}).to_string();
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("an empty body", vec![], 400, "the body is empty"),
        ("not JSON", b"{".to_vec(), 400, "not an AdmissionReview"),
        ("not text", vec![0xff; 16], 400, "not an AdmissionReview"),
        ("another kind", other.into_bytes(), 400, "must be admission.k8s.io/v1 AdmissionReview"),
        ("an old version", old.into_bytes(), 400, "must be admission.k8s.io/v1 AdmissionReview"),
        ("no request", empty.into_bytes(), 400, "has no request"),
        ("7 MiB", review(7 << 20), 200, r#""allowed":true"#),
        ("20 MiB", review(20 << 20), 413, "larger than 8 MiB"),
    ];
    for (name, body, code, wanted) in cases {
        let (found, text) = send(&client, "POST", "/validate", body).await.context(name)?;
        ensure!(found == code && text.contains(wanted), "{name}: {found} {text}");
    }
    let (_, text) = send(&client, "POST", "/validate", review(0)).await?;
    ensure!(text.contains(r#""uid":"the-uid""#), "{text}");
    ensure!(send(&client, "GET", "/validate", vec![]).await?.0 == 405);
    ensure!(send(&client, "POST", "/elsewhere", vec![]).await?.0 == 404);
    Ok(())
}
