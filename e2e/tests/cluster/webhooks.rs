//! `rampart-enforce`: where a webhook alone refuses, no pod is made without its word; and who needs a webhook says where it
//! is away.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingWebhookConfiguration},
    core::v1::Pod,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, operator, stories, wait};
use serde_json::{Value, json};

use crate::{
    Env, Tests,
    admission::post,
    floor::{enforced_by, path, rampart},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("webhooks::no_pod_without_the_webhooks_word", no_pod_without_the_webhooks_word);
    tests.add("webhooks::who_needs_a_webhook_that_is_away_says_so", who_needs_a_webhook_says_so);
}

const ENFORCE: &str = "rampart-enforce";
/// So long no endpoint is ready until the webhook is away.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks about a pod that meets every standard until the answer is as wanted.
pub(crate) async fn good_pod(client: &Client, namespace: &str, wanted: u16) -> Result<()> {
    let pod = serde_json::to_value(stories::good_pod()?)?;
    wait::until(&format!("a pod in {namespace} to be answered {wanted}"), wait::SOON, || async {
        let (code, body, _) = post(client, &path(namespace), &pod).await?;
        ensure!(code == wanted, "{code}: {body}");
        ensure!(code != 500 || body.contains("enforce.rampart.dev"), "{body}");
        Ok(())
    })
    .await
}

/// Waits until there is no `rampart-enforce`.
pub(crate) async fn gone(api: &Api<ValidatingWebhookConfiguration>) -> Result<()> {
    wait::until("rampart-enforce to be gone", wait::SOON, || async {
        ensure!(api.get_opt(ENFORCE).await?.is_none(), "it is there");
        Ok(())
    })
    .await
}

/// A pod that is there, with a finalizer.
async fn kept_pod(pods: &Api<Pod>) -> Result<()> {
    let mut pod = stories::good_pod()?;
    (pod.metadata.name, pod.metadata.finalizers) = (Some("kept".into()), Some(vec!["example.com/kept".into()]));
    wait::until("a pod to be made", wait::SOON, || async { Ok(drop(pods.create(&PostParams::default(), &pod).await?)) })
        .await
}

/// While the webhook is away, what runs in a pod can't be changed, and everything else can.
async fn only_what_runs_waits(pods: &Api<Pod>) -> Result<()> {
    let patch = |change: Value| async move {
        pods.patch("kept", &PatchParams::default(), &Patch::Strategic(change)).await.map(drop)
    };
    let image = json!({"spec": {"containers": [{"name": "main", "image": "registry.example.com/app:2"}]}});
    let refused = patch(image).await;
    ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 500), "an image: {refused:?}");
    let debugger = json!({"name": "debugger", "image": "registry.example.com/debug:1"});
    let debugger = Patch::Strategic(json!({"spec": {"ephemeralContainers": [debugger]}}));
    // The API server forgets an admission policy a moment after it has gone.
    wait::until("a debugger to wait for the webhook", wait::SOON, || async {
        let refused = pods.patch_ephemeral_containers("kept", &PatchParams::default(), &debugger).await.map(drop);
        Ok(ensure!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 500), "{refused:?}"))
    })
    .await?;
    patch(json!({"metadata": {"labels": {"seen": "true"}}})).await?;
    pods.delete("kept", &DeleteParams::default().grace_period(0)).await?;
    ensure!(pods.get("kept").await?.metadata.deletion_timestamp.is_some(), "the finalizer keeps it");
    patch(json!({"metadata": {"finalizers": null}})).await?;
    wait::until("the pod to be gone", wait::SOON, || async { Ok(ensure!(pods.get_opt("kept").await?.is_none())) }).await
}

