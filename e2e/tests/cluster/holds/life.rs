//! The life of a hold: who changes and ends it, when it ends by itself, and what outlives the operator.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    admissionregistration::v1::{
        ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
    },
    core::v1::ConfigMap,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rampart_e2e::{
    ControlPlane, Operator, Options, fixtures,
    operator::{binary, kubeconfig},
    stories, wait,
};
use serde_json::{Value, json};

use super::{held, hold, kept, map, merge, reason, refused, somebody};
use crate::{Env, Tests, floor::rampart};

pub(super) fn tests(tests: &mut Tests) {
    tests.add("holds::who_may_not_release_can_only_make_a_hold_stronger", only_stronger);
    tests.add("holds::a_hold_ends_at_its_time", ends_at_its_time);
    tests.add("holds::retention_keeps_what_is_held_until_it_is_released", retention_keeps);
    tests.add("holds::outlive_the_operator_a_pause_and_their_definition", outlive);
    tests.add("holds::one_that_can_not_be_made_any_more_holds_until_it_ends", of_an_earlier_build);
}

const RELEASE: &str = "needs the verb release on it";

async fn only_stronger(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let plane = &env.shared().await?.plane;
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    let all = |verbs: &[&str]| json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": verbs}]);
    let clerk = somebody(plane, "clerk", all(&verbs)).await?;
    let mut more = verbs.to_vec();
    more.push("release");
    let releaser = somebody(plane, "releaser", all(&more)).await?;
    let until = |days: i64| json!((Timestamp::now() + SignedDuration::from_hours(24 * days)).to_string());
    let kinds = json!([{"resource": "configmaps"}, {"resource": "secrets"}]);
    let written = hold(&namespace, "case-17", &json!({"resources": kinds, "indefinite": null, "until": until(9)}));
    fixtures::apply(&client, &map(&namespace, "held", "17")).await?;
    let holds = held(&clerk, &written).await?;
    for (what, patch) in [
        ("shorten", json!({"until": until(8)})),
        ("fewer kinds", json!({"resources": [{"resource": "configmaps"}]})),
        ("another selector", json!({"selector": {"matchLabels": {"case": "18"}}})),
        ("more labels", json!({"selector": {"matchLabels": {"case": "17", "more": "x"}}})),
        ("another ground", json!({"ground": "none"})),
        ("another case", json!({"caseRef": null})),
    ] {
        refused(what, merge(&holds, "case-17", json!({"spec": patch})).await, RELEASE)?;
    }
    refused("delete", holds.delete("case-17", &DeleteParams::default()).await, RELEASE)?;
    let collection = holds.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    refused("delete all", collection, RELEASE)?;
    let more = json!([{"resource": "configmaps"}, {"resource": "secrets"}, {"resource": "services"}]);
    for patch in [
        json!({"spec": {"until": until(10)}}),
        json!({"spec": {"resources": more}}),
        json!({"spec": {"until": null, "indefinite": true}}),
        json!({"metadata": {"labels": {"team": "legal"}}}),
    ] {
        merge(&holds, "case-17", patch).await?;
    }
    refused(
        "an end",
        merge(&holds, "case-17", json!({"spec": {"indefinite": null, "until": until(99)}})).await,
        RELEASE,
    )?;

    let maps = fixtures::api_of(&clerk, &map(&namespace, "held", "17")).await?;
    kept(&maps, "held").await?;
    refused("delete", maps.delete("held", &DeleteParams::default()).await, "held by LegalHold")?;
    let releasing = fixtures::api_of(&releaser, &written).await?;
    releasing.delete("case-17", &DeleteParams::default()).await?;
    wait::until("what was held to be free", wait::SOON, || async {
        Ok(maps.delete("held", &DeleteParams::default()).await.map(drop)?)
    })
    .await
}

async fn ends_at_its_time(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let plane = &env.shared().await?.plane;
    fixtures::apply(&client, &map(&namespace, "held", "17")).await?;
    let later = (Timestamp::now() + SignedDuration::from_hours(24)).to_string();
    let holds = held(&client, &hold(&namespace, "case-17", &json!({"indefinite": null, "until": later}))).await?;
    let maps = fixtures::api_of(&client, &map(&namespace, "held", "17")).await?;
    kept(&maps, "held").await?;
    refused("delete", maps.delete("held", &DeleteParams::default()).await, "it can't be deleted")?;
    // Shortened by who may release it.
    let end = fixtures::this_second() + SignedDuration::from_secs(5);
    merge(&holds, "case-17", json!({"spec": {"until": end.to_string()}})).await?;
    let message = reason(&holds, "case-17", "Ready", "Expired").await?;
    ensure!(Timestamp::now() >= end && message.contains(&end.to_string()), "{message}");
    wait::until("what was held to be free", wait::SOON, || async {
        Ok(maps.delete("held", &DeleteParams::default()).await.map(drop)?)
    })
    .await?;
    // Nobody has to release what has ended.
    let rules = json!([{"apiGroups": ["rampart.dev"], "resources": ["legalholds"], "verbs": ["get", "delete"]}]);
    let tidier = somebody(plane, "tidier", rules).await?;
    let holds = fixtures::api_of(&tidier, &hold(&namespace, "case-17", &json!({}))).await?;
    holds.delete("case-17", &DeleteParams::default()).await.map(drop)?;
    Ok(())
}

