//! Many small runs: what stops them, and what becomes of their reports.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rampart::api::{LegalHold, RetentionPolicy, RetentionReport, labels::ROLLED_UP};
use rampart_e2e::{fixtures, operator::USER, stories, wait};
use serde_json::{Value, json};

use crate::{
    Env, Tests,
    retention::{left, looked_again, reason, set_up},
    retention_reports::{acting_as, plan_of, retention},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("retention::reports_of_small_runs_are_rolled_up_and_stay_evidence", small_runs_are_rolled_up);
    tests.add("retention::a_plan_that_is_held_is_closed_and_stops_nothing", held_plans_are_closed);
    tests.add("retention::who_suspends_a_policy_stops_the_sweep_that_is_under_way", a_sweep_is_stopped);
    tests.add("retention::what_can_not_be_deleted_keeps_nothing_else_from_its_turn", failures_starve_nobody);
}

/// A policy that deletes whatever is too old, a little at a time.
fn policy(namespace: &str, batch: usize) -> Value {
    let mut policy = stories::retention_policy(namespace, "Enforce");
    policy["spec"]["safety"]["maxDeletionsPerRun"] = json!(1000);
    policy["spec"]["safety"]["maxPercentPerRun"] = json!(100);
    policy["spec"]["safety"]["batchSize"] = json!(batch);
    policy
}

/// How long dozens of small runs may take, each with its report, beside other tests.
const MANY: Duration = Duration::from_mins(5);

async fn all_gone(maps: &Api<ConfigMap>) -> Result<()> {
    wait::until("all that is too old to go", MANY, || async {
        let left = left(maps).await?;
        Ok(ensure!(left.is_empty(), "{} are left", left.len()))
    })
    .await
}

/// A hold on reports.
fn hold(namespace: &str, selector: &Value) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "LegalHold",
        "metadata": {"name": "case-17", "namespace": namespace},
        "spec": {"resources": [{"group": "rampart.dev", "resource": "retentionreports"}],
                 "selector": selector, "indefinite": true, "ground": "litigation", "caseRef": "C-17"},
    })
}

/// Begins, and holds the report of the first run long before it is rolled up: it stays, and stops nothing.
async fn a_report_is_held(
    env: &Env,
    (client, namespace): (&Client, &str),
    reports: &Api<RetentionReport>,
) -> Result<String> {
    fixtures::apply(client, &hold(namespace, &json!({"matchLabels": {"case": "17"}}))).await?;
    stories::ready::<LegalHold>(client, namespace, "case-17").await?;
    fixtures::apply(client, &policy(namespace, 1)).await?;
    let first = wait::until("the first report to be finished", wait::SOON, || async {
        let all = reports.list_metadata(&ListParams::default()).await?.items;
        let named = |end: &str| all.iter().map(kube::ResourceExt::name_any).find(|name| name.ends_with(end));
        named("-run-2").and(named("-run-1")).context("the second has not begun")
    })
    .await?;
    // Its labels are Rampart's alone.
    let reports: Api<RetentionReport> = Api::namespaced(acting_as(env, USER).await?, namespace);
    // What came of the first run may be written while the second has begun.
    wait::until("the first report to be held", wait::SOON, || async {
        let mut report = reports.get(&first).await?;
        report.labels_mut().insert("case".into(), "17".into());
        Ok(reports.replace(&first, &PostParams::default(), &report).await.map(drop)?)
    })
    .await?;
    Ok(first)
}

async fn small_runs_are_rolled_up(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let maps = set_up(&client, &namespace, 35, 0).await?;
    let reports: Api<RetentionReport> = Api::namespaced(client.clone(), &namespace);
    let held = a_report_is_held(&env, (&client, &namespace), &reports).await?;
    all_gone(&maps).await?;
    // A run for each mark, and one for each deletion.
    let whole = || async {
        let (code, out, err) = retention(&kubeconfig, &["verify", "exports", "-n", &namespace])?;
        let wanted = "runs 1 to 70 are whole, 35 objects were deleted";
        Ok(ensure!(code == Some(0) && out.contains(wanted), "{code:?} {out}{err}"))
    };
    wait::until("the old reports to be rolled up", MANY, || async {
        let all = reports.list_metadata(&ListParams::default()).await?.items;
        let rolled_up = all.iter().filter(|it| it.labels().contains_key(ROLLED_UP)).count();
        Ok(ensure!(all.len() <= 35 && rolled_up >= 1, "{} reports, {rolled_up} rolled up", all.len()))
    })
    .await?;
    wait::until("the chain to be whole", wait::SOON, whole).await?;
    let rolled_up = reports.list(&ListParams::default().labels(ROLLED_UP)).await?.items;
    let [report] = rolled_up.as_slice() else { anyhow::bail!("{} were rolled up", rolled_up.len()) };
    ensure!(report.spec.earlier.len() >= 30, "{} runs", report.spec.earlier.len());
    ensure!(report.spec.earlier[0].record.number == 1, "{}", report.spec.earlier[0].record.number);
    reports.get_metadata(&held).await.context("what is held went")?;
    // Nobody takes a run out of it: not by right, and not unseen.
    let mut without = report.clone();
    without.spec.earlier.remove(1);
    let write = |client: Client| {
        let (without, namespace) = (&without, &namespace);
        async move {
            let api: Api<RetentionReport> = Api::namespaced(client, namespace);
            api.replace(&without.name_any(), &PostParams::default(), without).await
        }
    };
    let refused = write(client.clone()).await.map(drop);
    let said = refused.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(said.contains("rolled up by Rampart alone"), "{said}");
    write(acting_as(&env, USER).await?).await?;
    let (code, out, _) = retention(&kubeconfig, &["verify", "exports", "-n", &namespace])?;
    ensure!(code == Some(1) && out.contains("broken at exports-") && out.contains("-run-2: it is missing"), "{out}");
    Ok(())
}

