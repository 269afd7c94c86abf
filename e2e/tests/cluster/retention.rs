//! RetentionPolicy: inside its rails, or not at all.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rampart::{
    api::{Outcome, RetentionPolicy, RetentionReport},
    retention::evidence::outcomes,
};
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("retention::a_breaker_that_tripped_stays_so_until_its_author_is_asked_anew", a_breaker_stays);
    tests.add("retention::without_the_right_nothing_goes_and_status_names_it", without_the_right_nothing_goes);
    tests.add("retention::without_the_namespaces_consent_nothing_goes", without_consent_nothing_goes);
    tests.add("retention::what_protects_an_object", what_protects_an_object);
    tests.add("retention::what_waits_for_a_finalizer_is_told_to_be_deleted_when_it_is_gone", a_finalizer_is_waited_for);
    tests.add("retention::an_object_made_anew_under_its_name_has_its_own_grace", made_anew_has_its_own_grace);
}

pub(crate) async fn set_up(client: &Client, namespace: &str, old: usize, new: usize) -> Result<Api<ConfigMap>> {
    for object in stories::retention_fixtures(namespace, old, new)? {
        fixtures::apply(client, &object).await?;
    }
    Ok(Api::namespaced(client.clone(), namespace))
}

pub(crate) async fn left(maps: &Api<ConfigMap>) -> Result<Vec<String>> {
    let exports = maps.list(&ListParams::default().labels("data=export")).await?;
    Ok(exports.items.iter().map(ResourceExt::name_any).collect())
}

/// Waits until a condition of the policy has this reason, for its newest spec.
pub(crate) async fn reason(client: &Client, namespace: &str, kind: &str, reason: &str) -> Result<String> {
    let api: Api<RetentionPolicy> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("{kind} with {reason}"), wait::SOON, || async {
        let live = api.get("exports").await?;
        let json = serde_json::to_value(&live)?;
        let found = stories::condition(&json, kind).unwrap_or_default();
        ensure!(found["reason"] == reason, "{kind} is {found}");
        Ok(found["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

async fn a_breaker_stays(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, 21, 30).await?;
    fixtures::apply(&client, &stories::retention_policy(&namespace, "Enforce")).await?;
    let message = reason(&client, &namespace, "BlastRadiusExceeded", "BlastRadiusExceeded").await?;
    ensure!(message.starts_with("21 objects would be deleted, and the caps allow 20"), "{message}");
    // Their grace is over, and another look changes nothing.
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), &namespace);
    wait::until("every mark's grace to be over", wait::SOON, || async {
        let plan = policies.get("exports").await?.status.and_then(|status| status.plan).unwrap_or_default();
        let over = plan.samples.iter().filter(|it| it.decision == "is marked, and its grace period is over").count();
        ensure!(over == 20, "{over} of 20 samples");
        Ok(())
    })
    .await?;
    ensure!(left(&maps).await?.len() == 51, "something went");
    // Below the caps, all of a sudden: whoever may approve has not looked yet.
    maps.delete("old-0", &DeleteParams::default()).await?;
    wait::until("a plan of the other twenty", wait::SOON, || async {
        let message = reason(&client, &namespace, "Ready", "BlastRadiusExceeded").await?;
        ensure!(message.contains("of the 20 that are left nothing is deleted"), "{message}");
        Ok(())
    })
    .await?;
    looked_again(&policies).await?;
    ensure!(left(&maps).await?.len() == 50, "something went");
    // Another spec is another question, and its caps are its author's.
    let caps = json!({"spec": {"safety": {"maxDeletionsPerRun": 21}}});
    policies.patch("exports", &PatchParams::default(), &Patch::Merge(&caps)).await?;
    wait::until("the other twenty to go", wait::SOON, || async {
        let left = left(&maps).await?;
        ensure!(left.len() == 30 && left.iter().all(|name| name.starts_with("new-")), "left are {left:?}");
        Ok(())
    })
    .await
}

/// Waits until the operator has looked at the policy once more.
pub(crate) async fn looked_again(policies: &Api<RetentionPolicy>) -> Result<()> {
    let token = jiff::Timestamp::now().to_string();
    let ask = json!({"metadata": {"annotations": {"rampart.dev/reconcile-requested-at": token}}});
    policies.patch("exports", &PatchParams::default(), &Patch::Merge(&ask)).await?;
    wait::until("the operator to look again", wait::SOON, || async {
        let status = policies.get("exports").await?.status.unwrap_or_default();
        ensure!(status.last_handled_reconcile_at.as_ref() == Some(&token), "{:?}", status.last_handled_reconcile_at);
        Ok(())
    })
    .await
}

async fn without_the_right_nothing_goes(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, 2, 4).await?;
    let role = |verbs: &[&str]| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "retention", "namespace": namespace},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}],
        })
    };
    fixtures::apply(&client, &role(&["list", "patch"])).await?;
    fixtures::apply(&client, &stories::retention_policy(&namespace, "Enforce")).await?;
    let message = reason(&client, &namespace, "Ready", "NotPermitted").await?;
    let account = format!("system:serviceaccount:{namespace}:retention");
    ensure!(message.contains(&account) && message.contains("cannot delete resource \"configmaps\""), "{message}");
    ensure!(left(&maps).await?.len() == 6);
    fixtures::apply(&client, &role(&["list", "patch", "delete"])).await?;
    wait::until("the two to go", wait::SOON, || async {
        ensure!(left(&maps).await?.len() == 4);
        Ok(())
    })
    .await
}

