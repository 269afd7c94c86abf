//! Ways around a hold.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
};
use rampart_e2e::{fixtures, wait};
use serde_json::{Value, json};

use super::{held, hold, kept, map, merge, reason, refused, was_refused_to};
use crate::{Env, Tests, floor::type_checked};

pub(super) fn tests(tests: &mut Tests) {
    tests.add("holds::every_way_around_a_hold_is_refused", every_way_around);
    tests.add("holds::a_cluster_hold_keeps_namespaces_and_what_stands_in_none", cluster_hold);
    tests.add("holds::a_hold_of_a_namespace_is_about_nothing_else", nothing_else);
}

const GARBAGE_COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";
const LABELS: &str = "its labels must stay";
const CONTENT: &str = "its content can't be changed";

async fn api(client: &Client, namespace: &str) -> Result<Api<DynamicObject>> {
    fixtures::api_of(client, &map(namespace, "any", "17")).await
}

/// 5,000 keys, close to the most that an object may be.
fn big(namespace: &str) -> Value {
    let mut big = map(namespace, "big", "17");
    let data: BTreeMap<String, String> = (0..5_000).map(|nth| (format!("key-{nth}"), "x".repeat(150))).collect();
    big["data"] = json!(data);
    big
}

async fn every_way_around(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let plane = &env.shared().await?.plane;
    let maps = api(&client, &namespace).await?;
    for object in [map(&namespace, "held", "17"), map(&namespace, "free", "18"), big(&namespace)] {
        fixtures::apply(&client, &object).await?;
    }
    // One that is being deleted, and stays for its finalizer alone.
    let mut dying = map(&namespace, "dying", "17");
    dying["metadata"]["finalizers"] = json!(["example.com/wait"]);
    fixtures::apply(&client, &dying).await?;
    maps.delete("dying", &DeleteParams::default()).await?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]},
        "metadata": {"name": "held", "namespace": namespace, "labels": {"case": "17"}},
    });
    fixtures::apply(&client, &service).await?;
    let kinds = json!({"resources": [{"resource": "configmaps"}, {"resource": "services"}]});
    let holds = held(&client, &hold(&namespace, "case-17", &kinds)).await?;
    let told = holds.get("case-17").await?.data["status"]["admissionPolicies"].clone();
    for name in told.as_array().into_iter().flatten().filter_map(Value::as_str).chain(["rampart-hold-release"]) {
        type_checked(&client, name).await?;
    }
    let by = format!("held by LegalHold {namespace}/case-17: ");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    kept(&maps, "held").await?;
    kept(&namespaces, &namespace).await?;

    let deleted = format!("{by}it can't be deleted");
    refused("delete", maps.delete("held", &DeleteParams::default()).await, &deleted)?;
    let at_once = DeleteParams {
        grace_period_seconds: Some(0),
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..DeleteParams::default()
    };
    refused("delete at once", maps.delete("held", &at_once).await, &deleted)?;
    let of_case = ListParams::default().labels("case=17");
    refused("delete by label", maps.delete_collection(&DeleteParams::default(), &of_case).await, &deleted)?;
    let of_app = ListParams::default().labels("app=books");
    refused("delete by another label", maps.delete_collection(&DeleteParams::default(), &of_app).await, &deleted)?;
    let of_namespace = format!("the namespace has LegalHold {namespace}/case-17: it can't be deleted");
    refused("delete the namespace", namespaces.delete(&namespace, &DeleteParams::default()).await, &of_namespace)?;

    for (what, patch, wanted) in [
        ("strip the label", json!({"metadata": {"labels": {"case": null}}}), LABELS),
        ("strip all labels", json!({"metadata": {"labels": null}}), LABELS),
        ("another case", json!({"metadata": {"labels": {"case": "18"}}}), LABELS),
        ("empty the data", json!({"data": null}), CONTENT),
        ("change the data", json!({"data": {"evidence": "b"}}), CONTENT),
        ("add to the data", json!({"data": {"more": "b"}}), CONTENT),
        ("add binary data", json!({"binaryData": {"more": "YQ=="}}), CONTENT),
        ("make it immutable", json!({"immutable": true}), CONTENT),
    ] {
        refused(what, merge(&maps, "held", patch).await, &format!("{by}{wanted}"))?;
    }
    let mut emptied = maps.get("held").await?;
    emptied.data["data"] = json!({});
    refused("replace", maps.replace("held", &PostParams::default(), &emptied).await, CONTENT)?;
    let mut other = map(&namespace, "held", "17");
    other["data"] = json!({"evidence": "b"});
    let another = PatchParams::apply("another-manager").force();
    refused("apply by another manager", maps.patch("held", &another, &Patch::Apply(&other)).await, CONTENT)?;
    let mut less = map(&namespace, "held", "17");
    less["data"] = json!(null);
    let same = PatchParams::apply("kubectl").force();
    refused("apply less by its manager", maps.patch("held", &same, &Patch::Apply(&less)).await, CONTENT)?;
    refused("a big one", merge(&maps, "big", json!({"data": {"key-4999": "y"}})).await, CONTENT)?;
    let finalized = merge(&maps, "dying", json!({"metadata": {"finalizers": null}})).await;
    refused("finalize one that was being deleted", finalized, &format!("{by}its finalizers must stay"))?;
    let services = fixtures::api_of(&client, &service).await?;
    let strip = Patch::Merge(json!({"metadata": {"labels": {"case": null}}}));
    let by_status = services.patch_status("held", &PatchParams::default(), &strip).await;
    refused("strip the label by its status", by_status, LABELS)?;

    collected_as_garbage(&client, &namespace).await?;
    for name in ["owned", "owned-hold"] {
        was_refused_to(plane, GARBAGE_COLLECTOR, name).await?;
    }

    // All are there as they were; and what a hold is not about is free.
    let live = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    for name in ["held", "owned"] {
        let data = live.get(name).await?.data.unwrap_or_default();
        ensure!(data == [("evidence".to_owned(), "a".to_owned())].into(), "{name}: {data:?}");
    }
    for name in ["held", "big"] {
        merge(&maps, name, json!({"metadata": {"annotations": {"seen": "yes"}, "labels": {"app": "other"}}})).await?;
    }
    merge(&maps, "free", json!({"data": null})).await?;
    fixtures::apply(&client, &map(&namespace, "free", "17")).await?;
    refused("one that came under the hold", maps.delete("free", &DeleteParams::default()).await, &deleted)
}

