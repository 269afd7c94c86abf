//! Rampart as its users have it: the image on a real node, installed by Helm; webhook and verifier behind Services. One
//! story, from nothing to nothing. Needs root, and `target/image/image.tar` (`make image`).

mod newcomer;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
        ValidatingWebhookConfiguration,
    },
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};
use libtest_mimic::{Arguments, Trial};
use rampart::api::SecurityPolicy;
use rampart_e2e::{
    Node,
    chart::{self, Helm},
    fixtures,
    node::{image, machine, remains, startups::Startups},
    stories, wait,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::newcomer::Journey;

/// From the start of a process to its first 200 of `/readyz`, where processes are replaced one after another on busy cores, and
/// the image may be one that is not optimised (`.ci/run`), which nothing in it tells. The promise of 1 s is kept by `make bench`.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Good pods that may be asked for twice while every pod is replaced: a webhook may be without a core for as long as it has.
const LATE: usize = 3;
const HASTE: [&str; 2] = ["RAMPART_RETENTION_MINIMUM_GRACE=1s", "RAMPART_RETENTION_INTERVAL=2s"];
const PARTS: [&str; 3] = ["controller", "verifier", "webhook"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list && !machine::is_root() {
        println!("skipped: the real node needs root");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let story = Trial::test("installed::by_helm_on_a_real_node_and_gone_again", move || {
        runtime.block_on(story()).map_err(|error| format!("{error:#}").into())
    });
    let conclusion = libtest_mimic::run(&arguments, vec![story]);
    if arguments.list {
        return conclusion.exit_code();
    }
    if remains::are_none() { conclusion.exit_code() } else { ExitCode::FAILURE }
}

struct Installed {
    node: Node,
    helm: Helm,
    chart: String,
    /// What this node needs said, and what is found out on the way.
    values: Vec<String>,
}

impl Installed {
    fn client(&self) -> Client {
        self.node.plane().client()
    }

    fn helm(&self, command: &str, flags: &[&str]) -> Result<String> {
        let values: Vec<&str> = self.values.iter().flat_map(|value| ["--set", value.as_str()]).collect();
        let place = [command, chart::RELEASE, &self.chart, "--namespace", chart::NAMESPACE];
        self.helm.run(&[&place[..], &values, flags].concat())
    }
}

async fn story() -> Result<()> {
    let archive: PathBuf = fixtures::repository().join("target/image/image.tar");
    ensure!(archive.exists(), "{} is missing: make image", archive.display());
    let node = Node::start().await?;
    node.import(&archive)?;
    let server = node.plane().server().to_owned();
    let port = server.rsplit(':').next().context("the API server's port")?;
    let mut installed = Installed {
        helm: Helm::of_cluster(&node.plane().admin_kubeconfig()?)?,
        chart: chart::directory().display().to_string(),
        values: vec!["image.pullPolicy=Never".into(), format!("networkPolicy.apiServer.ports={{{port}}}")],
        node,
    };
    let result = tell(&mut installed).await;
    result.with_context(|| installed.node.log_tail("kubelet"))
}

async fn tell(installed: &mut Installed) -> Result<()> {
    let client = installed.client();
    let pods: Api<Pod> = Api::namespaced(client.clone(), chart::NAMESPACE);
    let (mut journey, startups, began) = (Journey::default(), Startups::watch()?, Instant::now());
    if let Err(error) = installed.helm("install", &["--create-namespace", "--wait", "--timeout=2m"]) {
        let pods = pods.list(&ListParams::default()).await?.items;
        let statuses: Vec<_> = pods.iter().map(|pod| (pod.name_any(), pod.status.clone())).collect();
        return Err(error).with_context(|| format!("{statuses:?}"));
    }
    journey.took("`helm install`, until every pod is Ready", began);
    wait::until("two of each to be ready", wait::SOON, || two_of_each(&client)).await?;
    started("installed", &startups.took())?;
    journey.with_kubectl(&client, &installed.node.plane().admin_kubeconfig()?).await?;

    // Names are not resolved on this node: the test of a key is told the verifier's address.
    let verifier: Api<Service> = Api::namespaced(client.clone(), chart::NAMESPACE);
    let address = verifier.get("rampart-verifier").await?.spec.and_then(|it| it.cluster_ip).context("an address")?;
    installed.values.push(format!("controller.env.RAMPART_SELFTEST_VERIFIER=http://{address}:9002"));
    // Nobody waits here for what gives people time.
    installed.values.extend(HASTE.map(|value| format!("controller.env.{value}")));
    installed.helm("upgrade", &["--wait", "--timeout=2m"])?;
    // Who is being replaced leads for some seconds more.
    wait::until("the replaced pods to go", wait::SOON, || async {
        let count = pods.list(&ListParams::default()).await?.items.len();
        Ok(ensure!(count == 2 * PARTS.len(), "{count} are there"))
    })
    .await?;

    hardening(&client).await?;
    stories::keys::tell(&client, async |key| ask_verifier(&address, key).await).await?;
    was_tested(&client).await?;
    upgrade(installed).await?;
    power_is_lost(installed).await?;
    is_admitted(&client, &address).await.context("after the node came back")?;
    stories::network::tell(&client, image::NAME).await?;
    stories::hardening::restricted(&client).await?;
    stories::hardening::platform(&client).await?;
    stories::hardening::scanned(&client).await?;
    stories::retention::tell(&client).await?;
    stories::holds::tell(&client).await?;
    // As docs/install.md says: nobody is left to release it later.
    stories::holds::released(&client).await?;
    let began = Instant::now();
    uninstall(installed).await?;
    journey.took("`helm uninstall`, until nothing refuses pods any more", began);
    journey.tell();
    Ok(())
}

async fn two_of_each(client: &Client) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), chart::NAMESPACE);
    for part in PARTS {
        let status = deployments.get(&format!("rampart-{part}")).await?.status.unwrap_or_default();
        ensure!(status.ready_replicas == Some(2), "{part}: {status:?}");
    }
    Ok(())
}