async fn without_consent_nothing_goes(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    fixtures::namespace(&client, &namespace, json!({})).await?;
    let maps = set_up(&client, &namespace, 2, 4).await?;
    fixtures::apply(&client, &stories::retention_policy(&namespace, "Enforce")).await?;
    let message = reason(&client, &namespace, "Ready", "NotPermitted").await?;
    ensure!(message.contains("rampart.dev/retention=allowed"), "{message}");
    let marked = maps.list(&ListParams::default()).await?;
    let marks = marked.iter().filter(|map| map.annotations().contains_key("rampart.dev/retention-mark")).count();
    ensure!((left(&maps).await?.len(), marks) == (6, 0), "something was marked or went");
    Ok(())
}

pub(crate) fn export(namespace: &str, name: &str, change: impl Fn(&mut Value)) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"data": "export"},
                     "annotations": {"example.com/exported-at": "2020-01-01T00:00:00Z"}},
    });
    change(&mut object["metadata"]);
    object
}

async fn what_protects_an_object(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, 1, 5).await?;
    let owner = maps.get("new-0").await?.uid();
    for object in [
        export(&namespace, "no-time", |it| it["annotations"] = json!({})),
        export(&namespace, "junk-time", |it| it["annotations"]["example.com/exported-at"] = json!("yesterday")),
        export(&namespace, "owned", |it| {
            it["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "new-0", "uid": owner, "controller": true}]);
        }),
        export(&namespace, "finalized", |it| it["finalizers"] = json!(["example.com/slow"])),
        export(&namespace, "other-label", |it| it["labels"]["data"] = json!("report")),
        export(&namespace, "of-another-policy", |it| {
            it["annotations"]["rampart.dev/retention-mark"] =
                json!("{\"policyUID\": \"other\", \"markedAt\": \"2020-01-01T00:00:00Z\"}");
        }),
    ] {
        fixtures::apply(&client, &object).await?;
    }
    fixtures::apply(&client, &stories::retention_policy(&namespace, "Enforce")).await?;
    wait::until("old-0 and the junk mark's to go", wait::SOON, || async {
        let left = left(&maps).await?;
        ensure!(
            !left.contains(&"old-0".to_owned()) && !left.contains(&"of-another-policy".to_owned()),
            "left are {left:?}"
        );
        Ok(())
    })
    .await?;
    let left = left(&maps).await?;
    for kept in ["no-time", "junk-time", "owned"] {
        ensure!(left.contains(&kept.to_owned()), "{kept} went");
    }
    ensure!(maps.get_opt("other-label").await?.is_some(), "an object that no target selects went");
    // What is only going is not told to be gone.
    let reports: Api<RetentionReport> = Api::namespaced(client, &namespace);
    wait::until("its deletion to have begun", wait::SOON, || async {
        let runs = reports.list(&ListParams::default()).await?.items;
        let told: Vec<_> = runs.iter().flat_map(outcomes).filter(|(item, _)| item.name == "finalized").collect();
        let is_going = told.iter().any(|(_, outcome)| *outcome == Some(Outcome::Terminating));
        Ok(ensure!(is_going && !told.iter().any(|(_, outcome)| *outcome == Some(Outcome::Deleted)), "{told:?}"))
    })
    .await?;
    let done = json!({"metadata": {"finalizers": null}});
    maps.patch("finalized", &PatchParams::default(), &Patch::Merge(&done)).await?;
    Ok(())
}

