//! Where SecurityPolicies ask for more than there is room for, or for no admission policy: the webhook alone refuses what an
//! admission policy refused, and the other way round, and nothing is open while one follows the other.

use std::{cell::RefCell, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingWebhookConfiguration};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rampart::{
    api::{Enforcer, SecurityPolicy},
    hardening::FLOORS,
};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, stories, wait};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    Env, Tests,
    admission::post,
    floor::{path, refused},
    webhooks::{gone, good_pod},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("crowded::nothing_is_open_while_requirements_move", nothing_is_open);
    tests.add("crowded::nothing_is_open_while_a_namespace_leaves_the_webhook", nothing_is_open_to_who_leaves);
}

/// How often somebody asks for a pod that violates.
const PACE: Duration = Duration::from_millis(20);
/// So many more answers come after the last step.
const MORE: usize = 50;
const BOTH: [Enforcer; 2] = [Enforcer::Webhook, Enforcer::AdmissionPolicy];
const READY: (&str, &str) = ("True", "Ready");
const CROWDED: (&str, &str) = ("False", "TooManyRequirements");
/// What a refusal says of who refuses.
const BY_FLOOR: &str = "ValidatingAdmissionPolicy";
const BY_WEBHOOK: &str = "enforce.rampart.dev";

/// How often who refused.
#[derive(Debug, Default)]
struct Refused {
    floor: usize,
    webhook: usize,
    /// The webhook's word did not come in time.
    late: usize,
}

impl Refused {
    /// Counts an answer; one that admits is an error.
    fn count(&mut self, code: u16, body: &str) -> Result<()> {
        match code {
            403 if body.contains(BY_FLOOR) => self.floor += 1,
            403 if body.contains(BY_WEBHOOK) => self.webhook += 1,
            500 | 503 | 504 => self.late += 1,
            _ => bail!("a pod that violates was answered {code}: {body}"),
        }
        Ok(())
    }
}

fn policy(namespace: &str, mode: &str, version: &str) -> Value {
    let mut policy = stories::hardening_policy(namespace, mode);
    policy["spec"]["hardening"]["podSecurity"]["version"] = json!(version);
    policy
}

/// Asks for a pod that violates again and again; ends when it is not refused.
async fn ask(client: &Client, namespace: &str, refused: &RefCell<Refused>) -> Result<()> {
    let pod = serde_json::to_value(stories::root_pod()?)?;
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let (code, body, _) = post(client, &path(namespace), &pod).await?;
        refused.borrow_mut().count(code, &body).with_context(|| format!("in {namespace}"))?;
    }
}

/// Sees something happen to its end, while a pod that violates is asked for and never admitted.
async fn while_refused(
    client: &Client,
    namespace: &str,
    refused: &RefCell<Refused>,
    story: impl Future<Output = Result<()>>,
) -> Result<()> {
    tokio::select! {
        ended = ask(client, namespace, refused) => ended,
        ended = story => ended,
    }
}

/// Waits until status says of the newest edit what refuses, and how the policy stands.
async fn told(client: &Client, namespace: &str, by: &[Enforcer], wanted: (&str, &str)) -> Result<()> {
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("the policy of {namespace} to be {wanted:?} by {by:?}"), wait::SOON, || async {
        let policy = policies.get("hardened").await?;
        let (generation, status) = (policy.metadata.generation, policy.status.context("no status")?);
        let enforced_by = status.hardening.context("no hardening in status")?.enforced_by;
        let ready = status.conditions.iter().find(|it| it.type_ == "Ready").context("no Ready")?;
        ensure!(ready.observed_generation == generation, "of an older edit: {ready:?}");
        let stands = (ready.status.as_str(), ready.reason.as_str());
        Ok(ensure!(enforced_by == by && stands == wanted, "{enforced_by:?}, {ready:?}"))
    })
    .await
}

/// Waits until a pod that violates is refused by one of the two.
async fn refused_by(client: &Client, namespace: &str, whom: &str) -> Result<()> {
    let pod = serde_json::to_value(stories::root_pod()?)?;
    wait::until(&format!("{whom} to refuse a pod in {namespace}"), wait::SOON, || async {
        let (code, body, _) = post(client, &path(namespace), &pod).await?;
        Ok(ensure!(code == 403 && body.contains(whom), "{code}: {body}"))
    })
    .await
}

