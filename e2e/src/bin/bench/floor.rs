//! What admission policies and the webhook add to the creation of a pod, through the API server: dry runs, one
//! client, one after the other.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Request;
use k8s_openapi::{
    api::admissionregistration::v1::ValidatingWebhookConfiguration, apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{Api, Client, api::PostParams};
use rampart::hardening::{Demand, Rules, Standard, compile};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, operator::Ports, stories, wait};
use rampart_pss::{Level, Version};
use serde_json::{Value, json};

use super::{
    figure, median,
    pod::pod,
    webhook::{Server, bundle, pods_ask, service_account},
};

const MANY: usize = 1000;
const CONCURRENCY: usize = 16;
const ROUNDS: usize = 9;
const CREATES: usize = 300;

/// Namespaces, by what is asked about their pods.
const FREE: &str = "free";
const FLOOR: &str = "floor";
const WEBHOOK: &str = "webhook";
const NULL: &str = "null";
/// The name under which the null webhook is registered.
const NULL_WEBHOOK: &str = "bench-null";

/// A client, and the namespace in which it creates.
struct Arm<'a> {
    name: &'a str,
    client: &'a Client,
    namespace: &'a str,
}

pub(super) async fn bench() -> Result<bool> {
    let options = Options { controllers: false, ..Options::default() };
    // Two API servers at once, so that one policy and a thousand can be measured in turn.
    let (one, many) = tokio::try_join!(ControlPlane::start(&options), ControlPlane::start(&options))?;
    let (of_one, of_many) = (one.client(), many.client());
    for client in [&of_one, &of_many] {
        for namespace in [FREE, FLOOR, WEBHOOK, NULL] {
            fixtures::namespace(client, namespace, json!({})).await?;
            service_account(client, namespace).await?;
        }
    }
    let operator = webhooks(&one).await?;
    let null = Server::null(&one)?;
    let url = format!("https://{}/validate", null.address());
    pods_ask(&of_one, NULL_WEBHOOK, &url, one.ca_pem(), NULL).await?;
    let others: Vec<String> = (1..MANY).map(|nth| format!("{FLOOR}-{nth}")).collect();
    let each = stream::iter(&others).map(Ok);
    each.try_for_each_concurrent(CONCURRENCY, |name| fixtures::namespace(&of_many, name, json!({}))).await?;
    let written = [enforce(&of_one, &[]).await?, enforce(&of_many, &others).await?];
    refused(&of_one, FLOOR, "ValidatingAdmissionPolicy").await?;
    refused(&of_many, FLOOR, "ValidatingAdmissionPolicy").await?;
    refused(&of_one, WEBHOOK, "admission webhook").await?;

    let arm = |name, client, namespace| Arm { name, client, namespace };
    let arms = [
        arm("no policy", &of_one, FREE),
        arm("admission policy", &of_one, FLOOR),
        arm("no policy, beside 1,000", &of_many, FREE),
        arm("admission policy of 1,000", &of_many, FLOOR),
        arm("webhook", &of_one, WEBHOOK),
        arm("null webhook", &of_one, NULL),
    ];
    let rounds = measure(&arms).await?;
    for webhook in [NULL_WEBHOOK, "pods"] {
        asked(&of_one, webhook).await?;
    }
    drop((operator, null));
    println!(
        "dry-run creation of a pod with two containers, {ROUNDS} rounds of {CREATES}; {written:?} admission policies"
    );
    Ok(report(&arms, &rounds))
}

