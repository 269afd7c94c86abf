//! `make demo`: Rampart's main job, on a real control plane, each step checked.

use std::{process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Event, Pod, Secret},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rampart::api::{
    ApiKey, Enforcer, KeyRecord, RecordState, RetentionPolicy, SecurityPolicy, VersionState, condition,
};
use rampart_e2e::{ControlPlane, Operator, Options, Verifier, fixtures, stories, table, wait};
use serde_json::json;

#[tokio::main]
async fn main() -> ExitCode {
    match demo().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nNot so: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<()> {
    let began = Instant::now();
    tokio::select! {
        told = tell() => told?,
        _ = tokio::signal::ctrl_c() => println!("\nStopped; nothing is left behind."),
    }
    println!("The demo took {} s.", began.elapsed().as_secs());
    Ok(())
}

fn say(text: &str) {
    println!("{text}");
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn checked(text: &str) {
    println!("   ok  {text}");
}

async fn tell() -> Result<()> {
    title("A control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok");
    let began = Instant::now();
    let plane = ControlPlane::start(&Options::default()).await?;
    checked(&format!("ready in {:.1} s at {}", began.elapsed().as_secs_f64(), plane.server()));

    title("Rampart: crds/, roles, webhook configuration, and `rampart run` as a process");
    let operator = Operator::install(&plane, &["--retention-minimum-grace=1s", "--retention-interval=2s"]).await?;
    checked("/readyz answers 200: certificate, CA bundle, policies and watches are there");

    let client = plane.client();
    // What went wrong may stand in the log, and it goes with the demo.
    steps(&plane, &client).await.with_context(|| format!("rampart's log ends:{}\n", operator.log_tail()))?;

    title("kubectl get rampart -A");
    for plural in ["securitypolicies", "clustersecuritypolicies", "policyexceptions", "apikeys", "retentionpolicies"] {
        let table = table::of(&client, "rampart.dev/v1alpha1", plural).await?;
        ensure!(table.contains("True"), "nothing is ready in:\n{table}");
        say(&table);
    }

    let kubeconfig = plane.admin_kubeconfig()?;
    if std::env::var_os("DEMO_EXIT").is_none_or(|value| value.is_empty() || value == "0") {
        say(&format!("Explore: kubectl --kubeconfig {} get rampart -A", kubeconfig.display()));
        say("Ctrl-C stops everything and leaves nothing behind.");
        std::future::pending::<()>().await;
    }
    let status = operator.stop().await?;
    ensure!(status.success(), "rampart ended with {status}");
    Ok(())
}

async fn steps(plane: &ControlPlane, client: &Client) -> Result<()> {
    network(client).await?;
    hardening(client).await?;
    platform(client).await?;
    counts(client).await?;
    keys(plane, client).await?;
    retention(client).await
}

async fn network(client: &Client) -> Result<()> {
    title("Network intent: a web application, its frontend, postgres and redis");
    fixtures::namespace(client, stories::WEB, json!({})).await?;
    for object in stories::sample_workloads() {
        fixtures::apply(client, &object).await?;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), stories::WEB);
    wait::until("four pods to run", wait::SOON, || async {
        let running = pods.list(&ListParams::default()).await?;
        let running =
            running.iter().filter(|pod| pod.status.as_ref().and_then(|it| it.phase.as_deref()) == Some("Running"));
        ensure!(running.count() == 4, "they don't yet");
        Ok(())
    })
    .await?;
    checked("four workloads run; postgres and redis are default-deny by policies of their own");

    let mut policy = stories::sample_policy();
    policy["spec"]["network"]["mode"] = json!("Preview");
    fixtures::apply(client, &policy).await?;
    let live: Api<SecurityPolicy> = Api::namespaced(client.clone(), stories::WEB);
    let preview = wait::until("a preview", wait::SOON, || async {
        let network = live.get("web").await?.status.and_then(|status| status.network).unwrap_or_default();
        ensure!(network.selected_pods == Some(1), "it is about {:?} pods", network.selected_pods);
        network.preview.context("no preview")
    })
    .await?;
    for sample in preview.samples.iter().take(3) {
        say(&format!("   {} -> {} {}: {}", sample.src, sample.dst, sample.port, sample.why));
    }
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), stories::WEB);
    ensure!(policies.list(&ListParams::default()).await?.items.len() == 2, "a preview wrote something");
    ensure!(preview.newly_denied > 0, "isolation denies nothing: {preview:?}");
    checked(&format!("Preview: {} pairs could not talk as before; nothing was written", preview.newly_denied));

    fixtures::apply(client, &stories::sample_policy()).await?;
    stories::ready::<SecurityPolicy>(client, stories::WEB, "web").await?;
    let main = stories::rendered(client, stories::WEB, "web").await?;
    say(&indented(&serde_saphyr::to_string(&main.spec)?));
    let spec = main.spec.clone().unwrap_or_default();
    ensure!(spec.policy_types == Some(vec!["Ingress".into(), "Egress".into()]), "both directions are isolated");
    ensure!(spec.egress.as_ref().map(Vec::len) == Some(4), "postgres, redis, the internet and DNS");
    let json = serde_json::to_string(&spec)?;
    ensure!(json.contains("169.254.169.254/32") && json.contains("10.96.0.0/16"), "the internet is not the cluster");
    checked(
        "Enforce: it became a NetworkPolicy; the internet excepts the cluster's own ranges and the metadata address",
    );
    let halves = policies.list(&ListParams::default().labels("rampart.dev/part=reciprocal")).await?;
    ensure!(halves.items.len() == 2, "{} halves, not those of postgres and redis", halves.items.len());
    checked("postgres and redis let it in: their side was rendered too, since they are isolated already");

    let opened = json!({"spec": {"egress": [{}]}});
    let hand = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
    policies.patch(&main.name_any(), &hand, &Patch::Merge(&opened)).await?;
    wait::until("the edit to be undone", wait::SOON, || async {
        let live = policies.get(&main.name_any()).await?;
        ensure!(live.spec == main.spec, "it is still {:?}", live.spec);
        Ok(())
    })
    .await?;
    let events: Api<Event> = Api::namespaced(client.clone(), stories::WEB);
    wait::until("an event about it", wait::SOON, || async {
        let events = events.list(&ListParams::default()).await?;
        ensure!(events.iter().any(|event| event.reason.as_deref() == Some("DriftReverted")), "there is none");
        Ok(())
    })
    .await?;
    checked("somebody opened all egress by hand; it was put back, and the event DriftReverted says so");
    Ok(())
}

