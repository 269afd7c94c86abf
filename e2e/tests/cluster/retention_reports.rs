//! RetentionReport: evidence, approval, and what an object may do between mark and sweep.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use rampart::{
    api::{Outcome, RecordDecision, ReportType, RetentionPolicy, RetentionReport},
    retention::named,
};
use rampart_e2e::{
    fixtures,
    operator::{self, USER},
    stories, wait,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    Env, Tests,
    retention::{export, left, looked_again, reason, set_up},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("retention::above_the_cap_a_set_is_approved_and_goes_and_no_other", approved_set_goes);
    tests.add("retention::a_report_is_written_by_the_operator_and_approved_by_who_may", who_may_write_reports);
    tests.add("retention::a_plan_is_reported_once_and_again_when_it_changes", plan_is_reported_once);
    tests.add("retention::mode_mark_marks_and_deletes_nothing", mark_deletes_nothing);
    tests.add("retention::a_schedule_is_waited_for", schedule_is_waited_for);
    tests.add("retention::verify_names_the_report_that_was_changed", verify_names_what_was_changed);
    tests.add("retention::reports_go_when_their_time_is_over_and_not_before", reports_expire);
    tests.add("retention::between_mark_and_sweep_anything_may_happen", random_interleavings);
    tests.add("retention::janitor_annotations_are_read_or_keep_the_object", janitor_annotations);
}

/// Exit code, and what is printed and said.
pub(crate) fn retention(kubeconfig: &Path, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(operator::binary()?);
    let command = command.arg("retention").args(arguments).arg("--kubeconfig").arg(kubeconfig).stdin(Stdio::null());
    let output = command.output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

/// A client that acts as somebody else.
pub(crate) async fn acting_as(env: &Env, user: &str) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(env.shared().await?.plane.admin_kubeconfig()?)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = Some(user.into());
    Ok(Client::try_from(config)?)
}

pub(crate) async fn reports(client: &Client, namespace: &str, kind: ReportType) -> Result<Vec<RetentionReport>> {
    let api: Api<RetentionReport> = Api::namespaced(client.clone(), namespace);
    let mut found = api.list(&ListParams::default()).await?.items;
    found.retain(|report| report.spec.record.kind == kind);
    found.sort_by_key(|report| report.spec.record.number);
    Ok(found)
}

/// The one plan there is, once it would delete so many.
pub(crate) async fn plan_of(client: &Client, namespace: &str, count: i64) -> Result<RetentionReport> {
    wait::until(&format!("a plan of {count}"), wait::SOON, || async {
        let mut plans = reports(client, namespace, ReportType::Plan).await?;
        plans.retain(|plan| plan.status.is_none());
        let plan = plans.pop().context("there is none")?;
        ensure!(plans.is_empty() && plan.spec.record.counts.delete == count, "{:?}", plan.spec.record.counts);
        Ok(plan)
    })
    .await
}

/// Objects that are too old, after the first; all at once, within the shortest grace period: so few that they would be
/// within the caps are never all that there are.
async fn more_old(client: &Client, namespace: &str, count: usize) -> Result<()> {
    let make = |nth| async move { fixtures::apply(client, &export(namespace, &format!("late-{nth}"), |_| {})).await };
    try_join_all((0..count).map(make)).await.map(drop)
}