async fn held_plans_are_closed(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, 2, 4).await?;
    fixtures::apply(&client, &hold(&namespace, &json!({}))).await?;
    stories::ready::<LegalHold>(&client, &namespace, "case-17").await?;
    fixtures::apply(&client, &stories::retention_policy(&namespace, "DryRun")).await?;
    plan_of(&client, &namespace, 2).await?;
    // Another one takes its place, and then there is nothing to plan.
    maps.delete("old-0", &DeleteParams::default()).await?;
    plan_of(&client, &namespace, 1).await?;
    maps.delete("old-1", &DeleteParams::default()).await?;
    let reports: Api<RetentionReport> = Api::namespaced(client.clone(), &namespace);
    let closed = || async {
        let all = reports.list(&ListParams::default()).await?.items;
        let is_closed = |it: &RetentionReport| it.status.as_ref().is_some_and(|status| status.finished_at.is_some());
        ensure!(all.len() == 2 && all.iter().all(is_closed), "{all:?}");
        anyhow::Ok(all)
    };
    let all = wait::until("both plans to be closed", wait::SOON, closed).await?;
    // Once is enough, and the policy goes on.
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    looked_again(&policies).await?;
    looked_again(&policies).await?;
    ensure!(closed().await? == all, "a plan that was closed was written again");
    reason(&client, &namespace, "Ready", "DryRun").await.map(drop)
}

/// More than are swept before who sees the first of them go has suspended the policy.
const SWEPT: usize = 100;

async fn a_sweep_is_stopped(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, SWEPT, 0).await?;
    fixtures::apply(&client, &policy(&namespace, 1)).await?;
    wait::until("the sweep to begin", MANY, || async {
        let left = left(&maps).await?.len();
        Ok(ensure!(left < SWEPT, "{left} are left"))
    })
    .await?;
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    let suspend = |yes: bool| json!({"spec": {"suspend": yes}});
    policies.patch("exports", &PatchParams::default(), &Patch::Merge(&suspend(true))).await?;
    let then = left(&maps).await?.len();
    // One policy is looked at by one visit at a time: another one of it says that this one has ended.
    let dry = json!({"spec": {"suspend": false, "mode": "DryRun"}});
    policies.patch("exports", &PatchParams::default(), &Patch::Merge(&dry)).await?;
    looked_again(&policies).await?;
    let now = left(&maps).await?.len();
    ensure!(now > 0 && now + 2 >= then, "{then} were left, and now {now}: a batch is one object");
    // And goes on when it may.
    fixtures::apply(&client, &policy(&namespace, 1000)).await?;
    all_gone(&maps).await
}

async fn failures_starve_nobody(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, 12, 0).await?;
    // The API server itself refuses to delete the oldest, whoever asks.
    let name = format!("keeps-{namespace}");
    let refuses = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["DELETE"],
                }],
            },
            "validations": [{
                "expression": "!(oldObject.metadata.name in ['old-0', 'old-1', 'old-2', 'old-3'])",
                "message": "not these",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
        },
    });
    fixtures::apply(&client, &refuses).await?;
    fixtures::apply(&client, &binding).await?;
    wait::until("the refusal to be in force", wait::SOON, || async {
        let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
        Ok(ensure!(maps.delete("old-0", &dry).await.is_err(), "not yet"))
    })
    .await?;
    fixtures::apply(&client, &policy(&namespace, 2)).await?;
    wait::until("all others to go", MANY, || async {
        let left = left(&maps).await?;
        Ok(ensure!(left == ["old-0", "old-1", "old-2", "old-3"], "{left:?}"))
    })
    .await?;
    let said = reason(&client, &namespace, "Degraded", "Failed").await?;
    ensure!(said.contains("objects could not be marked or deleted: see RetentionReport exports-"), "{said}");
    let bindings = fixtures::api_of(&client, &binding).await?;
    bindings.delete(&name, &DeleteParams::default()).await?;
    all_gone(&maps).await
}
