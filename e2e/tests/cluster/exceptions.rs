//! PolicyExceptions: what they admit, who permits them, and that they end, whether Rampart runs or not.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::{Api, Client, api::ListParams};
use rampart::{
    api::{ExceptionState, PolicyException},
    hardening::{Demand, Exception, Rules, Standard, compile},
};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, stories, wait};
use rampart_pss::{CHECKS, Level, Version};
use serde_json::{Value, json};

use crate::{Env, Tests, admission::post, floor::path, webhooks::gone};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("exceptions::admit_what_they_cover_until_they_end", admit_until_they_end);
    tests.add("exceptions::many_keep_no_good_pod_out_while_rampart_is_away", many_keep_no_good_pod_out);
}

fn cluster_policy(admission_policy: &str) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "platform"},
        "spec": {
            "namespaceSelector": {"matchLabels": {"tier": "web"}},
            "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}, "admissionPolicy": admission_policy},
            "exceptions": {"namespaces": ["shop"], "maxDuration": "1h"},
        },
    })
}

fn exception(namespace: &str, kind: &str, expires: Timestamp) -> Value {
    let policy = if kind == "SecurityPolicy" { "hardened" } else { "platform" };
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "PolicyException",
        "metadata": {"name": format!("agent-{}", kind.to_lowercase()), "namespace": namespace},
        "spec": {
            "policies": [{"kind": kind, "name": policy}],
            "rules": ["pss/hostPathVolumes", "pss/restrictedVolumes"], "images": ["registry.example.com/app"],
            "reason": "the log agent reads the node's logs", "expiresAt": expires.to_string(),
        },
    })
}

/// A good pod that reads the node's logs.
fn agent() -> Result<Value> {
    let mut pod = serde_json::to_value(stories::good_pod()?)?;
    pod["spec"]["volumes"] = json!([{"name": "logs", "hostPath": {"path": "/var/log"}}]);
    Ok(pod)
}

async fn answers(client: &Client, namespace: &str, pod: &Value, wanted: Option<&str>) -> Result<()> {
    answers_within(wait::SOON, client, namespace, pod, wanted).await
}

async fn answers_within(
    deadline: Duration,
    client: &Client,
    namespace: &str,
    pod: &Value,
    wanted: Option<&str>,
) -> Result<()> {
    wait::until(&format!("a pod in {namespace} to be refused with {wanted:?}"), deadline, || async {
        let (code, body, _) = post(client, &path(namespace), pod).await?;
        match wanted {
            Some(reason) => ensure!(code == 403 && body.contains(reason), "{code}: {body}"),
            None => ensure!(code == 201, "{code}: {body}"),
        }
        Ok(())
    })
    .await
}

async fn state(client: &Client, namespace: &str, name: &str, wanted: ExceptionState, why: &str) -> Result<()> {
    let exceptions: Api<PolicyException> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("{name} to be {wanted:?}"), wait::SOON, || async {
        let status = exceptions.get(name).await?.status.context("no status")?;
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").context("no Ready")?;
        ensure!(status.state == Some(wanted) && ready.message.contains(why), "{status:?}");
        Ok(())
    })
    .await
}

/// Admission policies follow within a moment; who stops Rampart sooner keeps what was before.
async fn in_every_floor(client: &Client, end: &str) -> Result<()> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    wait::until("admission policies to know when the exceptions end", wait::SOON, || async {
        let all = policies.list(&ListParams::default().labels("rampart.dev/part=floor")).await?;
        let knows = |policy: &ValidatingAdmissionPolicy| {
            let variables = policy.spec.iter().flat_map(|spec| spec.variables.iter().flatten());
            variables.into_iter().any(|variable| variable.name == "exceptions" && variable.expression.contains(end))
        };
        ensure!(all.items.len() == 2 && all.items.iter().all(knows), "{} policies", all.items.len());
        Ok(())
    })
    .await?;
    // Until they are in force the webhook's word is waited for, which nobody gives once Rampart is gone.
    gone(&Api::all(client.clone())).await
}

/// Time for admission policies to follow, for Rampart to stop, and for a last answer.
const ENDS: Duration = Duration::from_secs(90);
/// From then on at the latest, refused again.
const LATE: Duration = Duration::from_secs(30);

