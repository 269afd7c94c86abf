//! Admission policies on the real API server, without Rampart running: what they refuse, and in which
//! words, is what `rampart-pss` says of the pod as the API server stores it.

use std::{process::Command, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    admissionregistration::v1::{
        ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
    },
    core::v1::ConfigMap,
    events::v1::Event,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rampart::{
    api::{AdmissionPolicy, ClusterSecurityPolicy, Enforcer, Fix, HardeningMode, SecurityPolicy},
    hardening::{Covering, Demand, Floor, Origin, Requirement, Rules, Standard, compile},
};
use rampart_e2e::{
    ControlPlane, Operator, Options, fixtures, judges,
    pods::{Pods, acceptable},
    seed, stories, wait,
};
use rampart_pss::{Level, Version, aggregate};
use serde_json::{Value, json};

use crate::{
    Env, Tests,
    admission::post,
    ways::{Read, Ways},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("floor::says_what_the_standards_say", says_what_the_standards_say);
    tests.add("floor::type_checks_clean", type_checks_clean);
    tests.add("floor::refuses_while_rampart_is_away_and_is_kept", refuses_while_rampart_is_away);
}

/// Random pods that the API server accepts.
const PODS: usize = 2_000;
/// Versions whose fixtures are tried: each brings or changes checks.
const VERSIONS: [u32; 5] = [0, 19, 25, 31, 37];
const AT_ONCE: usize = 8;

fn namespace(level: Level, version: Version) -> String {
    format!("floor-{level}-{version}").replace('.', "-")
}

fn floors(standards: &[(Level, Version)]) -> Vec<Floor> {
    let standard = |level, version| [(Standard { level, version, rules: Rules::default() }, vec![])].into();
    let namespaces = standards.iter().map(|(level, version)| (namespace(*level, *version), standard(*level, *version)));
    let namespaces = namespaces.collect();
    compile(&Demand { namespaces, ..Demand::default() })
}

pub(crate) fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

/// Posts a pod where nothing is enforced; what the API server makes of it, or `None` where it is invalid.
pub(crate) async fn accepted(client: &Client, pod: &Value) -> Result<Option<Value>> {
    let (code, body, _) = post(client, &path("free"), pod).await?;
    match code {
        201 => Ok(Some(serde_json::from_str(&body)?)),
        400 | 422 => Ok(None),
        _ => anyhow::bail!("{code}: {body}\n{pod}"),
    }
}

/// Compares what the API server says with what the crate says of the stored pod, and with the other ways.
async fn compare(
    client: &Client,
    (level, version): (Level, Version),
    pod: &Value,
    (stored, ways): (&Value, &Read<'_>),
) -> Result<()> {
    let namespace = namespace(level, version);
    let requirement = Requirement {
        mode: HardeningMode::Enforce,
        level,
        version,
        rules: Rules::default(),
        admission_policy: AdmissionPolicy::Generate,
        fix: Fix::Disabled,
    };
    let covering = Covering { origin: Origin::CommandLine, made: None, requirement, exceptions: Arc::default() };
    let found = ways.agree(&covering).with_context(|| namespace.clone())?;
    let violations = found.into_iter().next().map(|finding| finding.violations).unwrap_or_default();
    let text = stored.to_string();
    let mut pod = pod.clone();
    pod["metadata"]["namespace"] = json!(namespace);
    let (code, body, _) = post(client, &path(&namespace), &pod).await?;
    if violations.is_empty() {
        ensure!(code == 201, "{level}:{version} refuses what the standard allows: {body}\n{text}");
        return Ok(());
    }
    let said = aggregate(&violations);
    let wanted = format!(
        "denied request: violates PodSecurity \"{level}:{version}\": {said} [kubectl get rsp,rcsp -n {namespace}]"
    );
    let answer: Value = serde_json::from_str(&body)?;
    let message = answer["message"].as_str().unwrap_or_default();
    ensure!(code == 403 && message.ends_with(&wanted), "{code} {message}\n  wanted {wanted}\n{text}");
    Ok(())
}

async fn says_what_the_standards_say(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let versions = || VERSIONS.map(Version::minor).into_iter().chain([Version::LATEST]);
    let standards: Vec<(Level, Version)> = [Level::Baseline, Level::Restricted]
        .into_iter()
        .flat_map(|level| versions().map(move |it| (level, it)))
        .collect();
    for (level, version) in &standards {
        fixtures::namespace(&client, &namespace(*level, *version), json!({})).await?;
    }
    fixtures::namespace(&client, "free", json!({})).await?;
    fixtures::floors(&client, &floors(&standards)).await?;
    let mut bad = serde_json::to_value(stories::root_pod()?)?;
    bad["spec"]["hostNetwork"] = json!(true);
    for (level, version) in &standards {
        let namespace = namespace(*level, *version);
        wait::until("the admission policy to be in force", wait::SOON, || async {
            let (code, body, _) = post(&client, &path(&namespace), &bad).await?;
            ensure!(code == 403, "{code}: {body}");
            Ok(())
        })
        .await?;
    }

    let fixtures = compare_fixtures(&client).await?;
    let seed = seed();
    let (mut compared, mut refused) = (0, 0);
    let mut pods = Pods::new(seed).map(|made| acceptable(made.pod));
    while compared < PODS {
        let some: Vec<Value> = pods.by_ref().take(200).collect();
        let results: Vec<bool> = stream::iter(&some)
            .map(|pod| async {
                let Some(stored) = accepted(&client, pod).await? else { return anyhow::Ok(false) };
                let ways = Ways::of(pod, &stored)?;
                let ways = ways.read()?;
                let other = standards.get(pod.to_string().len() % standards.len()).copied();
                for standard in
                    [Some((Level::Restricted, Version::LATEST)), Some((Level::Baseline, Version::LATEST)), other]
                {
                    compare(&client, standard.context("a standard")?, pod, (&stored, &ways)).await?;
                }
                Ok(true)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
            .with_context(|| format!("RAMPART_SEED={seed}"))?;
        compared += results.iter().filter(|accepted| **accepted).count();
        refused += results.iter().filter(|accepted| !**accepted).count();
        let enough = compared.max(PODS);
        ensure!(refused < 2 * enough, "{refused} invalid pods for {compared} valid ones: the generator is too wild");
    }
    println!("{fixtures} fixtures and {compared} random pods compared; {refused} were invalid; RAMPART_SEED={seed}");
    Ok(())
}

/// The reference's own fixtures of some versions.
async fn compare_fixtures(client: &Client) -> Result<usize> {
    let root = judges::pss_module()?.join("test/testdata");
    let mut compared = 0;
    for level in [Level::Baseline, Level::Restricted] {
        for version in VERSIONS.map(Version::minor) {
            for verdict in ["pass", "fail"] {
                let dir = root.join(level.as_str()).join(version.to_string()).join(verdict);
                for entry in std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
                    let pod = fixtures::documents(&entry?.path())?.pop().context("a pod")?;
                    if let Some(stored) = accepted(client, &pod).await? {
                        compare(client, (level, version), &pod, (&stored, &Ways::of(&pod, &stored)?.read()?)).await?;
                        compared += 1;
                    }
                }
            }
        }
    }
    ensure!(compared > 450, "only {compared} fixtures were accepted");
    Ok(compared)
}

/// What the API server's own type checker says of every expression.
async fn type_checks_clean(env: Env) -> Result<()> {
    let client = env.shared().await?.plane.client();
    let mut floors = floors(&[(Level::Restricted, Version::LATEST), (Level::Baseline, Version::minor(0))]);
    for floor in &mut floors {
        // The shared operator would clear them away as its own.
        (floor.policy.metadata.labels, floor.binding.metadata.labels) = (None, None);
        let name = format!("checked-{}", floor.policy.metadata.name.as_deref().unwrap_or_default());
        (floor.policy.metadata.name, floor.binding.metadata.name) = (Some(name.clone()), Some(name.clone()));
        floor.binding.spec.policy_name = name;
    }
    fixtures::floors(&client, &floors).await?;
    checked(&client, &floors).await
}

/// Waits until the API server's own type checker has looked at every expression, and found nothing.
pub(crate) async fn checked(client: &Client, floors: &[Floor]) -> Result<()> {
    for floor in floors {
        type_checked(client, floor.policy.metadata.name.as_deref().unwrap_or_default()).await?;
    }
    Ok(())
}

/// As [`checked`], for one policy.
pub(crate) async fn type_checked(client: &Client, name: &str) -> Result<()> {
    let api: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    wait::until("the policy to be type-checked", wait::SOON, || async {
        let status = api.get(name).await?.status.context("no status yet")?;
        let checked = status.type_checking.context("not checked yet")?;
        ensure!(checked.expression_warnings.is_none(), "{:#?}", checked.expression_warnings);
        Ok(())
    })
    .await
}

pub(crate) async fn enforced_by(client: &Client, namespace: &str, wanted: &[Enforcer]) -> Result<()> {
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), namespace);
    wait::until("status to say what enforces", wait::SOON, || async {
        let status = policies.get("hardened").await?.status.context("no status")?;
        let by = status.hardening.context("no hardening in status")?.enforced_by;
        ensure!(by == wanted, "{by:?}");
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").context("not Ready")?;
        ensure!(ready.status == "True", "{ready:?}");
        Ok(())
    })
    .await
}

pub(crate) async fn refused(client: &Client, namespace: &str, wanted: bool) -> Result<()> {
    let pod = serde_json::to_value(stories::root_pod()?)?;
    wait::until(&format!("a root pod to be refused: {wanted}"), wait::SOON, || async {
        let (code, body, _) = post(client, &path(namespace), &pod).await?;
        ensure!(code == if wanted { 403 } else { 201 }, "{code}: {body}");
        Ok(())
    })
    .await
}

async fn refuses_while_rampart_is_away(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let operator = Operator::install(&plane, &[]).await?;
    for name in ["shop", "free"] {
        fixtures::namespace(&client, name, json!({})).await?;
    }
    fixtures::apply(&client, &stories::hardening_policy("shop", "Enforce")).await?;
    enforced_by(&client, "shop", &[Enforcer::Webhook, Enforcer::AdmissionPolicy]).await?;
    refused(&client, "free", false).await?;
    edits_are_undone(&client).await?;
    a_pause_ends_by_itself(&plane).await?;
    a_pause_needs_no_binary(&client).await?;

    let ports = operator.kill()?;
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let configuration = webhooks.get("rampart").await?;
    webhooks.delete("rampart", &DeleteParams::default()).await?;
    refused(&client, "shop", true).await?;
    refused(&client, "free", false).await?;
    refused(&client, "kube-system", false).await?;
    let good = serde_json::to_value(stories::good_pod()?)?;
    let (code, body, _) = post(&client, &path("shop"), &good).await?;
    ensure!(code == 201, "{code}: {body}");
    // Break-glass works without the operator, too.
    rampart(&plane, &["pause", "--for=1h", "--reason=a drill"])?;
    refused(&client, "shop", false).await?;
    rampart(&plane, &["resume"])?;
    refused(&client, "shop", true).await?;

    // It comes back, and sees what happened meanwhile.
    let mut shipped = serde_json::to_value(&configuration)?;
    shipped["metadata"] = json!({"name": "rampart"});
    (shipped["apiVersion"], shipped["kind"]) =
        (json!("admissionregistration.k8s.io/v1"), json!("ValidatingWebhookConfiguration"));
    fixtures::apply(&client, &shipped).await?;
    let kubeconfig = rampart_e2e::operator::kubeconfig(&plane, plane.server()).await?;
    let operator = Operator::start(plane.dir(), &kubeconfig, ports, &[])?;
    operator.ready().await?;
    let mut without = stories::hardening_policy("shop", "Enforce");
    without["spec"]["hardening"]["admissionPolicy"] = json!("None");
    fixtures::apply(&client, &without).await?;
    enforced_by(&client, "shop", &[Enforcer::Webhook]).await?;
    wait::until("the admission policy to go", wait::SOON, || async {
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        ensure!(policies.list(&ours()).await?.items.is_empty(), "it is there");
        ensure!(bindings.list(&ours()).await?.items.is_empty(), "its binding is there");
        Ok(())
    })
    .await?;
    refused(&client, "shop", true).await?;
    nothing_refuses_for_the_cluster(&client).await
}

/// A ClusterSecurityPolicy that leaves refusing to the webhook is not Ready while the API server asks no webhook.
async fn nothing_refuses_for_the_cluster(client: &Client) -> Result<()> {
    let policies: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    let hardening = json!({"mode": "Enforce", "podSecurity": {"level": "baseline"}, "admissionPolicy": "None"});
    let policy = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "wide"},
        "spec": {"namespaceSelector": {"matchLabels": {"tier": "web"}}, "hardening": hardening},
    });
    fixtures::apply(client, &policy).await?;
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    for wanted in ["True", "False"] {
        wait::until("status to say whether anything is refused", wait::SOON, || async {
            let conditions = policies.get("wide").await?.status.context("no status")?.conditions;
            let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready").context("no Ready")?;
            ensure!(ready.status == wanted && (wanted == "True" || ready.reason == "WebhookPending"), "{ready:?}");
            Ok(())
        })
        .await?;
        if wanted == "True" {
            webhooks.delete("rampart", &DeleteParams::default()).await?;
        }
    }
    Ok(())
}