async fn approved_set_goes(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let maps = set_up(&client, &namespace, 21, 30).await?;
    let mut policy = stories::retention_policy(&namespace, "Enforce");
    // Longer than it takes to make those that come later: some of them would be within the caps, and go.
    policy["spec"]["safety"]["gracePeriod"] = json!("5s");
    fixtures::apply(&client, &policy).await?;
    let plan = plan_of(&client, &namespace, 21).await?;
    let message = reason(&client, &namespace, "BlastRadiusExceeded", "BlastRadiusExceeded").await?;
    ensure!(message.contains(&plan.name_any()), "{message}");

    let (code, out, err) = retention(&kubeconfig, &["plan", "exports", "-n", &namespace])?;
    ensure!(
        code == Some(1) && out.contains("of 51 objects 21 would be deleted") && out.contains("old-20"),
        "{out}{err}"
    );
    ensure!(out.contains("The caps allow 20") && out.contains(&plan.name_any()), "{out}");
    let (code, _, err) = retention(&kubeconfig, &["approve", "exports", "-n", &namespace])?;
    ensure!(code == Some(2) && err.contains("say --yes"), "{code:?} {err}");
    let (code, out, err) = retention(&kubeconfig, &["approve", "exports", "-n", &namespace, "--yes"])?;
    ensure!(code == Some(0) && out.lines().count() == 21, "{code:?} {out}{err}");
    // What is too old since then is more than the caps allow, too.
    more_old(&client, &namespace, 25).await?;
    wait::until("the set to go", wait::SOON, || async {
        let left = left(&maps).await?;
        ensure!(!left.iter().any(|name| name.starts_with("old-")), "left are {left:?}");
        Ok(())
    })
    .await?;
    plan_of(&client, &namespace, 25).await?;
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    looked_again(&policies).await?;
    looked_again(&policies).await?;
    let left = left(&maps).await?;
    ensure!(left.len() == 55 && left.iter().filter(|name| name.starts_with("late-")).count() == 25, "{left:?}");

    // The evidence: who approved what, and what came of each.
    let runs = reports(&client, &namespace, ReportType::Run).await?;
    let run = runs.iter().find(|run| run.spec.record.approved.is_some()).context("no run of an approved plan")?;
    let approved = run.spec.record.approved.clone().context("a plan")?;
    let used = reports(&client, &namespace, ReportType::Plan).await?;
    let used = used.iter().find(|report| report.name_any() == approved.report).context("the plan is gone")?;
    ensure!(used.spec.approval.as_ref().map(|approval| &approval.digest) == Some(&approved.digest));
    ensure!(used.status.as_ref().is_some_and(|status| status.finished_at.is_some()), "an approval is used once");
    let results = run.status.clone().context("results")?;
    ensure!((results.deleted, results.failed) == (21, 0), "{results:?}");
    let (code, out, err) = retention(&kubeconfig, &["verify", "exports", "-n", &namespace])?;
    ensure!(code == Some(0) && out.contains("21 objects were deleted"), "{code:?} {out}{err}");
    let digest = policies.get("exports").await?.status.and_then(|status| status.last_run).context("a run")?.digest;
    ensure!(out.contains(&digest), "{out} and {digest}");
    Ok(())
}