/// Tells how long each process took from its start to its first 200 of `/readyz`.
fn started(when: &str, took: &BTreeMap<String, Duration>) -> Result<()> {
    let told: Vec<String> = took.iter().map(|(pod, time)| format!("{pod} {:.2} s", time.as_secs_f64())).collect();
    println!("{when}, from the start of a process to its first 200 of /readyz: {}", told.join(", "));
    Ok(ensure!(took.len() >= 2 * PARTS.len(), "only these processes were seen to be ready: {told:?}"))
}

/// The webhook answers through its Service, and the API server trusts it.
async fn hardening(client: &Client) -> Result<()> {
    fixtures::namespace(client, stories::SHOP, json!({})).await?;
    fixtures::ready_for_pods(client, stories::SHOP).await?;
    let mut policy = stories::hardening_policy(stories::SHOP, "Enforce");
    policy["spec"]["hardening"]["admissionPolicy"] = json!("None");
    fixtures::apply(client, &policy).await?;
    stories::ready::<SecurityPolicy>(client, stories::SHOP, "hardened").await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), stories::SHOP);
    let (dry, root) = (PostParams { dry_run: true, ..PostParams::default() }, stories::root_pod()?);
    wait::until("the webhook to refuse", wait::SOON, || async {
        let Err(error) = pods.create(&dry, &root).await else { anyhow::bail!("a root pod was admitted") };
        let told = error.to_string();
        Ok(ensure!(told.contains("admission webhook") && told.contains("runAsUser=0"), "{told}"))
    })
    .await?;
    pods.create(&dry, &stories::good_pod()?).await?;
    Ok(())
}

/// What the verifier behind its Service answers to a key.
async fn ask_verifier(address: &str, key: &str) -> Result<u16> {
    let http = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<hyper::body::Bytes>>();
    let request = http::Request::get(format!("http://{address}:9002/check/orders"))
        .header("x-api-key", key)
        .header("x-rampart-audience", "orders-api")
        .body(http_body_util::Empty::new())?;
    let answer = tokio::time::timeout(Duration::from_secs(5), http.request(request)).await??;
    Ok(answer.status().as_u16())
}

/// A Job of the image has tested a key.
async fn was_tested(client: &Client) -> Result<()> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), stories::SHOP);
    let tested = jobs.list(&ListParams::default()).await?.items;
    let done = |job: &Job| job.status.as_ref().and_then(|it| it.succeeded) == Some(1);
    Ok(ensure!(tested.iter().any(done), "no test of a key has succeeded: {tested:?}"))
}