fn soon(seconds: u64) -> Timestamp {
    Timestamp::now() + Duration::from_secs(seconds)
}

async fn admit_until_they_end(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let operator = Operator::install(&plane, &[]).await?;
    for name in ["shop", "other"] {
        fixtures::namespace(&client, name, json!({"tier": "web"})).await?;
    }
    let (agent, violation) = (agent()?, "hostPath volumes");
    fixtures::apply(&client, &cluster_policy("None")).await?;
    answers(&client, "shop", &agent, Some(violation)).await?;

    // The webhook by itself.
    fixtures::apply(&client, &exception("shop", "ClusterSecurityPolicy", soon(3000))).await?;
    state(&client, "shop", "agent-clustersecuritypolicy", ExceptionState::Active, "until").await?;
    answers(&client, "shop", &agent, None).await?;
    covers_no_more_than_it_says(&client, &agent).await?;
    // The admission policy, too.
    fixtures::apply(&client, &cluster_policy("Generate")).await?;
    answers(&client, "shop", &bad_too(&agent), Some("kubectl get rsp,rcsp")).await?;
    answers(&client, "shop", &agent, None).await?;
    covers_no_more_than_it_says(&client, &agent).await?;

    not_permitted(&client, &agent).await?;
    own_policies(&client, &agent).await?;

    // It ends without Rampart.
    let end = soon(ENDS.as_secs());
    fixtures::apply(&client, &exception("shop", "SecurityPolicy", end)).await?;
    fixtures::apply(&client, &exception("shop", "ClusterSecurityPolicy", end)).await?;
    state(&client, "shop", "agent-clustersecuritypolicy", ExceptionState::Active, &end.to_string()).await?;
    answers(&client, "shop", &agent, None).await?;
    in_every_floor(&client, &end.to_string()).await?;
    let ports = operator.kill()?;
    answers(&client, "shop", &agent, None).await?;
    // Whichever of the two policies the API server asks first.
    answers_within(ENDS + LATE, &client, "shop", &agent, Some("violates PodSecurity")).await?;
    ensure!(Timestamp::now() >= end, "it was refused before its end");
    let kubeconfig = rampart_e2e::operator::kubeconfig(&plane, plane.server()).await?;
    let operator = Operator::start(plane.dir(), &kubeconfig, ports, &[])?;
    operator.ready().await?;
    state(&client, "shop", "agent-clustersecuritypolicy", ExceptionState::Expired, "ended").await?;
    answers(&client, "shop", &agent, Some("violates PodSecurity")).await
}

/// With what no exception covers.
fn bad_too(agent: &Value) -> Value {
    let mut pod = agent.clone();
    pod["spec"]["hostNetwork"] = json!(true);
    pod
}

async fn covers_no_more_than_it_says(client: &Client, agent: &Value) -> Result<()> {
    answers(client, "shop", &bad_too(agent), Some("host namespaces")).await?;
    let mut other_image = agent.clone();
    other_image["spec"]["containers"][0]["image"] = json!("registry.example.com/app-evil");
    answers(client, "shop", &other_image, Some("hostPath volumes")).await?;
    // A volume is of the whole pod: one container more that is not covered, and it is refused.
    let mut companion = agent.clone();
    let mut container = agent["spec"]["containers"][0].clone();
    (container["name"], container["image"]) = (json!("companion"), json!("busybox"));
    companion["spec"]["initContainers"] = json!([container]);
    answers(client, "shop", &companion, Some("hostPath volumes")).await?;
    answers(client, "other", agent, Some("hostPath volumes")).await
}