async fn who_may_write_reports(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    set_up(&client, &namespace, 21, 30).await?;
    fixtures::apply(&client, &stories::retention_policy(&namespace, "Enforce")).await?;
    let plan = plan_of(&client, &namespace, 21).await?;
    let role = |name: &str, verbs: &[&str]| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name, "namespace": namespace},
            "rules": [{"apiGroups": ["rampart.dev"], "verbs": verbs,
                       "resources": ["retentionreports", "retentionreports/status"]}]})
    };
    let bind = |name: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]})
    };
    let users = [("writer", vec!["get", "create", "patch", "update"]), ("approver", vec!["get", "patch", "approve"])];
    for (name, verbs) in &users {
        fixtures::apply(&client, &role(name, verbs)).await?;
        fixtures::apply(&client, &bind(name)).await?;
    }
    let of =
        async |user: &str| anyhow::Ok(Api::<RetentionReport>::namespaced(acting_as(&env, user).await?, &namespace));
    let (writer, approver) = (of("writer").await?, of("approver").await?);
    let name = plan.name_any();
    let approval = json!({"spec": {"approval": rampart::retention::evidence::to_approve(&plan.spec.record)}});
    let patched = async |api: &Api<RetentionReport>, patch: &Value, status: bool| {
        let params = PatchParams::default();
        let done = if status {
            api.patch_status(&name, &params, &Patch::Merge(patch)).await
        } else {
            api.patch(&name, &params, &Patch::Merge(patch)).await
        };
        done.map(drop).map_err(|error| error.to_string())
    };
    // RBAC and the admission policy come into force one after the other.
    wait::until("the writer to be refused by the admission policy", wait::SOON, || async {
        let said = patched(&writer, &approval, false).await.expect_err("the writer may approve");
        ensure!(said.contains("writer may not approve RetentionReport"), "{said}");
        Ok(())
    })
    .await?;
    let edit = json!({"spec": {"record": {"number": 7}}});
    let gone =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "0d9c4f2e-51f7-4f5a-9f0f-3f1f2f6c7a10"});
    for (patch, status, wanted) in [
        (edit.clone(), false, "written once"),
        (json!({"metadata": {"labels": {"rampart.dev/owner-name": "another"}}}), false, "labels"),
        (json!({"metadata": {"annotations": {"rampart.dev/report-expires-at": null}}}), false, "report-expires-at"),
        (json!({"metadata": {"ownerReferences": [gone]}}), false, "has no owner"),
        (json!({"metadata": {"finalizers": ["example.com/never"]}}), false, "has no owner"),
        (json!({"status": {"finishedAt": "2020-01-01T00:00:00Z"}}), true, "written by Rampart alone"),
    ] {
        for api in [&writer, &approver] {
            // One of them may not even write status.
            let said = patched(api, &patch, status).await.expect_err(wanted);
            ensure!(said.contains(wanted) || said.contains("cannot patch"), "{wanted}: {said}");
        }
    }
    let mut another = RetentionReport::new("another", plan.spec.clone());
    another.metadata.labels = plan.metadata.labels.clone();
    let said = writer.create(&PostParams::default(), &another).await.expect_err("it was made").to_string();
    ensure!(said.contains("written by Rampart alone"), "{said}");
    // Rampart's own account neither changes what it wrote nor approves.
    let said = patched(&of(USER).await?, &edit, false).await.expect_err("it was changed");
    ensure!(said.contains("forbidden"), "{said}");
    wait::until("the approver to be let", wait::SOON, || async {
        patched(&approver, &approval, false).await.map_err(anyhow::Error::msg)
    })
    .await
}

async fn plan_is_reported_once(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, 2, 4).await?;
    fixtures::apply(
        &client,
        &export(&namespace, "junk", |it| it["annotations"]["example.com/exported-at"] = json!("x")),
    )
    .await?;
    let mut policy = stories::retention_policy(&namespace, "DryRun");
    policy["spec"]["dataClass"] = json!("Confidential");
    policy["spec"]["processing"] = json!({"purposes": ["export"], "legalBasis": "Contract", "categories": ["contact"]});
    fixtures::apply(&client, &policy).await?;
    let plan = plan_of(&client, &namespace, 2).await?;
    let record = serde_json::to_value(&plan.spec.record)?;
    ensure!(record["processing"] == policy["spec"]["processing"] && record["dataClass"] == "Confidential", "{record}");
    ensure!(record["counts"]["kept"] == 1 && record["items"][0]["name"] == "junk", "{record}");
    ensure!(record["items"][0]["reason"] == "kept: its age can't be read", "{record}");
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    looked_again(&policies).await?;
    looked_again(&policies).await?;
    let again = plan_of(&client, &namespace, 2).await?;
    ensure!(again == plan, "the same plan was written again");
    maps.delete("old-0", &DeleteParams::default()).await?;
    let changed = plan_of(&client, &namespace, 1).await?;
    ensure!(changed.spec.record.number == 2, "{:?}", changed.spec.record.number);
    maps.delete("old-1", &DeleteParams::default()).await?;
    let kept = plan_of(&client, &namespace, 0).await?;
    ensure!(kept.spec.record.counts.kept == 1, "what is kept has its reason there: {:?}", kept.spec.record);
    // Nothing to say: no report.
    maps.delete("junk", &DeleteParams::default()).await?;
    wait::until("the plan to go", wait::SOON, || async {
        let plans = reports(&client, &namespace, ReportType::Plan).await?.len();
        ensure!(plans == 0 && reports(&client, &namespace, ReportType::Run).await?.is_empty(), "{plans} plans");
        Ok(())
    })
    .await
}