/// What consumers mount is admitted still, and nothing else.
async fn is_admitted(client: &Client, address: &str) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), stories::SHOP);
    let key = secrets.get("orders-key").await?.data.and_then(|mut data| data.remove("API_KEY")).context("no key")?;
    let key = String::from_utf8(key.0)?;
    for (key, wanted) in [(key.as_str(), 200), ("shop_live_0000aaaa_wrong", 401)] {
        wait::until("the verifier's answer", wait::SOON, || async {
            let status = ask_verifier(address, key).await?;
            Ok(ensure!(status == wanted, "the verifier says {status} instead of {wanted}"))
        })
        .await?;
    }
    Ok(())
}

/// What came of asking for pods.
#[derive(Default)]
struct Asked {
    pods: usize,
    /// Good ones of which the webhook said nothing in its time, and was asked once more.
    late: usize,
    wrong: Vec<String>,
}

/// Whether a webhook was reached that did not answer in its time. Each such message has `timeout=` in it, in the address.
fn is_late(error: &kube::Error) -> bool {
    let words = ["deadline exceeded", "Client.Timeout exceeded", "TLS handshake timeout"];
    let kube::Error::Api(status) = error else { return false };
    status.message.contains("failed calling webhook") && words.iter().any(|it| status.message.contains(it))
}

/// Asks for pods until told to stop.
async fn ask(pods: Api<Pod>, stop: CancellationToken) -> Result<Asked> {
    let (root, good) = (stories::root_pod()?, stories::good_pod()?);
    let mut asked = Asked::default();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    while !stop.is_cancelled() {
        for (pod, admitted) in [(&root, false), (&good, true)] {
            let mut answer = pods.create(&dry, pod).await;
            asked.pods += 1;
            if admitted && answer.as_ref().is_err_and(is_late) {
                asked.late += 1;
                answer = pods.create(&dry, pod).await;
            }
            if answer.is_ok() != admitted {
                asked.wrong.push(format!("{answer:?}"));
            }
        }
    }
    Ok(asked)
}

/// Every pod is replaced while pods are asked for: none is admitted that must not be, and none is refused that may be.
async fn upgrade(installed: &Installed) -> Result<()> {
    let (pods, startups) = (Api::<Pod>::namespaced(installed.client(), stories::SHOP), Startups::watch()?);
    // The webhook alone refuses here, and no pod is made without its word.
    let stop = CancellationToken::new();
    let asking = tokio::spawn(ask(pods, stop.clone()));
    let flags = ["--set=podAnnotations.rolled=again", "--wait", "--timeout=3m"];
    let rolled = tokio::task::block_in_place(|| installed.helm("upgrade", &flags));
    stop.cancel();
    let Asked { pods, late, wrong } = asking.await??;
    rolled?;
    println!("rolling upgrade: {pods} pods asked for meanwhile, {late} late answers, {} wrong ones", wrong.len());
    ensure!(pods > 20 && late <= LATE && wrong.is_empty(), "{pods}, {late} of them late: {wrong:?}");
    let took = startups.took();
    started("replaced", &took)?;
    let slow: Vec<&String> = took.iter().filter(|(_, time)| **time >= READY_WITHIN).map(|(pod, _)| pod).collect();
    ensure!(slow.is_empty(), "not ready within {READY_WITHIN:?}: {slow:?}");
    let client = installed.client();
    wait::until("two of each to be ready", wait::SOON, || two_of_each(&client)).await
}

/// How often each container of Rampart's was started again, and whether it is ready.
async fn starts(client: &Client) -> Result<BTreeMap<String, (i32, bool)>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), chart::NAMESPACE);
    let mut starts = BTreeMap::new();
    for pod in pods.list(&ListParams::default()).await? {
        let statuses = pod.status.iter().flat_map(|it| it.container_statuses.iter().flatten());
        starts.extend(statuses.map(|it| (pod.name_any(), (it.restart_count, it.ready))));
    }
    Ok(starts)
}