async fn hardening(client: &Client) -> Result<()> {
    title("Container hardening: the restricted Pod Security Standard, enforced");
    fixtures::namespace(client, stories::SHOP, json!({})).await?;
    fixtures::apply(client, &stories::hardening_policy(stories::SHOP, "Enforce")).await?;
    stories::ready::<SecurityPolicy>(client, stories::SHOP, "hardened").await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), stories::SHOP);
    let refusal = wait::until("a root container to be refused", wait::SOON, || async {
        match pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &stories::root_pod()?).await {
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(status.message),
            Err(other) => Err(other.into()),
            Ok(_) => bail!("it was admitted"),
        }
    })
    .await?;
    say(&indented(&refusal));
    for part in [
        "violates PodSecurity \"restricted:latest\"",
        "runAsNonRoot != true",
        "must set securityContext.runAsNonRoot=true",
    ] {
        ensure!(refusal.contains(part), "the refusal does not say {part:?}");
    }
    checked("a root container was refused, with the reason and what to set");
    pods.create(&PostParams::default(), &stories::good_pod()?).await.context("the good pod")?;
    checked("a hardened one was admitted");
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), stories::SHOP);
    let status = policies.get("hardened").await?.status.and_then(|status| status.hardening).context("no status")?;
    ensure!(status.enforced_by == [Enforcer::Webhook, Enforcer::AdmissionPolicy], "{:?}", status.enforced_by);
    checked("the API server refuses by itself, too: status.hardening.enforcedBy names Webhook and AdmissionPolicy");
    Ok(())
}