async fn mark_deletes_nothing(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, 2, 4).await?;
    fixtures::apply(&client, &stories::retention_policy(&namespace, "Mark")).await?;
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    wait::until("both marks' grace to be over", wait::SOON, || async {
        let status = policies.get("exports").await?.status.unwrap_or_default();
        let samples = status.plan.unwrap_or_default().samples;
        let over = samples.iter().filter(|it| it.decision == "is marked, and its grace period is over").count();
        ensure!(over == 2, "{samples:?}");
        ensure!(
            status.last_run.as_ref().is_some_and(|run| (run.marked, run.deleted) == (2, 0)),
            "{:?}",
            status.last_run
        );
        Ok(())
    })
    .await?;
    looked_again(&policies).await?;
    ensure!(left(&maps).await?.len() == 6, "something went");
    let runs = reports(&client, &namespace, ReportType::Run).await?;
    ensure!(runs.len() == 1 && named(&runs[0].spec.record).all(|it| it.decision == RecordDecision::Mark), "{runs:?}");
    Ok(())
}

async fn schedule_is_waited_for(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, 2, 4).await?;
    let mut policy = stories::retention_policy(&namespace, "Enforce");
    // Some day that is not today, or the one after.
    let later = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(72))?;
    let later = later.to_zoned(jiff::tz::TimeZone::UTC);
    policy["spec"]["schedule"] = json!(format!("17 4 {} {} *", later.day(), later.month()));
    policy["spec"]["timeZone"] = json!("Europe/Berlin");
    fixtures::apply(&client, &policy).await?;
    let live = stories::ready::<RetentionPolicy>(&client, &namespace, "exports").await?;
    let next = live.status.and_then(|status| status.next_run_time).context("no next run")?.0.to_string();
    ensure!(next.contains(":17:00Z") && next.starts_with(&later.strftime("%Y-%m-%d").to_string()), "{next}");
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    looked_again(&policies).await?;
    let marked = maps.list(&ListParams::default()).await?;
    let marks = marked.iter().filter(|map| map.annotations().contains_key("rampart.dev/retention-mark")).count();
    ensure!((left(&maps).await?.len(), marks) == (6, 0), "something was marked or went");
    // Without it, something is done when it is due.
    let none = json!({"spec": {"schedule": null, "timeZone": null}});
    policies.patch("exports", &PatchParams::default(), &Patch::Merge(&none)).await?;
    wait::until("both to go", wait::SOON, || async {
        ensure!(left(&maps).await?.len() == 4);
        Ok(())
    })
    .await
}

async fn verify_names_what_was_changed(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let maps = set_up(&client, &namespace, 2, 4).await?;
    fixtures::apply(&client, &stories::retention_policy(&namespace, "Enforce")).await?;
    wait::until("the two to go, and that to be told", wait::SOON, || async {
        let runs = reports(&client, &namespace, ReportType::Run).await?;
        let deleted = |it: &RetentionReport| it.status.as_ref().map_or(0, |status| status.deleted);
        ensure!(left(&maps).await?.len() == 4 && runs.iter().map(deleted).sum::<i64>() == 2);
        Ok(())
    })
    .await?;
    let verified = || retention(&kubeconfig, &["verify", "exports", "-n", &namespace]);
    wait::until("the status to name the last run", wait::SOON, || async {
        let (code, out, err) = verified()?;
        ensure!(code == Some(0) && out.contains("2 objects were deleted"), "{code:?} {out}{err}");
        Ok(())
    })
    .await?;
    // Who has become Rampart hides an object.
    let runs = reports(&client, &namespace, ReportType::Run).await?;
    ensure!(runs.len() >= 2, "a run that marks, and one that deletes");
    let (first, last) = (runs[0].name_any(), runs[runs.len() - 1].name_any());
    let api: Api<RetentionReport> = Api::namespaced(acting_as(&env, USER).await?, &namespace);
    let hidden = json!({"status": {"results": [], "marked": 0}});
    api.patch_status(&first, &PatchParams::default(), &Patch::Merge(&hidden)).await?;
    let (code, out, err) = verified()?;
    ensure!(code == Some(1) && out.contains(&format!("broken at {first}")), "{code:?} {out}{err}");
    // Evidence outlives its policy, and what is missing is missed.
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    policies.delete("exports", &DeleteParams::default()).await?;
    let all: Api<RetentionReport> = Api::namespaced(client.clone(), &namespace);
    all.delete(&first, &DeleteParams::default()).await?;
    let (code, out, err) = verified()?;
    ensure!(
        code == Some(1) && out.contains(&format!("broken at {first}: it is missing: {last}")),
        "{code:?} {out}{err}"
    );
    let (code, _, err) = retention(&kubeconfig, &["verify", "another", "-n", &namespace])?;
    ensure!(code == Some(2), "{code:?} {err}");
    Ok(())
}

