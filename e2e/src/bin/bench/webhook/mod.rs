//! The webhook under load, on one core, beside a webhook that does nothing and beside the reference; and what
//! it costs at rest.

mod captured;
mod connection;
mod servers;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{Api, Client};
use rampart_e2e::{
    ControlPlane, Operator, Options, cores, fixtures,
    operator::{Ports, kubeconfig},
    stories, wait,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::json;

pub(crate) use self::connection::is_whole;
use self::connection::{Connection, Target};
pub(crate) use self::{
    captured::pods_ask,
    servers::{NULL, Server, null},
};
use super::{
    at_least, figure,
    load::{self, Round},
    median, percentile,
    process::{memory, ready_after, settled_memory},
};

const POLICIES: usize = 1000;
const CONCURRENCY: usize = 16;
const STARTS: usize = 5;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(2);
const OPEN_ROUNDS: u64 = 5;
const OPEN_ROUND: Duration = Duration::from_secs(4);

fn namespace(nth: usize) -> String {
    format!("bench-{nth}")
}

pub(super) async fn bench() -> Result<bool> {
    let cores = cores::allowed()?;
    let [server, .., load] = cores.as_slice() else { bail!("one core for the server and one for the load") };
    let plane = ControlPlane::start(&Options { controllers: false, ..Options::default() }).await?;
    let client = plane.client();
    let ports = Ports::claim()?;
    fixtures::install(&client, &ports.webhook_url()).await?;
    let kubeconfig = kubeconfig(&plane, plane.server()).await?;
    let start = |ports| Operator::start_part("webhook", plane.dir(), &kubeconfig, ports, &[]);

    // The first start makes the CA, and judges the policies.
    let first = start(ports)?;
    first.ready().await?;
    protect(&client).await?;
    let review = captured::review(&plane, &namespace(0)).await?;
    println!("webhook with {POLICIES} policies in as many namespaces; a review of {} bytes", review.len());
    let (ports, mut good) = at_rest(first, start).await?;

    let operator = cores::on(*server, || start(ports))?;
    operator.ready().await?;
    let null = cores::on(*server, || Server::null(&plane))?;
    let reference = cores::on(*server, || Server::reference(&plane))?;
    let tls = trusting(&client, plane.ca_pem()).await?;
    let target =
        |name, pid, address: SocketAddr| Target { name, pid, address, tls: tls.clone(), request: request(&review) };
    let url: http::Uri = operator.webhook_url().parse()?;
    let address = url.authority().context("an address")?.as_str().parse()?;
    let targets = [
        target(NULL, null.pid(), null.address()),
        target("Rampart", operator.pid(), address),
        target("reference webhook", reference.pid(), reference.address()),
    ];
    for target in &targets {
        judges(target, &review).await?;
    }
    let top = throughput(&targets, *load, &mut good)?;
    load::tell_stalls([*server, *load])?;
    latency(&targets, *load, top, &mut good)?;
    good &= figure("resident memory right after the load", memory(operator.pid())?, 30.0, "MiB");
    Ok(good)
}

/// How long a start takes, and what is resident then; gives the ports back.
async fn at_rest(first: Operator, start: impl Fn(Ports) -> Result<Operator>) -> Result<(Ports, bool)> {
    let (mut operator, mut took) = (first, vec![]);
    for _ in 0..STARTS {
        let (ports, began) = (operator.kill()?, Instant::now());
        operator = start(ports)?;
        took.push(ready_after(&operator, began).await? * 1000.0);
    }
    let good = figure("start to ready", median(took), 300.0, "ms");
    let memory = settled_memory(operator.pid()).await?;
    Ok((operator.kill()?, good & figure("resident memory at rest", memory, 30.0, "MiB")))
}

/// Makes namespaces and in each a policy that enforces restricted; and in the first the service account that
/// pods need, since no controllers run.
async fn protect(client: &Client) -> Result<()> {
    let each = stream::iter(0..POLICIES).map(Ok);
    each.try_for_each_concurrent(CONCURRENCY, async |nth| {
        let namespace = namespace(nth);
        fixtures::namespace(client, &namespace, json!({})).await?;
        fixtures::apply(client, &stories::hardening_policy(&namespace, "Enforce")).await.map(drop)
    })
    .await?;
    service_account(client, &namespace(0)).await
}

pub(crate) async fn service_account(client: &Client, namespace: &str) -> Result<()> {
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}});
    fixtures::apply(client, &account).await.map(drop)
}

/// TLS that trusts the CA of the control plane, and the one that Rampart made.
async fn trusting(client: &Client, ca_pem: &str) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let rampart = bundle(client).await?;
    for pem in [ca_pem.as_bytes(), rampart.as_bytes()] {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate?)?;
        }
    }
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}