fn ours() -> ListParams {
    ListParams::default().labels("rampart.dev/part=floor")
}

/// Runs a command of the binary against a control plane.
pub(crate) fn rampart(plane: &ControlPlane, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(rampart_e2e::operator::binary()?);
    let output = command.args(arguments).arg("--kubeconfig").arg(plane.admin_kubeconfig()?).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(said)
}

async fn a_pause_ends_by_itself(plane: &ControlPlane) -> Result<()> {
    let client = plane.client();
    let said = rampart(plane, &["pause", "--for=1h", "--reason=a drill"])?;
    ensure!(said.contains("audited only until"), "{said}");
    refused(&client, "shop", false).await?;
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), "shop");
    wait::until("status to say that it is paused", wait::SOON, || async {
        let status = policies.get("hardened").await?.status.context("no status")?;
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").context("no Ready")?;
        ensure!(ready.reason == "Paused" && ready.message.contains("a drill"), "{ready:?}");
        Ok(())
    })
    .await?;
    // Its end is moved here once everything has been seen that goes before it.
    let pauses: Api<ConfigMap> = Api::namespaced(client.clone(), "rampart-system");
    let end = fixtures::this_second().checked_add(SignedDuration::from_secs(5))?;
    let sooner = Patch::Merge(json!({"data": {"until": end.to_string()}}));
    pauses.patch("rampart-pause", &PatchParams::default(), &sooner).await?;
    refused(&client, "shop", true).await?;
    ensure!(Timestamp::now() >= end, "it was refused before the end");
    enforced_by(&client, "shop", &[Enforcer::Webhook, Enforcer::AdmissionPolicy]).await?;
    ensure!(pauses.get_opt("rampart-pause").await?.is_none(), "a pause that is over is left");
    Ok(())
}