async fn reports_expire(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    set_up(&client, &namespace, 2, 4).await?;
    fixtures::apply(&client, &stories::retention_policy(&namespace, "DryRun")).await?;
    let plan = plan_of(&client, &namespace, 2).await?;
    // As the operator wrote them some time ago, for a policy that is gone.
    let api: Api<RetentionReport> = Api::namespaced(acting_as(&env, USER).await?, &namespace);
    let now = fixtures::this_second();
    let later = now.checked_add(jiff::SignedDuration::from_hours(1))?;
    for (name, ends) in [("over", now), ("over-unsaid", now), ("not-over", later)] {
        let mut record = plan.spec.record.clone();
        record.expires_at.0 = ends;
        record.policy.uid = "gone".into();
        let mut report = RetentionReport::new(name, rampart::retention::evidence::spec_of(record));
        report.metadata.labels = Some([("rampart.dev/owner-kind".into(), "RetentionPolicy".into())].into());
        let said = [("rampart.dev/report-expires-at".into(), now.to_string())];
        report.metadata.annotations = (name != "over-unsaid").then(|| said.into());
        api.create(&PostParams::default(), &report).await?;
    }
    wait::until("those that are over to go", wait::SOON, || async {
        let left = (api.get_opt("over").await?, api.get_opt("over-unsaid").await?);
        ensure!(left == (None, None), "one is there");
        Ok(())
    })
    .await?;
    ensure!(api.get_opt("not-over").await?.is_some() && api.get_opt(&plan.name_any()).await?.is_some(), "another went");
    Ok(())
}

/// What happens to an object, some time between mark and sweep, or right within.
#[derive(Debug, Clone, Copy)]
enum Change {
    Nothing,
    MadeAnew,
    Relabelled,
    Younger,
}

const INTERLEAVINGS: usize = 200;

async fn random_interleavings(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let seed = u64::try_from(jiff::Timestamp::now().as_microsecond())?;
    let mut random = StdRng::seed_from_u64(seed);
    let maps = set_up(&client, &namespace, INTERLEAVINGS, 1).await?;
    let plan: Vec<(String, Change, Duration)> = (0..INTERLEAVINGS)
        .map(|nth| {
            let changes = [Change::Nothing, Change::MadeAnew, Change::Relabelled, Change::Younger];
            (
                format!("old-{nth}"),
                changes[random.random_range(0..4)],
                Duration::from_millis(random.random_range(0..3000)),
            )
        })
        .collect();
    let mut policy = stories::retention_policy(&namespace, "Enforce");
    policy["spec"]["safety"] = json!({"maxDeletionsPerRun": 10000, "maxPercentPerRun": 100, "gracePeriod": "1s"});
    fixtures::apply(&client, &policy).await?;
    wait::until("the first mark", wait::SOON, || async {
        // One that has gone by now was marked.
        let Some(first) = maps.get_opt("old-0").await? else { return Ok(()) };
        ensure!(first.annotations().contains_key("rampart.dev/retention-mark"), "old-0 has none");
        Ok(())
    })
    .await?;
    let done = join_all(plan.iter().map(|(name, change, after)| {
        let (maps, namespace) = (&maps, &namespace);
        async move {
            tokio::time::sleep(*after).await;
            Ok::<_, anyhow::Error>((name.clone(), changed(maps, namespace, name, *change).await?))
        }
    }))
    .await;
    // By name, the UID that must stay.
    let stay: BTreeMap<String, String> = done
        .into_iter()
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter_map(|(name, uid)| Some((name, uid?)))
        .collect();
    wait::until("what nobody touched to go", wait::SOON, || async {
        let live = maps.list(&ListParams::default()).await?;
        let gone = plan.iter().filter(|(name, ..)| !live.iter().any(|map| map.name_any() == *name)).count();
        ensure!(gone + stay.len() == INTERLEAVINGS, "{gone} are gone, and {} stay", stay.len());
        Ok(())
    })
    .await?;
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    looked_again(&policies).await?;
    for (name, uid) in &stay {
        let live = maps.get_opt(name).await?;
        ensure!(live.as_ref().and_then(ResourceExt::uid).as_ref() == Some(uid), "{name} went (seed {seed})");
    }
    let runs = reports(&client, &namespace, ReportType::Run).await?;
    let results: Vec<_> = runs.iter().flat_map(rampart::retention::evidence::outcomes).collect();
    let count = |wanted| results.iter().filter(|(_, outcome)| *outcome == Some(wanted)).count();
    println!(
        "seed {seed}: {} stay, {} deleted, {} kept, {} unmarked, in {} runs",
        stay.len(),
        count(Outcome::Deleted),
        count(Outcome::Kept),
        count(Outcome::Unmarked),
        runs.len()
    );
    let deleted: std::collections::BTreeSet<_> =
        results.iter().filter(|(_, outcome)| *outcome == Some(Outcome::Deleted)).map(|(item, _)| item.uid).collect();
    ensure!(!stay.values().any(|uid| deleted.contains(uid.as_str())), "the evidence names what stays");
    Ok(())
}