async fn no_pod_without_the_webhooks_word(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let running = Operator::install(&plane, &[]).await?;
    for name in ["shop", "free"] {
        fixtures::namespace(&client, name, json!({})).await?;
    }
    let mut policy = stories::hardening_policy("shop", "Enforce");
    fixtures::apply(&client, &policy).await?;
    enforced_by(&client, "shop", &[rampart::api::Enforcer::Webhook, rampart::api::Enforcer::AdmissionPolicy]).await?;
    ensure!(api.get_opt(ENFORCE).await?.is_none(), "the API server would wait where admission policies refuse");

    policy["spec"]["hardening"]["admissionPolicy"] = json!("None");
    fixtures::apply(&client, &policy).await?;
    enforced_by(&client, "shop", &[rampart::api::Enforcer::Webhook]).await?;
    good_pod(&client, "shop", 201).await?;
    // Another hand can't open it.
    let open = Patch::Merge(json!({"webhooks": []}));
    api.patch(ENFORCE, &PatchParams::default(), &open).await?;
    wait::until("the edit to be undone", wait::SOON, || async {
        ensure!(api.get(ENFORCE).await?.webhooks.unwrap_or_default().len() == 1);
        Ok(())
    })
    .await?;

    // Away, it holds up what it alone refuses, and nothing else.
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    kept_pod(&pods).await?;
    // It goes a few seconds after the webhook has taken its place.
    let floor: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    wait::until("the admission policy to be gone", wait::SOON, || async {
        let left = floor.list(&ListParams::default().labels("rampart.dev/part=floor")).await?.items;
        Ok(ensure!(left.is_empty(), "{} are left", left.len()))
    })
    .await?;
    let ports = running.kill()?;
    good_pod(&client, "shop", 500).await?;
    only_what_runs_waits(&pods).await?;
    for namespace in ["free", "kube-system", "rampart-system"] {
        good_pod(&client, namespace, 201).await?;
    }
    rampart(&plane, &["pause", "--for=1h", "--reason=a drill"])?;
    good_pod(&client, "shop", 201).await?;

    let kubeconfig = operator::kubeconfig(&plane, plane.server()).await?;
    let running = Operator::start(plane.dir(), &kubeconfig, ports, &[])?;
    running.ready().await?;
    rampart(&plane, &["resume"])?;
    wait::until("it to be back after the pause", wait::SOON, || async { Ok(api.get(ENFORCE).await?) }).await?;
    good_pod(&client, "shop", 201).await?;

    // Without what is shipped, nothing waits for a webhook, whoever forgot to delete the policy.
    running.stop().await?;
    good_pod(&client, "shop", 500).await?;
    api.delete("rampart", &DeleteParams::default()).await?;
    gone(&api).await?;
    good_pod(&client, "shop", 201).await
}

/// An EndpointSlice of the webhook's Service, with one endpoint. The webhook itself is called by its URL here.
fn slice(ready: bool) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "rampart-webhook-1", "namespace": "rampart-system",
                     "labels": {"kubernetes.io/service-name": "rampart-webhook"}},
        "endpoints": [{"addresses": ["192.0.2.10"], "conditions": {"ready": ready}}],
        "ports": [{"name": "webhook", "port": 10250, "protocol": "TCP"}],
    })
}

/// Waits until the condition Ready of a policy is as wanted, and says so in these words.
async fn ready_is(client: &Client, policy: &Value, wanted: (&str, &str), words: &str) -> Result<()> {
    let api = fixtures::api_of(client, policy).await?;
    let name = policy["metadata"]["name"].as_str().context("a policy without a name")?;
    wait::until(&format!("{} to be {wanted:?}", policy["metadata"]), PATIENCE + wait::SOON, || async {
        let live = serde_json::to_value(api.get(name).await?)?;
        let ready = stories::condition(&live, "Ready").context("no Ready")?;
        let is_so = ready["status"] == wanted.0 && ready["reason"] == wanted.1;
        Ok(ensure!(is_so && ready["message"].as_str().is_some_and(|it| it.contains(words)), "{ready}"))
    })
    .await
}

async fn who_needs_a_webhook_says_so(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options { controllers: false, ..Options::default() }).await?;
    let client = plane.client();
    let _operator = Operator::install(&plane, &[]).await?;
    let policy = |namespace: &str, field: &str, value: &str| {
        let mut policy = stories::hardening_policy(namespace, "Enforce");
        policy["spec"]["hardening"][field] = json!(value);
        policy
    };
    let alone = policy("alone", "admissionPolicy", "None");
    let (fixed, plain) = (policy("fixed", "fix", "Apply"), policy("plain", "fix", "Preview"));
    let wide = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "wide"},
        "spec": {"namespaceSelector": {"matchLabels": {"tier": "web"}}, "hardening": alone["spec"]["hardening"]},
    });
    for (namespace, tier) in [("alone", "none"), ("fixed", "none"), ("plain", "none"), ("web", "web")] {
        fixtures::namespace(&client, namespace, json!({"tier": tier})).await?;
    }
    let all = [&alone, &fixed, &plain, &wide];
    for policy in all {
        fixtures::apply(&client, policy).await?;
    }
    // Nothing is known of a webhook that is not called by its Service, while that has no EndpointSlice.
    for policy in all {
        ready_is(&client, policy, ("True", "Ready"), "").await?;
    }

    // Without a selector: nobody but this test says who is ready.
    let service = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"name": "webhook", "port": 443}]},
                         "metadata": {"name": "rampart-webhook", "namespace": "rampart-system"}});
    fixtures::apply(&client, &service).await?;
    fixtures::apply(&client, &slice(false)).await?;
    let look = "kubectl get pods,endpointslices -n rampart-system";
    for policy in [&alone, &wide] {
        ready_is(&client, policy, ("False", "WebhookAway"), "no pod can be made").await?;
        ready_is(&client, policy, ("False", "WebhookAway"), look).await?;
    }
    ready_is(&client, &fixed, ("True", "WebhookAway"), "completes no pod").await?;
    ready_is(&client, &plain, ("True", "Ready"), "").await?;

    fixtures::apply(&client, &slice(true)).await?;
    for policy in all {
        ready_is(&client, policy, ("True", "Ready"), "").await?;
    }
    Ok(())
}