/// The node loses its power: while nobody judges, nothing is let through; when it is back, Rampart is, too, by itself.
async fn power_is_lost(installed: &mut Installed) -> Result<()> {
    let client = installed.client();
    // Those that were replaced are going still.
    wait::until("the replaced pods to go", wait::SOON, || async {
        let count = starts(&client).await?.len();
        Ok(ensure!(count == 2 * PARTS.len(), "{count} are there"))
    })
    .await?;
    let before = starts(&client).await?;
    installed.node.lose_power()?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), stories::SHOP);
    let (dry, root) = (PostParams { dry_run: true, ..PostParams::default() }, stories::root_pod()?);
    let Err(error) = pods.create(&dry, &root).await else { anyhow::bail!("a root pod was admitted by nobody") };
    ensure!(error.to_string().contains("failed calling webhook"), "{error}");

    let (startups, began) = (Startups::watch()?, Instant::now());
    installed.node.regain_power().await?;
    wait::until("every process to run again", Duration::from_mins(3), || async {
        let now = starts(&client).await?;
        let is_back = |(pod, (count, _)): (&String, &(i32, bool))| now.get(pod).is_some_and(|it| it.1 && it.0 > *count);
        Ok(ensure!(before.iter().all(is_back), "before {before:?}, now {now:?}"))
    })
    .await?;
    println!("the node lost its power: Rampart runs again {:.1} s after it is back", began.elapsed().as_secs_f64());
    wait::until("the webhook to refuse", wait::SOON, || async {
        let Err(error) = pods.create(&dry, &root).await else { anyhow::bail!("a root pod was admitted") };
        let told = error.to_string();
        Ok(ensure!(told.contains("admission webhook") && told.contains("runAsUser=0"), "{told}"))
    })
    .await?;
    wait::until("a good pod to be admitted", wait::SOON, || async {
        Ok(pods.create(&dry, &stories::good_pod()?).await.map(drop)?)
    })
    .await?;
    started("after the loss of power", &startups.took())?;
    wait::until("two of each to be ready", wait::SOON, || two_of_each(&client)).await
}

/// Names of objects that begin like ours.
async fn ours<K>(api: Api<K>) -> Result<Vec<String>>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let all = api.list_metadata(&ListParams::default()).await?;
    let names = all.iter().map(|it| format!("{} {}", K::kind(&()), it.name_any()));
    Ok(names.filter(|name| name.contains("rampart")).collect())
}

/// Everything goes that was installed or made for Rampart itself, by Helm and by the Job of the chart.
async fn uninstall(installed: &Installed) -> Result<()> {
    let client = installed.client();
    installed.helm.run(&["uninstall", "rampart", "--namespace", chart::NAMESPACE, "--wait", "--timeout=3m"])?;
    let all = || async {
        let (of, here) = (|| client.clone(), chart::NAMESPACE);
        anyhow::Ok(
            [
                ours::<ValidatingWebhookConfiguration>(Api::all(of())).await?,
                ours::<MutatingWebhookConfiguration>(Api::all(of())).await?,
                ours::<ValidatingAdmissionPolicy>(Api::all(of())).await?,
                ours::<ValidatingAdmissionPolicyBinding>(Api::all(of())).await?,
                ours::<ClusterRole>(Api::all(of())).await?,
                ours::<ClusterRoleBinding>(Api::all(of())).await?,
                ours::<Deployment>(Api::namespaced(of(), here)).await?,
                ours::<Service>(Api::namespaced(of(), here)).await?,
                ours::<Pod>(Api::namespaced(of(), here)).await?,
                ours::<Job>(Api::namespaced(of(), here)).await?,
                ours::<ServiceAccount>(Api::namespaced(of(), here)).await?,
                ours::<ConfigMap>(Api::namespaced(of(), here)).await?,
                ours::<NetworkPolicy>(Api::namespaced(of(), here)).await?,
                ours::<PodDisruptionBudget>(Api::namespaced(of(), here)).await?,
                ours::<Secret>(Api::namespaced(of(), here)).await?,
            ]
            .concat(),
        )
    };
    let kept = BTreeSet::from(["Secret rampart-adoption".to_owned()]);
    wait::until("what was installed to go", wait::SOON, || async {
        let left: BTreeSet<String> = all().await?.into_iter().collect();
        Ok(ensure!(left == kept, "{left:?}"))
    })
    .await?;
    // Nothing refuses pods any more; policies and keys are there, and so is what consumers mount.
    let pods: Api<Pod> = Api::namespaced(client.clone(), stories::SHOP);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let root = stories::root_pod()?;
    wait::until("a root pod to be admitted", wait::SOON, || async { Ok(pods.create(&dry, &root).await.map(drop)?) })
        .await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), stories::SHOP);
    policies.get("hardened").await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), stories::SHOP);
    secrets.get("orders-key").await?;
    Ok(())
}