/// What the API server makes of a pod in a dry run: the pod, or why it is refused.
async fn asked(client: &Client, pod: &Pod) -> Result<std::result::Result<Pod, String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), stories::SHOP);
    match pods.create(&PostParams { dry_run: true, ..PostParams::default() }, pod).await {
        Ok(pod) => Ok(Ok(pod)),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Err(status.message)),
        Err(other) => Err(other.into()),
    }
}

/// A hardened pod beside the one that is there.
fn another_pod() -> Result<Pod> {
    let mut pod = stories::good_pod()?;
    pod.metadata.name = Some("another".into());
    Ok(pod)
}

async fn platform(client: &Client) -> Result<()> {
    title("The platform team: rules beyond the standard, an exception with an end, and pods completed");
    let covered = json!({"matchLabels": {"kubernetes.io/metadata.name": stories::SHOP}});
    fixtures::apply(client, &json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "platform"},
        "spec": {
            "namespaceSelector": covered, "exceptions": {"namespaces": [stories::SHOP], "maxDuration": "720h"},
            "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}, "fix": "Apply",
                          "rules": {"images": {"allow": ["registry.example.com/*", "rampart.dev/*"]}, "readOnlyRootFilesystem": "Required"}},
        },
    })).await?;
    let mut foreign = another_pod()?;
    let containers = |pod: &mut Pod| {
        pod.spec.get_or_insert_default().containers.iter_mut().map(|it| it.image = Some("nginx:1".into())).count()
    };
    ensure!(containers(&mut foreign) == 1);
    let refusal = wait::until("an image from elsewhere to be refused", wait::SOON, || async {
        let refusal = asked(client, &foreign).await?.err().context("it was admitted")?;
        ensure!(refusal.contains("hardening/images.allow"), "{refusal}");
        Ok(refusal)
    })
    .await?;
    say(&indented(&refusal));
    checked("an image from elsewhere was refused by a rule beyond the standard");

    let completed = wait::until("a pod to be completed", wait::SOON, || async {
        asked(client, &another_pod()?).await?.map_err(anyhow::Error::msg)
    })
    .await?;
    let contexts =
        completed.spec.iter().flat_map(|spec| &spec.containers).filter_map(|it| it.security_context.as_ref());
    ensure!(contexts.filter(|it| it.read_only_root_filesystem == Some(true)).count() == 1, "it is not read-only");
    checked("a pod that left its root filesystem writable was completed by fix: Apply, and admitted");

    let mut agent = another_pod()?;
    let logs = serde_json::from_value(json!({"name": "logs", "hostPath": {"path": "/var/log"}}))?;
    agent.spec.get_or_insert_default().volumes = Some(vec![logs]);
    ensure!(asked(client, &agent).await?.is_err(), "a pod with the node's logs was admitted");
    let tomorrow = Timestamp::now() + std::time::Duration::from_hours(24);
    fixtures::apply(client, &json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "PolicyException",
        "metadata": {"name": "log-agent", "namespace": stories::SHOP},
        "spec": {
            "policies": [{"kind": "SecurityPolicy", "name": "hardened"}, {"kind": "ClusterSecurityPolicy", "name": "platform"}],
            "rules": ["pss/hostPathVolumes", "pss/restrictedVolumes"], "images": ["registry.example.com/app"],
            "reason": "the log agent reads the node's logs", "expiresAt": tomorrow.to_string(),
        },
    })).await?;
    wait::until("the exception to hold", wait::SOON, || async {
        asked(client, &agent).await?.map(drop).map_err(anyhow::Error::msg)
    })
    .await?;
    checked(
        "a log agent with a hostPath was refused, and is admitted until tomorrow by a PolicyException for its image",
    );
    Ok(())
}