/// Waits until there is one admission policy, of this version of the standard.
async fn one_floor(client: &Client, version: &str) -> Result<()> {
    let floors: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let base = format!("rampart-restricted-{version}-");
    wait::until(&format!("{base} to be the only admission policy"), wait::SOON, || async {
        let all = floors.list(&ListParams::default().labels("rampart.dev/part=floor")).await?;
        let names: Vec<String> = all.items.iter().map(ResourceExt::name_any).collect();
        Ok(ensure!(matches!(names.as_slice(), [name] if name.starts_with(&base)), "{names:?}"))
    })
    .await
}

/// Waits until a pod that violates is warned of, or not.
async fn warned(client: &Client, namespace: &str, wanted: bool) -> Result<()> {
    let pod = serde_json::to_value(stories::root_pod()?)?;
    wait::until(&format!("a pod in {namespace} to be warned of: {wanted}"), wait::SOON, || async {
        let (code, body, warnings) = post(client, &path(namespace), &pod).await?;
        Ok(ensure!(code == 201 && warnings.is_empty() != wanted, "{code}, {warnings:?}: {body}"))
    })
    .await
}

/// From now on no webhook is asked about pods but `rampart-enforce`: else that of which nobody waits for the word would
/// refuse what is open.
async fn ask_no_other(client: &Client, warns_in: &str) -> Result<()> {
    warned(client, warns_in, true).await?;
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let never = json!([{"name": "never", "expression": "false"}]);
    let patch = Patch::Strategic(json!({"webhooks": [{"name": "pods.rampart.dev", "matchConditions": never}]}));
    webhooks.patch("rampart", &PatchParams::default(), &patch).await?;
    warned(client, warns_in, false).await
}

async fn nothing_is_open(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let _operator = Operator::install(&plane, &["--admission-policies=1"]).await?;
    for name in ["elder", "younger"] {
        fixtures::namespace(&client, name, json!({})).await?;
        fixtures::ready_for_pods(&client, name).await?;
    }
    // The elder is made first; within one second, its name makes it the elder.
    fixtures::apply(&client, &policy("elder", "Audit", "v1.30")).await?;
    fixtures::apply(&client, &policy("younger", "Warn", "latest")).await?;
    ask_no_other(&client, "younger").await?;
    fixtures::apply(&client, &policy("younger", "Enforce", "latest")).await?;
    told(&client, "younger", &BOTH, READY).await?;
    refused_by(&client, "younger", BY_FLOOR).await?;
    good_pod(&client, "younger", 201).await?;

    let (elder, younger) = (RefCell::<Refused>::default(), RefCell::<Refused>::default());
    while_refused(&client, "younger", &younger, Box::pin(moves(&client, &elder, &younger))).await?;
    println!("refused meanwhile: {:?}, {:?}", elder.borrow(), younger.borrow());
    ensure!(younger.borrow().webhook > 0 && elder.borrow().webhook == 0, "who refused: {younger:?}, {elder:?}");
    Ok(())
}

/// The place for an admission policy goes to the elder, stays there, and comes back.
async fn moves(client: &Client, of_elder: &RefCell<Refused>, of_younger: &RefCell<Refused>) -> Result<()> {
    fixtures::apply(client, &policy("elder", "Enforce", "v1.30")).await?;
    told(client, "elder", &BOTH, READY).await?;
    told(client, "younger", &[Enforcer::Webhook], CROWDED).await?;
    one_floor(client, "v1.30").await?;
    refused_by(client, "younger", BY_WEBHOOK).await?;
    good_pod(client, "younger", 201).await?;

    refused_by(client, "elder", BY_FLOOR).await?;
    while_refused(client, "elder", of_elder, Box::pin(edit(client, of_elder))).await?;
    told(client, "younger", &[Enforcer::Webhook], CROWDED).await?;

    fixtures::apply(client, &policy("elder", "Audit", "v1.31")).await?;
    told(client, "younger", &BOTH, READY).await?;
    gone(&Api::all(client.clone())).await?;
    one_floor(client, "latest").await?;
    more_by_floor(of_younger).await?;
    good_pod(client, "younger", 201).await
}

/// An edit of the elder leaves it its place.
async fn edit(client: &Client, of_elder: &RefCell<Refused>) -> Result<()> {
    fixtures::apply(client, &policy("elder", "Enforce", "v1.31")).await?;
    told(client, "elder", &BOTH, READY).await?;
    one_floor(client, "v1.31").await?;
    more_by_floor(of_elder).await
}