fn report(arms: &[Arm<'_>; 6], rounds: &[[f64; 6]]) -> bool {
    for (which, arm) in arms.iter().enumerate() {
        println!("  {}: p50 {:.2} ms", arm.name, median(rounds.iter().map(|round| round[which])));
    }
    let of = |what: fn(&[f64; 6]) -> f64| median(rounds.iter().map(what));
    let more = of(|[free, floor, ..]| floor - free);
    let good = figure("admission policy, p50 above none", more, 1.0, "ms");
    let thousand = of(|[_, one, _, many, ..]| many / one);
    let good = good & figure("1,000 equal policies against one, p50", thousand, 1.1, "times");
    let webhook = of(|[.., webhook, null]| webhook / null);
    good & figure("webhook against a null webhook, p50", webhook, 1.3, "times")
}

/// Starts the webhook, with a policy of one namespace, and lets the API server ask it about no other's pods.
async fn webhooks(plane: &ControlPlane) -> Result<Operator> {
    let (client, ports) = (plane.client(), Ports::claim()?);
    fixtures::install(&client, &ports.webhook_url()).await?;
    let kubeconfig = rampart_e2e::operator::kubeconfig(plane, plane.server()).await?;
    let operator = Operator::start_part("webhook", plane.dir(), &kubeconfig, ports, &[])?;
    operator.ready().await?;
    ensure!(!bundle(&client).await?.is_empty(), "no CA bundle");
    fixtures::apply(&client, &stories::hardening_policy(WEBHOOK, "Enforce")).await?;
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client);
    let mut live = api.get("rampart").await?;
    for webhook in live.webhooks.iter_mut().flatten().filter(|it| !it.name.starts_with("own-kinds")) {
        let labels = [("kubernetes.io/metadata.name".to_owned(), WEBHOOK.to_owned())].into();
        webhook.namespace_selector = Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() });
    }
    api.replace("rampart", &PostParams::default(), &live).await?;
    Ok(operator)
}

/// Puts into force what Rampart makes of a policy in each of these namespaces and in [`FLOOR`]; how many
/// admission policies that are.
async fn enforce(client: &Client, others: &[String]) -> Result<usize> {
    let standard = Standard { level: Level::Restricted, version: Version::LATEST, rules: Rules::default() };
    let namespaces = others.iter().cloned().chain([FLOOR.to_owned()]);
    let namespaces = namespaces.map(|namespace| (namespace, [(standard.clone(), vec![])].into())).collect();
    let floors = compile(&Demand { namespaces, ..Demand::default() });
    fixtures::floors(client, &floors).await?;
    Ok(floors.len())
}

fn creation(namespace: &str, pod: &Value) -> Result<Request<Vec<u8>>> {
    let uri = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    Ok(Request::post(uri).header("content-type", "application/json").body(pod.to_string().into_bytes())?)
}

/// Waits until a pod that may run as root is refused in these words.
async fn refused(client: &Client, namespace: &str, by: &str) -> Result<()> {
    let mut root = pod();
    root["spec"]["containers"][0]["securityContext"]["runAsNonRoot"] = json!(false);
    wait::until("a bad pod to be refused", wait::SOON, || async {
        let error = client.request_text(creation(namespace, &root)?).await.err().context("it was admitted")?;
        ensure!(error.to_string().contains(by), "{error}");
        Ok(())
    })
    .await
}

/// The p50 of each arm in each round, in milliseconds; the first round does not count.
async fn measure(arms: &[Arm<'_>; 6]) -> Result<Vec<[f64; 6]>> {
    let (mut rounds, pod) = (vec![], pod());
    for _ in 0..=ROUNDS {
        let mut round = [0.0; 6];
        for (arm, p50) in arms.iter().zip(&mut round) {
            let mut took = Vec::with_capacity(CREATES);
            for _ in 0..CREATES {
                let request = creation(arm.namespace, &pod)?;
                let began = Instant::now();
                arm.client.request_text(request).await.with_context(|| arm.name.to_owned())?;
                took.push(began.elapsed().as_secs_f64() * 1000.0);
            }
            *p50 = median(took);
        }
        rounds.push(round);
    }
    Ok(rounds.split_off(1))
}

/// Makes sure that the API server asked a webhook about every pod.
async fn asked(client: &Client, webhook: &str) -> Result<()> {
    let metrics = client.request_text(Request::get("/metrics").body(vec![])?).await?;
    let name = format!(r#"name="{webhook}.rampart.dev""#);
    let lines = metrics.lines().filter(|line| line.starts_with("apiserver_admission_webhook_request_total{"));
    let counts = lines.filter(|line| line.contains(&name) && line.contains(r#"rejected="false""#));
    let count: f64 = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    ensure!(count >= f64::from(u32::try_from(ROUNDS * CREATES)?), "{webhook} was asked {count} times only");
    Ok(())
}