async fn counts(client: &Client) -> Result<()> {
    title("Pods that were there before: counted, and named with the rules that they violate");
    fixtures::apply(client, &stories::hardening_policy(stories::WEB, "Audit")).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), stories::WEB);
    let found = wait::until("the pods to be counted", wait::SOON, || async {
        let status = policies.get("hardened").await?.status.and_then(|status| status.hardening).context("no status")?;
        ensure!(status.pods.is_some_and(|pods| pods.violating == 4), "{:?}", status.pods);
        Ok(status)
    })
    .await?;
    for sample in &found.samples {
        say(&indented(&format!("{} {}: {}", sample.kind, sample.name, sample.rules.join(", "))));
    }
    ensure!(found.samples.len() == 4, "{:?}", found.samples);
    checked("status.hardening counts 4 pods that would be refused, and names their workloads");
    Ok(())
}

async fn keys(plane: &ControlPlane, client: &Client) -> Result<()> {
    title("An API key: issued, tested, rotated, and the old one still valid; and the verifier that proxies ask");
    let verifier = Verifier::start(plane, plane.server(), "rampart-verifier-0").await?;
    checked("rampart verifier is ready, and may read digests and nothing else");
    fixtures::apply(client, &stories::api_key(stories::SHOP)).await?;
    stories::ready::<ApiKey>(client, stories::SHOP, "orders").await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), stories::SHOP);
    let entry =
        |secret: &Secret, name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|it| it.0.clone());
    let first = secrets.get("orders-key").await?;
    ensure!(entry(&first, "API_KEY").is_some() && entry(&first, "API_KEY_PREVIOUS").is_none(), "one key, no previous");
    checked("version 1 was issued into Secret orders-key, after every verifier had it and a Job had tested it");
    let text = |secret: &Secret, name: &str| String::from_utf8(entry(secret, name).unwrap_or_default());
    let old = text(&first, "API_KEY")?;
    ensure!(verifier.ask(&old).await? == 200, "a good key is refused");
    ensure!(verifier.ask(&format!("{}x", &old[..old.len() - 1])).await? == 401, "a mistyped key is admitted");
    checked("the verifier admits it, and not with one wrong character");

    let keys: Api<ApiKey> = Api::namespaced(client.clone(), stories::SHOP);
    let now = Timestamp::from_second(Timestamp::now().as_second())?;
    let request = json!({"spec": {"rotation": {"requestedAt": now.to_string()}}});
    keys.patch("orders", &PatchParams::default(), &Patch::Merge(&request)).await?;
    let key = wait::until("version 2", wait::SOON, || async {
        let key = keys.get("orders").await?;
        let status = key.status.clone().unwrap_or_default();
        ensure!(status.current_version == Some(2) && status.next_version.is_none(), "status is {status:?}");
        Ok(key)
    })
    .await?;
    let second = secrets.get("orders-key").await?;
    ensure!(entry(&second, "API_KEY") != entry(&first, "API_KEY"), "the key did not change");
    ensure!(entry(&second, "API_KEY_PREVIOUS") == entry(&first, "API_KEY"), "the old key is not beside the new one");
    let versions = key.status.unwrap_or_default().versions;
    let old = versions.iter().find(|version| version.n == 1).context("version 1")?;
    ensure!(old.state == VersionState::Deprecated && old.is_valid(Timestamp::now()), "version 1 is {:?}", old.state);
    let records: Api<KeyRecord> = Api::namespaced(client.clone(), "rampart-keys");
    wait::until("verifiers to know both", wait::SOON, || async {
        let records = records.list(&ListParams::default()).await?;
        let mut states: Vec<_> = records.iter().map(|it| (it.spec.api_key.version, it.spec.state)).collect();
        states.sort_by_key(|(version, _)| *version);
        ensure!(states == [(1, RecordState::Deprecated), (2, RecordState::Active)], "records are {states:?}");
        Ok(())
    })
    .await?;
    let until = old.destroy_at.as_ref().map(|at| at.0.to_string()).unwrap_or_default();
    checked(&format!("version 2 is current; version 1 ({}) stays valid until {until}", old.id));
    revoked(client, &verifier).await
}