async fn names(maps: &Api<ConfigMap>) -> Result<Vec<String>> {
    let exports = maps.list(&ListParams::default().labels("data=export")).await?;
    Ok(exports.items.iter().map(kube::ResourceExt::name_any).collect())
}

async fn retention_keeps(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    for object in stories::retention_fixtures(&namespace, 3, 3)? {
        fixtures::apply(&client, &object).await?;
    }
    for name in ["old-0", "old-1"] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"case": "17"}}}));
        maps.patch(name, &PatchParams::default(), &patch).await?;
    }
    let holds = held(&client, &hold(&namespace, "case-17", &json!({}))).await?;
    let policy = stories::retention_policy(&namespace, "Enforce");
    fixtures::apply(&client, &policy).await?;
    let policies = fixtures::api_of(&client, &policy).await?;
    let message = reason(&policies, "exports", "HoldActive", "Held").await?;
    ensure!(message == "2 objects held by LegalHold/case-17", "{message}");
    wait::until("the one that nobody holds to go", wait::SOON, || async {
        let left = names(&maps).await?;
        ensure!(left.len() == 5 && !left.contains(&"old-2".to_owned()), "left are {left:?}");
        Ok(())
    })
    .await?;
    wait::until("the plan to tell of what is left", wait::SOON, || async {
        let live = policies.get("exports").await?;
        let plan = live.data.pointer("/status/plan").context("no plan")?;
        let samples = plan["samples"].as_array().context("no samples")?;
        let told = samples.iter().all(|it| it["decision"] == "kept: held by LegalHold/case-17");
        Ok(ensure!(plan["held"] == 2 && samples.len() == 2 && told, "{plan}"))
    })
    .await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let mut explain = Command::new(binary()?);
    let explain = explain.args(["explain", "cm/old-0", "-o", "json", "-n", &namespace, "--kubeconfig"]).arg(kubeconfig);
    let told: Value = serde_json::from_slice(&explain.output()?.stdout)?;
    ensure!(
        told["heldBy"][0] == json!({"hold": "LegalHold/case-17", "ground": "litigation", "caseRef": "C-17"}),
        "{told:#}"
    );
    ensure!(told["retention"][0]["heldBy"][0] == "LegalHold/case-17", "{told:#}");
    let marked = maps.get("old-0").await?.metadata.annotations.unwrap_or_default();
    ensure!(!marked.contains_key("rampart.dev/retention-mark"), "{marked:?}");
    holds.delete("case-17", &DeleteParams::default()).await?;
    wait::until("what was held to go", wait::SOON, || async {
        let left = names(&maps).await?;
        ensure!(left.len() == 3 && left.iter().all(|name| name.starts_with("new-")), "left are {left:?}");
        Ok(())
    })
    .await
}

/// Until a hold is in force again: the API server takes a moment after each change.
async fn refuses(client: &Client) -> Result<()> {
    let maps = fixtures::api_of(client, &map("reports", "held", "17")).await?;
    wait::until("the API server to refuse", wait::SOON, || async {
        let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
        refused("delete", maps.delete("held", &dry_run).await, "held by LegalHold reports/case-17")
    })
    .await
}