/// Changes an object. The UID that must stay from now on; `None` where it may go, or went before.
async fn changed(maps: &Api<ConfigMap>, namespace: &str, name: &str, change: Change) -> Result<Option<String>> {
    let now = jiff::Timestamp::now().to_string();
    let young = json!({"metadata": {"annotations": {"example.com/exported-at": now}}});
    let patch = match change {
        Change::Nothing => return Ok(None),
        Change::MadeAnew => {
            match maps.delete(name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if !status.is_not_found() => return Err(kube::Error::Api(status).into()),
                _ => {}
            }
            let made = export(namespace, name, |it| it["annotations"]["example.com/exported-at"] = json!(now));
            return Ok(maps.create(&PostParams::default(), &serde_json::from_value(made)?).await?.uid());
        }
        Change::Relabelled => json!({"metadata": {"labels": {"data": "keep"}}}),
        Change::Younger => young,
    };
    match maps.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(live) => Ok(live.uid()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn janitor_annotations(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    set_up(&client, &namespace, 0, 4).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    for (name, expires) in
        [("over", json!("2020-01-17")), ("bad", json!("17.01.2020")), ("later", json!("2999-01-17T15:14"))]
    {
        let object = export(&namespace, name, |it| it["annotations"] = json!({"janitor/expires": expires}));
        fixtures::apply(&client, &object).await?;
    }
    let mut policy = stories::retention_policy(&namespace, "Enforce");
    policy["spec"]["targets"][0]["resources"]["annotation"] = json!("janitor/expires");
    policy["spec"]["targets"][0]["resources"]["annotationSays"] = json!("Expires");
    fixtures::apply(&client, &policy).await?;
    wait::until("what says that it is over to go", wait::SOON, || async {
        ensure!(maps.get_opt("over").await?.is_none(), "it is there");
        Ok(())
    })
    .await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let (code, out, err) = retention(&kubeconfig, &["plan", "exports", "-n", &namespace, "-o", "json"])?;
    ensure!(code == Some(0), "{err}");
    let told: Value = serde_json::from_str(&out)?;
    let bad = told["items"].as_array().context("items")?.iter().find(|item| item["name"] == "bad").context("bad")?;
    let why = bad["decision"].as_str().unwrap_or_default();
    ensure!(why.starts_with("kept: its age can't be read: no time to go: write 2020-01-17T15:14:38Z"), "{told}");
    ensure!(maps.get_opt("bad").await?.is_some() && maps.get_opt("later").await?.is_some(), "something went");
    Ok(())
}