/// Word by word what docs/emergency.md has `kubectl` write.
async fn a_pause_needs_no_binary(client: &Client) -> Result<()> {
    let date = Command::new("date").args(["-u", "-d", "+1 hour", "+%FT%TZ"]).output()?;
    ensure!(date.status.success(), "{}", String::from_utf8_lossy(&date.stderr));
    let until = String::from_utf8(date.stdout)?;
    let by_hand: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": "rampart-pause"}, "data": {"until": until.trim(), "reason": "incident 42"},
    }))?;
    let pauses: Api<ConfigMap> = Api::namespaced(client.clone(), "rampart-system");
    let mut misspelt = by_hand.clone();
    misspelt.data.get_or_insert_default().insert("until".into(), "in an hour".into());
    pauses.create(&PostParams::default(), &misspelt).await?;
    let events: Api<Event> = Api::namespaced(client.clone(), "rampart-system");
    wait::until("a pause without a time to be told of", wait::SOON, || async {
        let all = events.list(&ListParams::default()).await?.items;
        let is_told = all.iter().any(|it| it.reason.as_deref() == Some("PauseIgnored"));
        Ok(ensure!(is_told, "no event says so"))
    })
    .await?;
    pauses.delete("rampart-pause", &DeleteParams::default()).await?;
    pauses.create(&PostParams::default(), &by_hand).await?;
    let pod = serde_json::to_value(stories::root_pod()?)?;
    wait::until("the webhook to warn instead, and the admission policy to let it in", wait::SOON, || async {
        let (code, body, warnings) = post(client, &path("shop"), &pod).await?;
        let is_warned = warnings.iter().any(|it| it.starts_with("would violate"));
        ensure!(code == 201 && is_warned, "{code} {warnings:?}: {body}");
        Ok(())
    })
    .await?;
    pauses.delete("rampart-pause", &DeleteParams::default()).await?;
    refused(client, "shop", true).await?;
    // The webhook refuses at once; the bindings are written by the operator, which is killed next.
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    wait::until("the admission policies to refuse again", wait::SOON, || async {
        let refuses =
            |it: &ValidatingAdmissionPolicyBinding| it.spec.validation_actions.iter().any(|action| action == "Deny");
        Ok(ensure!(bindings.list(&ours()).await?.items.iter().all(refuses), "a binding does not refuse"))
    })
    .await?;
    enforced_by(client, "shop", &[Enforcer::Webhook, Enforcer::AdmissionPolicy]).await
}

