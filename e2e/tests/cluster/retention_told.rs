//! What retention tells of itself: events and metrics; and where it does nothing at all.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{core::v1::ConfigMap, events::v1::Event};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use rampart::api::{ReportType, RetentionPolicy, labels::RETENTION_MARK};
use rampart_e2e::{fixtures, metrics::value_of, stories, wait};
use serde_json::{Value, json};

use crate::{
    Env, Tests,
    retention::{export, left, looked_again, reason, set_up},
    retention_reports::{reports, retention},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("retention::what_is_done_is_told_in_events_and_metrics", what_is_done_is_told);
    tests.add("retention::a_run_that_does_nothing_says_what_it_keeps_once", kept_is_told_once);
    tests.add("retention::a_protected_namespace_stays_as_it_is", protected_namespace);
}

/// A metric of the shared operator.
async fn metric(env: &Env, series: &str) -> Result<f64> {
    let (_, metrics) = env.shared().await?.operator.admin("/metrics").await?;
    value_of(&metrics, series).with_context(|| format!("{series} is not served"))
}

/// Waits until the policy's metrics are these: candidates, and whether the caps hold.
async fn stands(env: &Env, namespace: &str, wanted: (f64, f64)) -> Result<()> {
    let of = |name: &str| format!("rampart_retention_{name}{{namespace=\"{namespace}\",name=\"exports\"}}");
    wait::until("the metrics to follow", wait::SOON, || async {
        let told = (metric(env, &of("candidates")).await?, metric(env, &of("breaker_tripped")).await?);
        Ok(ensure!(told == wanted, "{told:?}"))
    })
    .await
}

/// Waits for events about the policy: type, reason and how the note begins.
async fn told(client: &Client, namespace: &str, wanted: &[(&str, &str, &str)]) -> Result<()> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    wait::until("the events", wait::SOON, || async {
        let all = events.list(&ListParams::default()).await?.items;
        let of_policy = all.iter().filter(|event| {
            let about = event.regarding.as_ref();
            about.is_some_and(|it| {
                (it.kind.as_deref(), it.name.as_deref()) == (Some("RetentionPolicy"), Some("exports"))
            })
        });
        let said: BTreeSet<_> =
            of_policy.map(|it| [&it.type_, &it.reason, &it.note].map(|it| it.clone().unwrap_or_default())).collect();
        let is_said = |(kind, reason, note): &(&str, &str, &str)| {
            said.iter().any(|[k, r, n]| (k.as_str(), r.as_str()) == (*kind, *reason) && n.starts_with(note))
        };
        Ok(ensure!(wanted.iter().all(is_said), "{said:?}"))
    })
    .await
}