async fn outlive(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let flags = ["--retention-minimum-grace=1s", "--retention-interval=2s"];
    let operator = Operator::install(&plane, &flags).await?;
    fixtures::namespace(&client, "reports", json!({"rampart.dev/retention": "allowed"})).await?;
    fixtures::apply(&client, &map("reports", "held", "17")).await?;
    held(&client, &hold("reports", "case-17", &json!({}))).await?;
    let hardening = stories::hardening_policy("reports", "Enforce");
    fixtures::apply(&client, &hardening).await?;
    rampart(&plane, &["pause", "--for=1h", "--reason=a drill"])?;
    // By then the operator has made of the pause what it makes of it.
    reason(&fixtures::api_of(&client, &hardening).await?, "hardened", "Ready", "Paused").await?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let of_holds = ListParams::default().labels("rampart.dev/part=hold");
    let actions = || async {
        let all = bindings.list(&of_holds).await?.items;
        anyhow::Ok(all.into_iter().flat_map(|it| it.spec.validation_actions).collect::<Vec<_>>())
    };
    ensure!(actions().await? == ["Deny", "Deny"], "{:?}", actions().await?);
    refuses(&client).await?;
    rampart(&plane, &["resume"])?;

    // Without the operator; and what somebody with rights on admission policies undoes, it puts back.
    let ports = operator.kill()?;
    refuses(&client).await?;
    let audit = Patch::Merge(
        json!({"spec": {"validationActions": ["Audit"]}, "metadata": {"labels": {"rampart.dev/owner-name": null}}}),
    );
    for binding in bindings.list(&of_holds).await?.items {
        bindings.patch(&binding.name_any(), &PatchParams::default(), &audit).await?;
    }
    let config = kubeconfig(&plane, plane.server()).await?;
    let operator = Operator::start(plane.dir(), &config, ports, &flags)?;
    operator.ready().await?;
    wait::until("the bindings to be put back", wait::SOON, || async {
        ensure!(actions().await? == ["Deny", "Deny"], "{:?}", actions().await?);
        Ok(())
    })
    .await?;
    refuses(&client).await?;

    // Holds can't be asked for: nothing is deleted, and the condition says so. What was refused still is.
    for object in stories::retention_fixtures("reports", 2, 3)? {
        fixtures::apply(&client, &object).await?;
    }
    let crds = fixtures::api_of(
        &client,
        &json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}),
    )
    .await?;
    for name in ["legalholds.rampart.dev", "clusterlegalholds.rampart.dev"] {
        // Whoever may delete definitions is stronger than a hold: so the docs say.
        crds.delete(name, &DeleteParams::default()).await?;
        // While it goes it still answers, without its holds.
        wait::until("the definition to go", wait::SOON, || async {
            Ok(ensure!(crds.get_opt(name).await?.is_none(), "it is there"))
        })
        .await?;
    }
    let policy = stories::retention_policy("reports", "Enforce");
    fixtures::apply(&client, &policy).await?;
    let policies = fixtures::api_of(&client, &policy).await?;
    let message = reason(&policies, "exports", "Ready", "HoldsUnknown").await?;
    ensure!(message.contains("legal holds could not be read, so nothing is deleted"), "{message}");
    ensure!(names(&Api::namespaced(client.clone(), "reports")).await?.len() == 5, "something went");
    ensure!(actions().await? == ["Deny", "Deny"], "{:?}", actions().await?);
    refuses(&client).await
}

/// A hold on ApiKeys, and what the builds that took it made for it: who may, gives it an end, and then nothing is held.
async fn of_an_earlier_build(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let operator = Operator::install(&plane, &[]).await?;
    fixtures::namespace(&client, "shop", json!({})).await?;
    let mut key = stories::api_key("shop");
    key["metadata"]["labels"] = json!({"case": "17"});
    fixtures::apply(&client, &key).await?;
    let keys = fixtures::api_of(&client, &key).await?;
    let holds = held(&client, &hold("shop", "case-17", &json!({}))).await?;

    // Nobody of today is there to refuse it, or to compile it anew.
    let ports = operator.kill()?;
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    webhooks.delete("rampart", &DeleteParams::default()).await?;
    let kinds = json!([{"resource": "configmaps"}, {"group": "rampart.dev", "resource": "apikeys"}]);
    wait::until("the API server to ask no webhook", wait::SOON, || async {
        Ok(merge(&holds, "case-17", json!({"spec": {"resources": kinds}})).await?)
    })
    .await?;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let of_holds = ListParams::default().labels("rampart.dev/part=hold");
    let rule = json!({"apiGroups": ["rampart.dev"], "apiVersions": ["*"], "operations": ["UPDATE", "DELETE"],
                      "resources": ["apikeys"], "scope": "Namespaced"});
    for policy in policies.list(&of_holds).await?.items {
        let name = policy.name_any();
        if !name.ends_with("-namespaces") {
            let constraints = policy.spec.and_then(|spec| spec.match_constraints);
            let mut rules = constraints.and_then(|it| it.resource_rules).unwrap_or_default();
            rules.push(serde_json::from_value(rule.clone())?);
            // Whatever version it is of: the API server's own controller writes its status.
            let patch = Patch::Merge(json!({"spec": {"matchConstraints": {"resourceRules": rules}}}));
            policies.patch(&name, &PatchParams::default(), &patch).await?;
        }
    }
    kept(&keys, "orders").await?;

    let config = kubeconfig(&plane, plane.server()).await?;
    let operator = Operator::start_part("controller", plane.dir(), &config, ports, &[])?;
    operator.ready().await?;
    let message = reason(&holds, "case-17", "Ready", "Invalid").await?;
    ensure!(message.contains("apikeys can't be held") && message.contains("stays until it ends"), "{message}");
    let told = holds.get("case-17").await?.data["status"]["admissionPolicies"].clone();
    ensure!(told.as_array().is_some_and(|told| told.len() == 2), "{told}");
    ensure!(policies.list(&of_holds).await?.items.len() == 2, "what is refused for it went");
    kept(&keys, "orders").await?;

    let end = fixtures::this_second() + SignedDuration::from_secs(5);
    merge(&holds, "case-17", json!({"spec": {"indefinite": null, "until": end.to_string()}})).await?;
    reason(&holds, "case-17", "Ready", "Expired").await?;
    ensure!(policies.list(&of_holds).await?.items.is_empty(), "something is refused for it");
    let revocation = json!({"spec": {"revocation": {"reason": "Leaked"}}});
    wait::until("the key to be free", wait::SOON, || async {
        Ok(merge(&keys, "orders", revocation.clone()).await.map(drop)?)
    })
    .await
}