/// Whatever another hand does to an admission policy is undone.
async fn edits_are_undone(client: &Client) -> Result<()> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let kept = policies.list(&ours()).await?.items.pop().context("an admission policy")?;
    let name = kept.metadata.name.clone().unwrap_or_default();
    let all_pods = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "*"});
    for spec in [
        json!({"matchConditions": [{"name": "never", "expression": "false"}]}),
        json!({"failurePolicy": "Ignore"}),
        json!({"matchConstraints": {"excludeResourceRules": [all_pods]}}),
        json!({"matchConstraints": {"objectSelector": {"matchLabels": {"no": "where"}}}}),
        json!({"auditAnnotations": [{"key": "foreign", "valueExpression": "'foreign'"}]}),
        json!({"variables": [{"name": "refused", "expression": "false"}]}),
        json!({"validations": [{"expression": "true"}]}),
        json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}),
    ] {
        policies.patch(&name, &PatchParams::default(), &Patch::Strategic(json!({"spec": spec}))).await?;
        wait::until("the edit to be undone", wait::SOON, || async {
            ensure!(policies.get(&name).await?.spec == kept.spec, "{spec} is there");
            Ok(())
        })
        .await?;
    }
    let unlabelled = json!({"metadata": {"labels": null}});
    policies.patch(&name, &PatchParams::default(), &Patch::Merge(&unlabelled)).await?;
    wait::until("the labels to be back", wait::SOON, || async {
        ensure!(policies.get(&name).await?.metadata.labels == kept.metadata.labels, "they are not");
        Ok(())
    })
    .await?;
    for spec in [
        json!({"validationActions": ["Audit"]}),
        json!({"matchResources": {"namespaceSelector": {"matchLabels": {"no": "where"}}}}),
    ] {
        bindings.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await?;
        wait::until("the binding to be as it was", wait::SOON, || async {
            let live = bindings.get(&name).await?.spec;
            ensure!(live.validation_actions == ["Deny"] && live.match_resources.is_none(), "{live:?}");
            Ok(())
        })
        .await?;
    }
    bindings.delete(&name, &DeleteParams::default()).await?;
    wait::until("the binding to be back", wait::SOON, || async { Ok(drop(bindings.get(&name).await?)) }).await
}