/// A second key, since a revocation can't be taken back.
async fn revoked(client: &Client, verifier: &Verifier) -> Result<()> {
    let mut leaked = stories::api_key(stories::SHOP);
    leaked["metadata"]["name"] = json!("leaked");
    leaked["spec"]["secret"]["name"] = json!("leaked-key");
    fixtures::apply(client, &leaked).await?;
    stories::ready::<ApiKey>(client, stories::SHOP, "leaked").await?;
    let secret = Api::<Secret>::namespaced(client.clone(), stories::SHOP).get("leaked-key").await?;
    let key = secret.data.and_then(|data| data.get("API_KEY").cloned()).context("a key")?;
    let key = String::from_utf8(key.0)?;
    ensure!(verifier.ask(&key).await? == 200, "a good key is refused");
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), stories::SHOP);
    let revoke = Patch::Merge(json!({"spec": {"revocation": {"reason": "Leaked"}}}));
    keys.patch("leaked", &PatchParams::default(), &revoke).await?;
    let began = Instant::now();
    while verifier.ask(&key).await? != 401 {
        ensure!(began.elapsed() < wait::SOON, "a revoked key is admitted");
        tokio::task::yield_now().await;
    }
    checked(&format!("a key that leaked is revoked: refused {} ms after the write", began.elapsed().as_millis()));
    keys.delete("leaked", &DeleteParams::default()).await?;
    Ok(())
}

async fn retention(client: &Client) -> Result<()> {
    title("Retention: a plan that names what it would delete, then deletes within its caps");
    fixtures::namespace(client, stories::REPORTS, json!({"rampart.dev/retention": "allowed"})).await?;
    for object in stories::retention_fixtures(stories::REPORTS, 4, 6)? {
        fixtures::apply(client, &object).await?;
    }
    fixtures::apply(client, &stories::retention_policy(stories::REPORTS, "DryRun")).await?;
    stories::ready::<RetentionPolicy>(client, stories::REPORTS, "exports").await?;
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), stories::REPORTS);
    let plan = policies.get("exports").await?.status.and_then(|status| status.plan).context("a plan")?;
    for object in &plan.samples {
        say(&format!("   {} {}: {}", object.kind, object.name, object.decision));
    }
    ensure!((plan.listed, plan.would_delete) == (10, 4), "the plan is {plan:?}");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), stories::REPORTS);
    let left = || async {
        let exports = maps.list(&ListParams::default().labels("data=export")).await?;
        anyhow::Ok(exports.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>())
    };
    ensure!(left().await?.len() == 10, "a dry run deleted something");
    checked("a dry run named 4 of 10 exports, and deleted none");

    let enforce = json!({"spec": {"mode": "Enforce"}});
    policies.patch("exports", &PatchParams::default(), &Patch::Merge(&enforce)).await?;
    wait::until("the four to go", wait::SOON, || async {
        let left = left().await?;
        let done = left.len() == 6 && left.iter().all(|name| name.starts_with("new-"));
        ensure!(done, "left are {left:?}, and the policy's status is {:?}", policies.get("exports").await?.status);
        Ok(())
    })
    .await?;
    stories::ready::<RetentionPolicy>(client, stories::REPORTS, "exports").await?;
    let status = policies.get("exports").await?.status.unwrap_or_default();
    ensure!(!condition::is_true(&status.conditions, condition::Type::BlastRadiusExceeded), "the caps tripped");
    checked("enforced: they were marked, and after the grace period exactly those 4 went");
    Ok(())
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("   | {line}")).collect::<Vec<_>>().join("\n")
}