/// Waits until admission policies have refused some more.
async fn more_by_floor(refused: &RefCell<Refused>) -> Result<()> {
    let enough = refused.borrow().floor + MORE;
    wait::until("admission policies to refuse some more", wait::SOON, || async {
        let so_far = refused.borrow().floor;
        Ok(ensure!(so_far >= enough, "{so_far} of {enough}"))
    })
    .await
}

/// Has what it refuses refused by an admission policy (`Generate`), or by the webhook alone (`None`).
fn refusing(namespace: &str, admission_policy: &str) -> Value {
    let mut policy = policy(namespace, "Enforce", "latest");
    policy["spec"]["hardening"]["admissionPolicy"] = json!(admission_policy);
    policy
}

/// The same for namespaces with a label.
fn refusing_widely(name: &str, tier: &str, admission_policy: &str) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": name},
        "spec": {"namespaceSelector": {"matchLabels": {"tier": tier}},
                 "hardening": refusing("any", admission_policy)["spec"]["hardening"]},
    })
}

/// As many other policies as a namespace has admission policies for, which refuse no pod of these tests. By their names they
/// are older than what is made in the same second.
async fn elders(client: &Client, namespace: &str) -> Result<()> {
    for nth in 0..FLOORS {
        let mut elder = policy(namespace, "Enforce", &format!("v1.{}", 20 + nth));
        elder["metadata"]["name"] = json!(format!("elder-{nth}"));
        elder["spec"]["hardening"]["podSecurity"]["level"] = json!("baseline");
        fixtures::apply(client, &elder).await?;
    }
    Ok(())
}

/// By an edit, an admission policy is to refuse what the webhook alone refused. Until it does, no pod is made without the
/// webhook's word; then nobody waits for that.
async fn leaves(client: &Client, namespace: &str, edit: impl Future<Output = Result<()>>) -> Result<()> {
    refused_by(client, namespace, BY_WEBHOOK).await?;
    let counted = RefCell::<Refused>::default();
    let story = async {
        edit.await?;
        gone(&Api::all(client.clone())).await?;
        more_by_floor(&counted).await
    };
    while_refused(client, namespace, &counted, Box::pin(story)).await?;
    println!("refused in {namespace} meanwhile: {:?}", counted.borrow());
    good_pod(client, namespace, 201).await
}

async fn nothing_is_open_to_who_leaves(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let _operator = Operator::install(&plane, &[]).await?;
    for (name, tier) in [("warned", "none"), ("alone", "none"), ("many", "none"), ("moved", "web"), ("db", "db")] {
        fixtures::namespace(&client, name, json!({"tier": tier})).await?;
        fixtures::ready_for_pods(&client, name).await?;
    }
    fixtures::apply(&client, &policy("warned", "Warn", "latest")).await?;
    ask_no_other(&client, "warned").await?;

    let [none, generate] = ["None", "Generate"].map(|admission_policy| refusing("alone", admission_policy));
    fixtures::apply(&client, &none).await?;
    told(&client, "alone", &[Enforcer::Webhook], READY).await?;
    leaves(&client, "alone", async { fixtures::apply(&client, &generate).await.map(drop) }).await?;
    told(&client, "alone", &BOTH, READY).await?;

    // One of nine requirements goes.
    elders(&client, "many").await?;
    fixtures::apply(&client, &policy("many", "Enforce", "latest")).await?;
    told(&client, "many", &[Enforcer::Webhook], CROWDED).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), "many");
    let elder_goes = async {
        policies.delete("elder-0", &DeleteParams::default()).await?;
        Ok(())
    };
    leaves(&client, "many", elder_goes).await?;
    told(&client, "many", &BOTH, READY).await?;

    // A label takes a namespace from one policy to another.
    for (name, tier, admission_policy) in [("by-webhook", "web", "None"), ("by-floor", "db", "Generate")] {
        fixtures::apply(&client, &refusing_widely(name, tier, admission_policy)).await?;
    }
    refused_by(&client, "db", BY_FLOOR).await?;
    leaves(&client, "moved", fixtures::namespace(&client, "moved", json!({"tier": "db"}))).await?;

    // Where nothing is refused any more, nobody waits.
    fixtures::apply(&client, &none).await?;
    told(&client, "alone", &[Enforcer::Webhook], READY).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), "alone");
    policies.delete("hardened", &DeleteParams::default()).await?;
    gone(&Api::all(client.clone())).await?;
    refused(&client, "alone", false).await
}