async fn a_finalizer_is_waited_for(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, 0, 3).await?;
    let finalized = export(&namespace, "finalized", |it| it["finalizers"] = json!(["example.com/slow"]));
    fixtures::apply(&client, &finalized).await?;
    fixtures::apply(&client, &stories::retention_policy(&namespace, "Enforce")).await?;
    wait::until("its deletion to begin", wait::SOON, || async {
        let is_going = maps.get("finalized").await?.metadata.deletion_timestamp.is_some();
        Ok(ensure!(is_going, "not yet"))
    })
    .await?;
    let policies: Api<RetentionPolicy> = Api::namespaced(client, &namespace);
    let deleted = || async {
        let status = policies.get("exports").await?.status.unwrap_or_default();
        anyhow::Ok(status.last_run.map(|run| (run.number, run.deleted)))
    };
    looked_again(&policies).await?;
    looked_again(&policies).await?;
    let then = deleted().await?;
    ensure!(then.is_some_and(|(_, deleted)| deleted == 0), "{then:?}");
    let done = json!({"metadata": {"finalizers": null}});
    maps.patch("finalized", &PatchParams::default(), &Patch::Merge(&done)).await?;
    wait::until("the same run to tell that it is gone", wait::SOON, || async {
        let now = deleted().await?;
        Ok(ensure!(now == then.map(|(run, _)| (run, 1)), "{then:?}, then {now:?}"))
    })
    .await
}

async fn made_anew_has_its_own_grace(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let maps = set_up(&client, &namespace, 1, 3).await?;
    let mut policy = stories::retention_policy(&namespace, "Enforce");
    policy["spec"]["safety"]["gracePeriod"] = json!("1h");
    fixtures::apply(&client, &policy).await?;
    let mark = wait::until("a mark", wait::SOON, || async {
        let map = maps.get("old-0").await?;
        let mark = map.annotations().get("rampart.dev/retention-mark").cloned();
        mark.ok_or_else(|| anyhow::anyhow!("there is none"))
    })
    .await?;
    // Somebody copies the mark to another object of the same name.
    maps.delete("old-0", &DeleteParams::default()).await?;
    let past = mark.clone();
    fixtures::apply(
        &client,
        &export(&namespace, "old-0", |it| it["annotations"]["rampart.dev/retention-mark"] = json!(past)),
    )
    .await?;
    let again = wait::until("a mark of its own", wait::SOON, || async {
        let map = maps.get("old-0").await?;
        let mark = map.annotations().get("rampart.dev/retention-mark").cloned().unwrap_or_default();
        ensure!(mark.contains(&map.uid().unwrap_or_default()), "{mark}");
        Ok(mark)
    })
    .await?;
    ensure!(again != mark);
    // What is young again loses its mark.
    let young = json!({"metadata": {"annotations": {"example.com/exported-at": jiff::Timestamp::now().to_string()}}});
    is_marked_after(&maps, &young, false).await?;
    // So does what no target selects any more.
    let old = json!({"metadata": {"annotations": {"example.com/exported-at": "2020-01-01T00:00:00Z"}}});
    is_marked_after(&maps, &old, true).await?;
    is_marked_after(&maps, &json!({"metadata": {"labels": {"data": "rescued"}}}), false).await
}

/// Changes the object, and waits for its mark to come or to go.
async fn is_marked_after(maps: &Api<ConfigMap>, change: &Value, marked: bool) -> Result<()> {
    maps.patch("old-0", &PatchParams::default(), &Patch::Merge(change)).await?;
    wait::until("the mark to follow", wait::SOON, || async {
        let map = maps.get("old-0").await?;
        let is_marked = map.annotations().contains_key("rampart.dev/retention-mark");
        ensure!(is_marked == marked, "it is {}there", if is_marked { "" } else { "not " });
        Ok(())
    })
    .await
}