async fn what_is_done_is_told(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, 21, 30).await?;
    fixtures::apply(&client, &stories::retention_policy(&namespace, "Enforce")).await?;
    reason(&client, &namespace, "Ready", "BlastRadiusExceeded").await?;
    let tripped = ("Warning", "BreakerTripped", "more would be deleted than the caps allow; nothing is until exports-");
    told(&client, &namespace, &[("Normal", "PlanComputed", "21 objects would be deleted, 0 are kept"), tripped])
        .await?;
    stands(&env, &namespace, (21.0, 1.0)).await?;
    let overdue = format!("rampart_retention_oldest_overdue_seconds{{namespace=\"{namespace}\",name=\"exports\"}}");
    let days = metric(&env, &overdue).await? / 86_400.0;
    ensure!((29.9..31.0).contains(&days), "60 days old, of which 30 are too many: {days} days overdue");

    // One is held, and so twenty are left: as many as the caps allow, of another spec.
    let hold = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "LegalHold",
        "metadata": {"name": "case-17", "namespace": namespace},
        "spec": {"resources": [{"resource": "configmaps"}], "selector": {"matchLabels": {"case": "17"}},
                 "indefinite": true, "ground": "litigation", "caseRef": "C-17"},
    });
    let case = json!({"metadata": {"labels": {"case": "17"}}});
    maps.patch("old-3", &PatchParams::default(), &Patch::Merge(&case)).await?;
    fixtures::apply(&client, &hold).await?;
    told(&client, &namespace, &[("Normal", "SkippedHeld", "objects that are too old are held")]).await?;
    let before = (metric(&env, "rampart_retention_deleted_total").await?, kept_by_hold(&env).await);
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    let wider = json!({"spec": {"safety": {"maxDeletionsPerRun": 30}}});
    policies.patch("exports", &PatchParams::default(), &Patch::Merge(&wider)).await?;
    // In as many runs as seconds passed while they were marked: the event has the words of the first.
    told(&client, &namespace, &[("Normal", "Deleted", "")]).await?;
    stands(&env, &namespace, (1.0, 0.0)).await?;
    // Other tests may delete meanwhile.
    let after = (metric(&env, "rampart_retention_deleted_total").await?, kept_by_hold(&env).await);
    ensure!(after.0 >= before.0 + 20.0 && after.1 >= before.1 + 1.0, "{before:?}, then {after:?}");
    ensure!(left(&maps).await?.contains(&"old-3".to_owned()), "what is held went");

    // What is no longer too old loses its mark.
    let long = json!({"spec": {"safety": {"gracePeriod": "1h"}}});
    policies.patch("exports", &PatchParams::default(), &Patch::Merge(&long)).await?;
    let exported = |at: &str| -> Value { json!({"metadata": {"annotations": {"example.com/exported-at": at}}}) };
    let set = |at: String| {
        let maps: Api<ConfigMap> = maps.clone();
        async move { maps.patch("new-0", &PatchParams::default(), &Patch::Merge(&exported(&at))).await }
    };
    set("2020-01-01T00:00:00Z".into()).await?;
    wait::until("its mark", wait::SOON, || async {
        let is_marked = maps.get("new-0").await?.annotations().contains_key(RETENTION_MARK);
        Ok(ensure!(is_marked, "it has none"))
    })
    .await?;
    set(jiff::Timestamp::now().to_string()).await?;
    // Of the same reason, the first note stays, with a count.
    let marked = ("Normal", "Marked", "21 objects were marked for deletion");
    told(&client, &namespace, &[marked, ("Normal", "Unmarked", "1 objects lost their mark")]).await?;

    // Whoever misspells a date is told: the object would stay for ever, and nobody would know.
    set("1st of January".into()).await?;
    let kept = "objects are kept because their age can't be read: `rampart retention plan` says which, and why";
    told(&client, &namespace, &[("Warning", "AgeUnknown", kept)]).await?;
    let plan = policies.get("exports").await?.status.and_then(|status| status.plan).context("a plan")?;
    let named =
        plan.samples.iter().any(|it| it.name == "new-0" && it.decision.starts_with("kept: its age can't be read"));
    Ok(ensure!(plan.unknown_age == 1 && named, "{plan:?}"))
}

/// Items that reports say are kept since they are held; 0 before the first.
async fn kept_by_hold(env: &Env) -> f64 {
    metric(env, "rampart_retention_skipped_total{reason=\"Held\"}").await.unwrap_or_default()
}

/// Nothing is to be done, but something is too old, or of unknown age, and stays: the evidence says why.
async fn kept_is_told_once(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    set_up(&client, &namespace, 0, 4).await?;
    let junk = |name| export(&namespace, name, |it| it["annotations"]["example.com/exported-at"] = json!("x"));
    fixtures::apply(&client, &junk("junk-0")).await?;
    fixtures::apply(&client, &stories::retention_policy(&namespace, "Enforce")).await?;
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    for known in 1..=2 {
        wait::until("a report of what is kept", wait::SOON, || async {
            let runs = reports(&client, &namespace, ReportType::Run).await?;
            let last = runs.last().context("no report")?;
            let (record, status) = (&last.spec.record, last.status.as_ref().context("no results")?);
            ensure!(runs.len() == known && record.acts.is_empty() && record.items.len() == known, "{runs:?}");
            let reasons = record.items.iter().all(|item| item.reason == "kept: its age can't be read");
            Ok(ensure!(reasons && status.finished_at.is_some() && status.results.is_empty(), "{last:?}"))
        })
        .await?;
        looked_again(&policies).await?;
        looked_again(&policies).await?;
        let runs = reports(&client, &namespace, ReportType::Run).await?.len();
        ensure!(runs == known, "the same was told {runs} times");
        fixtures::apply(&client, &junk("junk-1")).await?;
    }
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let (code, out, err) = retention(&kubeconfig, &["verify", "exports", "-n", &namespace])?;
    Ok(ensure!(code == Some(0), "{code:?} {out}{err}"))
}

async fn protected_namespace(env: Env) -> Result<()> {
    let client = env.shared().await?.plane.client();
    for (namespace, by) in
        [("billing", "--retention-protected-namespaces"), ("rampart-keys", "nothing is deleted there")]
    {
        if namespace == "billing" {
            fixtures::namespace(&client, namespace, json!({"rampart.dev/retention": "allowed"})).await?;
        }
        let maps = set_up(&client, namespace, 2, 4).await?;
        fixtures::apply(&client, &stories::retention_policy(namespace, "Enforce")).await?;
        let message = reason(&client, namespace, "Accepted", "Invalid").await?;
        ensure!(message.starts_with("metadata.namespace: ") && message.contains(by), "{message}");
        ensure!(left(&maps).await?.len() == 6, "something went");
    }
    Ok(())
}