/// A held object and a hold whose owner goes.
async fn collected_as_garbage(client: &Client, namespace: &str) -> Result<()> {
    let owner = fixtures::apply(client, &map(namespace, "owner", "none")).await?;
    let mut evidence = map(namespace, "owned", "17");
    let mut hold = hold(namespace, "owned-hold", &json!({"selector": {"matchLabels": {"case": "another"}}}));
    for object in [&mut evidence, &mut hold] {
        object["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid()}]);
        fixtures::apply(client, object).await?;
    }
    api(client, namespace).await?.delete("owner", &DeleteParams::default()).await?;
    Ok(())
}

async fn cluster_hold(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let matter = format!("of-{namespace}");
    let namespaces = fixtures::api_of(&client, &json!({"apiVersion": "v1", "kind": "Namespace"})).await?;
    merge(&namespaces, &namespace, json!({"metadata": {"labels": {"matter": matter}}})).await?;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": matter, "labels": {"case": matter}},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    });
    let object = map(&namespace, "held", &matter);
    for object in [&role, &object] {
        fixtures::apply(&client, object).await?;
    }
    let mut wide = hold(
        &namespace,
        &matter,
        &json!({
            "resources": [{"resource": "configmaps"}, {"group": "rbac.authorization.k8s.io", "resource": "clusterroles"}],
            "selector": {"matchLabels": {"case": matter}},
            "namespaceSelector": {"matchExpressions": [{"key": "matter", "operator": "In", "values": [matter]}]},
        }),
    );
    wide["kind"] = json!("ClusterLegalHold");
    wide["metadata"] = json!({"name": matter});
    let holds = held(&client, &wide).await?;
    let by = format!("ClusterLegalHold {matter}: ");
    kept(&namespaces, &namespace).await?;
    kept(&fixtures::api_of(&client, &role).await?, &matter).await?;
    kept(&fixtures::api_of(&client, &object).await?, "held").await?;

    let of_namespace = format!("the namespace has {by}");
    refused("delete", namespaces.delete(&namespace, &DeleteParams::default()).await, &of_namespace)?;
    for labels in [json!({"matter": null}), json!({"matter": "other"})] {
        let patch = json!({"metadata": {"labels": labels}});
        refused("relabel", merge(&namespaces, &namespace, patch.clone()).await, &of_namespace)?;
        let by_status = namespaces.patch_status(&namespace, &PatchParams::default(), &Patch::Merge(patch)).await;
        refused("relabel by the status", by_status, &of_namespace)?;
    }
    merge(&namespaces, &namespace, json!({"metadata": {"labels": {"more": "yes"}}})).await?;
    let by = format!("held by {by}");
    for object in [&role, &object] {
        let (api, name) =
            (fixtures::api_of(&client, object).await?, object["metadata"]["name"].as_str().unwrap_or_default());
        refused("delete", api.delete(name, &DeleteParams::default()).await, &format!("{by}it can't be deleted"))?;
        let patch = json!({"metadata": {"labels": {"case": null}}});
        refused("strip the label", merge(&api, name, patch).await, &format!("{by}{LABELS}"))?;
    }
    let roles = fixtures::api_of(&client, &role).await?;
    refused("empty the rules", merge(&roles, &matter, json!({"rules": []})).await, CONTENT)?;
    // Released, and everything is free again.
    holds.delete(&matter, &DeleteParams::default()).await?;
    // Each by itself: the API server forgets the policies one after the other, and who is gone can't be deleted again.
    wait::until("the role to be free", wait::SOON, || async {
        Ok(roles.delete(&matter, &DeleteParams::default()).await.map(drop)?)
    })
    .await?;
    wait::until("the namespace to be free", wait::SOON, || async {
        Ok(namespaces.delete(&namespace, &DeleteParams::default()).await.map(drop)?)
    })
    .await
}

/// Who may hold in a namespace holds nothing that stands in none, nor what is elsewhere.
async fn nothing_else(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let (_, elsewhere) = env.namespace().await?;
    let case = format!("of-{namespace}");
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                      "metadata": {"name": case, "labels": {"case": case}}, "rules": []});
    for object in [&role, &map(&elsewhere, "same", &case)] {
        fixtures::apply(&client, object).await?;
    }
    let kinds = json!({"resources": [{"resource": "configmaps"}], "selector": {"matchLabels": {"case": case}}});
    held(&client, &hold(&namespace, "here", &kinds)).await?;
    let roles = json!({"resources": [{"group": "rbac.authorization.k8s.io", "resource": "clusterroles"}],
                       "selector": {"matchLabels": {"case": case}}});
    let typo = json!({"resources": [{"resource": "configmap"}]});
    let mut holds = None;
    for (name, change, wanted) in [("roles", roles, "only a ClusterLegalHold"), ("typo", typo, "write the plural")] {
        let hold = hold(&namespace, name, &change);
        fixtures::apply(&client, &hold).await?;
        let api = fixtures::api_of(&client, &hold).await?;
        let message = reason(&api, name, "Ready", "UnknownResource").await?;
        ensure!(message.contains(wanted), "{message}");
        let state = api.get(name).await?.data["status"]["state"].clone();
        ensure!(state == "Pending", "it is {state}");
        holds = Some(api);
    }
    fixtures::api_of(&client, &role).await?.delete(&case, &DeleteParams::default()).await?;
    api(&client, &elsewhere).await?.delete("same", &DeleteParams::default()).await?;
    // Its namespace is another one, and it is gone with its holds alone.
    if let Some(holds) = holds {
        for name in ["here", "roles", "typo"] {
            holds.delete(name, &DeleteParams::default()).await?;
        }
    }
    Ok(())
}