/// The CA that Rampart made for its webhook, PEM.
pub(crate) async fn bundle(client: &Client) -> Result<String> {
    let configuration = Api::<ValidatingWebhookConfiguration>::all(client.clone()).get("rampart").await?;
    let webhook = configuration.webhooks.into_iter().flatten().next();
    let bundle = webhook.and_then(|webhook| webhook.client_config.ca_bundle).context("no CA bundle")?;
    Ok(String::from_utf8(bundle.0)?)
}

/// A request as the API server makes it.
fn request(review: &[u8]) -> Arc<[u8]> {
    let head = format!(
        "POST /validate?timeout=3s HTTP/1.1\r\nHost: rampart-webhook.rampart-system.svc:443\r\n\
         User-Agent: kube-apiserver-admission\r\nContent-Length: {}\r\nAccept: application/json, */*\r\n\
         Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
        review.len()
    );
    [head.as_bytes(), review].concat().into()
}

/// Waits until a server admits the pod; it must refuse one that may run as root, unless it does not look.
async fn judges(target: &Target, review: &[u8]) -> Result<()> {
    let asked = async |target: &Target, verdict: &str| {
        let answer = Connection::open(target).await?.ask().await.map(String::from_utf8_lossy)?.into_owned();
        ensure!(answer.contains(verdict), "{} answers {answer}", target.name);
        Ok(())
    };
    wait::until(target.name, wait::SOON, || asked(target, r#""allowed":true"#)).await?;
    if target.name == NULL {
        return Ok(());
    }
    let root = String::from_utf8(review.to_vec())?.replace(r#""runAsNonRoot":true"#, r#""runAsNonRoot":false"#);
    asked(&Target { request: request(root.as_bytes()), ..target.clone() }, r#""allowed":false"#).await
}

/// All in turn, again and again: the speed of a shared machine changes within seconds. The median of what
/// each round says counts. Returns Rampart's requests a second.
fn throughput(targets: &[Target; 3], core: usize, good: &mut bool) -> Result<f64> {
    let rounds: Vec<[Round; 3]> = (0..ROUNDS)
        .map(|_| {
            let [null, rampart, reference] =
                targets.each_ref().map(|target| cores::on(core, || load::closed(target, ROUND)));
            Ok([null?, rampart?, reference?])
        })
        .collect::<Result<_>>()?;
    println!("one core for the server, one for the load, 64 connections, {ROUNDS} rounds in turn");
    for (which, target) in targets.iter().enumerate() {
        let of = |what: fn(&Round) -> f64| median(rounds.iter().map(|round| what(&round[which])));
        let (rate, busy, cost) = (of(|round| round.rate), of(|round| round.busy), of(Round::cost));
        let idle = if busy < 0.9 { ", so something else set the pace" } else { "" };
        let name = target.name;
        println!(
            "  {name}: {rate:.0} requests a second, {:.0} % busy{idle}; {cost:.1} us of its core each",
            busy * 100.0
        );
    }
    let ratio = |of: fn(&[Round; 3]) -> f64| median(rounds.iter().map(of));
    let null = ratio(|[null, rampart, _]| 100.0 * rampart.rate / null.rate);
    *good &= at_least("webhook against the null server", null, 65.0, "% of its requests a second");
    let reference = ratio(|[_, rampart, reference]| rampart.rate / reference.rate);
    *good &= at_least("webhook against the reference webhook", reference, 8.0, "times its requests a second");
    let costs = [
        ratio(|[null, rampart, _]| 100.0 * null.cost() / rampart.cost()),
        ratio(|[_, rampart, reference]| reference.cost() / rampart.cost()),
    ];
    println!(
        "by the time of the core: {:.0} % of the null server, {:.1} times the reference webhook",
        costs[0], costs[1]
    );
    Ok(ratio(|[_, rampart, _]| rampart.rate))
}

/// At half of Rampart's top, requests come when they come; the null server shows what is the machine's.
fn latency(targets: &[Target; 3], core: usize, top: f64, good: &mut bool) -> Result<()> {
    let rate = top / 2.0;
    println!("at {rate:.0} requests a second, from when they were due");
    let [null, rampart, _] = targets;
    let mut rounds = [vec![], vec![]];
    for seed in 0..OPEN_ROUNDS {
        for (target, rounds) in [null, rampart].into_iter().zip(&mut rounds) {
            rounds.push(cores::on(core, || load::open(target, rate, OPEN_ROUND, seed))?);
        }
    }
    let [null, rampart] = rounds.map(|rounds| {
        [0.5, 0.99].map(|share| median(rounds.iter().map(|took| 1000.0 * percentile(took.iter().copied(), share))))
    });
    println!("  p50 {:.2} ms, that of the null server {:.2} ms, and its p99 {:.2} ms", rampart[0], null[0], null[1]);
    *good &= figure("webhook at half of its top, p99", rampart[1], 3.0, "ms");
    Ok(())
}