async fn not_permitted(client: &Client, agent: &Value) -> Result<()> {
    let name = "agent-clustersecuritypolicy";
    fixtures::apply(client, &exception("other", "ClusterSecurityPolicy", soon(3000))).await?;
    state(client, "other", name, ExceptionState::NotPermitted, "permits no exceptions in other").await?;
    answers(client, "other", agent, Some("hostPath volumes")).await?;
    fixtures::apply(client, &exception("shop", "ClusterSecurityPolicy", soon(4000))).await?;
    state(client, "shop", name, ExceptionState::NotPermitted, "at the latest").await?;
    answers(client, "shop", agent, Some("hostPath volumes")).await?;
    fixtures::apply(client, &exception("shop", "ClusterSecurityPolicy", soon(3000))).await?;
    answers(client, "shop", agent, None).await?;
    let mut unknown = exception("shop", "ClusterSecurityPolicy", soon(3000));
    unknown["spec"]["rules"] = json!(["pss/*"]);
    let refused = fixtures::apply(client, &unknown).await.err().context("a wildcard")?;
    ensure!(format!("{refused:#}").contains("spec.rules[0]"), "{refused:#}");
    Ok(())
}

/// A SecurityPolicy of the namespace asks for more: it needs an exception of its own.
async fn own_policies(client: &Client, agent: &Value) -> Result<()> {
    fixtures::apply(client, &stories::hardening_policy("shop", "Enforce")).await?;
    // By the admission policy, so that what admits the pod below is its next version: an API server short
    // of CPU takes seconds to compile one, and would put the first into force after the exception.
    answers(client, "shop", agent, Some("kubectl get rsp,rcsp")).await?;
    let refusing = "SecurityPolicy hardened (pss/hostPathVolumes, pss/restrictedVolumes)";
    state(client, "shop", "agent-clustersecuritypolicy", ExceptionState::Active, refusing).await?;
    fixtures::apply(client, &exception("shop", "SecurityPolicy", soon(3000))).await?;
    state(client, "shop", "agent-clustersecuritypolicy", ExceptionState::Active, "until").await?;
    answers(client, "shop", agent, None).await
}

/// Where long names of images come from.
const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/platform/observability";

/// From every check, for 16 images.
fn for_many_images(number: usize) -> Result<Exception> {
    let rules: Vec<String> = CHECKS.iter().map(|check| format!("pss/{}", check.id)).collect();
    let images: Vec<String> = (0..16).map(|image| format!("{REGISTRY}/agent-{number}-{image}")).collect();
    let exception: PolicyException = serde_json::from_value(json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "PolicyException", "metadata": {"name": format!("agents-{number}")},
        "spec": {
            "policies": [{"kind": "SecurityPolicy", "name": "hardened"}], "rules": rules, "images": images,
            "reason": "agents", "expiresAt": soon(3600).to_string(),
        },
    }))?;
    Ok(Exception::try_from(&exception)?)
}

/// A pod of ten containers.
fn of_ten(image: &str, as_root: bool) -> Result<Value> {
    let mut pod = serde_json::to_value(stories::good_pod()?)?;
    let mut container = pod["spec"]["containers"][0].clone();
    container["image"] = json!(format!("{REGISTRY}/{image}@sha256:{}", "0123456789abcdef".repeat(4)));
    if as_root {
        container["securityContext"]["runAsUser"] = json!(0);
    }
    let named = |number: usize| {
        let mut container = container.clone();
        container["name"] = json!(format!("c-{number}"));
        container
    };
    pod["spec"]["containers"] = (0..10).map(named).collect();
    Ok(pod)
}

/// The API server gives up an expression that costs too much, and then refuses the pod.
async fn many_keep_no_good_pod_out(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    fixtures::namespace(&client, "shop", json!({})).await?;
    fixtures::ready_for_pods(&client, "shop").await?;
    let standard = Standard { level: Level::Restricted, version: Version::LATEST, rules: Rules::default() };
    let exceptions = (0..12).map(for_many_images).collect::<Result<Vec<_>>>()?;
    let namespaces = [("shop".to_owned(), [(standard, exceptions)].into())].into();
    let floors = compile(&Demand { namespaces, ..Demand::default() });
    ensure!(floors.iter().all(|floor| floor.left_out.is_empty()), "there is no room for all exceptions");
    fixtures::floors(&client, &floors).await?;
    answers(&client, "shop", &of_ten("web-frontend", true)?, Some("runAsUser=0")).await?;
    answers(&client, "shop", &of_ten("web-frontend", false)?, None).await?;
    answers(&client, "shop", &of_ten("agent-11-15", true)?, None).await
}
