//! What ClusterSecurityPolicies allow ApiKeys, at admission and in reconcile.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rampart::api::{ApiKey, ClusterSecurityPolicy, KeyRecord, RecordState, Verb};
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests, admission::post, keys::status};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("key_caps::what_a_namespace_may_have_is_said_by_policies", said_by_policies);
    tests.add("key_caps::a_cap_that_comes_later_ends_no_key_and_issues_none", later_cap_ends_no_key);
    tests.add("key_caps::caps_that_can_not_be_are_refused", bad_caps_are_refused);
}

fn policy(name: &str, caps: &Value) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": name},
        "spec": {"namespaceSelector": {"matchLabels": {"caps": name}}, "apiKeys": caps},
    })
}

/// A namespace that the policy of its name covers, or will.
async fn namespace(env: &Env) -> Result<(Client, String)> {
    let (client, namespace) = env.namespace().await?;
    fixtures::namespace(&client, &namespace, json!({"caps": namespace})).await?;
    Ok((client, namespace))
}

fn key(namespace: &str, change: &Value) -> Value {
    let mut key = stories::api_key(namespace);
    for (field, value) in change.as_object().into_iter().flatten() {
        key["spec"][field] = value.clone();
    }
    key
}

/// Waits until a dry run of a key is answered with this code and text.
async fn answered(client: &Client, key: &Value, wanted: (u16, &str)) -> Result<()> {
    let namespace = key["metadata"]["namespace"].as_str().unwrap_or_default();
    let path = format!("/apis/rampart.dev/v1alpha1/namespaces/{namespace}/apikeys");
    wait::until(&format!("{wanted:?}"), wait::SOON, || async {
        let (code, body, _) = post(client, &path, key).await?;
        ensure!(code == wanted.0 && body.contains(wanted.1), "{code}: {body}");
        Ok(())
    })
    .await
}

async fn said_by_policies(env: Env) -> Result<()> {
    let (client, namespace) = namespace(&env).await?;
    let admin = key(&namespace, &json!({"role": "Admin"}));
    let other = key(&namespace, &json!({"owner": {"customerId": "acme-1"}}));
    answered(&client, &admin, (422, "spec.role: Admin needs a ClusterSecurityPolicy that allows it")).await?;
    answered(&client, &other, (422, "spec.owner.customerId: must be")).await?;

    let caps = json!({
        "maxTtl": "2000h", "maxRotationInterval": "720h",
        "roles": [{"name": "Admin"}, {"name": "Viewer"},
                  {"name": "architect", "verbs": ["Read"], "permissions": ["admin.config"], "rateMultiplier": 5}],
        "audiences": ["orders-*"], "customerIds": ["acme-*", namespace], "maxRate": {"perSecond": 50},
    });
    fixtures::apply(&client, &policy(&namespace, &caps)).await?;
    let within = json!({"ttl": "2000h", "rotation": {"interval": "720h", "overlap": "240h"}});
    let with = |change: Value| {
        let mut all = within.clone();
        all.as_object_mut().into_iter().for_each(|all| all.extend(change.as_object().cloned().unwrap_or_default()));
        key(&namespace, &all)
    };
    answered(&client, &with(json!({"role": "Admin"})), (201, "")).await?;
    for (change, code, said) in [
        (json!({"role": "architect", "owner": {"customerId": "acme-1"}}), 201, ""),
        (json!({"role": "Editor"}), 422, "spec.role: must be one of Admin, Viewer, architect"),
        (json!({"owner": {"customerId": "other"}}), 422, "spec.owner.customerId: must be one of acme-*"),
        (json!({"ttl": "2001h"}), 422, "spec.ttl: must be at most 2000h"),
        (json!({"ttl": null}), 422, "spec.ttl: it is 8760h unless given, and must be at most 2000h"),
        (json!({"rotation": {"policy": "Manual"}}), 422, "spec.rotation.policy: must be Automatic"),
        (
            json!({"rotation": {"interval": "721h", "overlap": "1h"}}),
            422,
            "spec.rotation.interval: must be at most 720h",
        ),
        (json!({"audiences": ["users-api"]}), 422, "spec.audiences[0]: must be orders-*"),
        (json!({"rateLimit": {"perSecond": 51}}), 422, "spec.rateLimit.perSecond: must be at most 50"),
    ] {
        let named = format!("(ClusterSecurityPolicy {namespace})");
        answered(&client, &with(change.clone()), (code, said)).await?;
        answered(&client, &with(change), (code, if code == 422 { &named } else { "" })).await?;
    }

    // Of several, the strictest holds: this one has no Admin.
    let mut second = policy(&namespace, &json!({"roles": [{"name": "Viewer"}], "maxTtl": "9000h"}));
    second["metadata"]["name"] = json!(format!("{namespace}-second"));
    fixtures::apply(&client, &second).await?;
    let named = format!("spec.role: must be one of Viewer (ClusterSecurityPolicy {namespace}-second)");
    answered(&client, &with(json!({"role": "Admin"})), (422, &named)).await?;

    let policies: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    wait::until("the policy to be ready", wait::SOON, || async {
        let live = serde_json::to_value(policies.get(&namespace).await?)?;
        for kind in ["Accepted", "Programmed", "Ready"] {
            let condition = stories::condition(&live, kind).with_context(|| format!("no {kind}"))?;
            ensure!(condition["status"] == "True", "{condition}");
        }
        Ok(())
    })
    .await?;
    for name in [&namespace, &format!("{namespace}-second")] {
        policies.delete(name, &DeleteParams::default()).await?;
    }
    answered(&client, &admin, (422, "spec.role: Admin needs a ClusterSecurityPolicy that allows it")).await
}

async fn later_cap_ends_no_key(env: Env) -> Result<()> {
    let (client, namespace) = namespace(&env).await?;
    fixtures::apply(&client, &policy(&namespace, &json!({"roles": [{"name": "Admin"}]}))).await?;
    let admin = key(&namespace, &json!({"role": "Admin"}));
    answered(&client, &admin, (201, "")).await?;
    fixtures::apply(&client, &admin).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    let record = record(&client, &namespace).await?;
    ensure!(record.spec.verbs.contains(&Verb::Admin), "{:?}", record.spec);

    // Nobody touches the ApiKey: the policy wakes it.
    fixtures::apply(&client, &policy(&namespace, &json!({"roles": [{"name": "Viewer"}]}))).await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    wait::until("the cap to be told", wait::SOON, || async {
        let live = serde_json::to_value(keys.get("orders").await?)?;
        let accepted = stories::condition(&live, "Accepted").unwrap_or_default();
        let said = format!("spec.role: must be one of Viewer (ClusterSecurityPolicy {namespace})");
        ensure!(accepted["status"] == "False" && accepted["reason"] == "NotPermitted", "{accepted}");
        ensure!(accepted["message"] == said.as_str(), "{accepted}");
        Ok(())
    })
    .await?;
    // Asking for a rotation is let through, and answered by nothing.
    let now = fixtures::this_second();
    let rotate = json!({"spec": {"rotation": {"requestedAt": now.to_string()}, "suspended": false}});
    let asked = keys.patch("orders", &PatchParams::default(), &Patch::Merge(&rotate)).await?;
    let held =
        status(&client, &namespace, "the request to be seen", |it| it.observed_generation == asked.metadata.generation)
            .await?;
    ensure!(held.current_version == Some(1) && held.next_version.is_none(), "{held:?}");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    ensure!(secrets.get_opt("orders-v1").await?.is_some() && secrets.get_opt("orders-v2").await?.is_none());
    let after = self::record(&client, &namespace).await?;
    ensure!(after.spec == record.spec && after.spec.state == RecordState::Active, "{:?}", after.spec);

    // The cap goes, and what was asked for is done.
    let policies: Api<ClusterSecurityPolicy> = Api::all(client.clone());
    fixtures::apply(&client, &policy(&namespace, &json!({"roles": [{"name": "Admin"}]}))).await?;
    status(&client, &namespace, "version 2", |it| it.current_version == Some(2) && it.next_version.is_none()).await?;
    policies.delete(&namespace, &DeleteParams::default()).await?;
    Ok(())
}

/// The record of the first version.
async fn record(client: &Client, namespace: &str) -> Result<KeyRecord> {
    let api: Api<KeyRecord> = Api::namespaced(client.clone(), "rampart-keys");
    let all = api.list(&ListParams::default()).await?.items;
    let first = |it: &KeyRecord| it.spec.api_key.namespace == namespace && it.spec.api_key.version == 1;
    all.into_iter().find(first).context("the record")
}

async fn bad_caps_are_refused(env: Env) -> Result<()> {
    let client = env.shared().await?.plane.client();
    let role = |role: Value| json!({"roles": [role]});
    for (caps, said) in [
        (Value::Null, "set hardening, network or apiKeys"),
        (json!({"maxTtl": "0s"}), "maxTtl must be longer than 0s"),
        (json!({"maxTtl": "1d"}), "spec.apiKeys.maxTtl"),
        (role(json!({"name": "Admin", "verbs": ["Read"]})), "are given by name alone"),
        (role(json!({"name": "Viewer", "rateMultiplier": 10})), "are given by name alone"),
        (role(json!({"name": "mine"})), "needs verbs or permissions"),
        (role(json!({"name": "mine", "verbs": ["Fly"]})), "spec.apiKeys.roles[0].verbs[0]"),
        (role(json!({"name": "mine", "verbs": ["Read"], "rateMultiplier": 0})), "spec.apiKeys.roles[0].rateMultiplier"),
        (role(json!({"name": "mine", "permissions": ["a.*.b"]})), "spec.apiKeys.roles[0].permissions[0]"),
        (role(json!({"name": "mine", "permissions": ["admin"]})), "give a permission another name"),
        (json!({"roles": []}), "spec.apiKeys.roles"),
        (json!({"audiences": ["a*b"]}), "spec.apiKeys.audiences[0]"),
        (json!({"customerIds": ["A"]}), "spec.apiKeys.customerIds[0]"),
        (json!({"maxRate": {"perSecond": 5, "perDay": 2}}), "a longer window must not allow less"),
        // The webhook's turn.
        (
            role(json!({"name": "mine", "verbs": ["Read"], "rateMultiplier": 1.2345})),
            "spec.apiKeys.roles[0].rateMultiplier: must be from 0.001 to 1000",
        ),
    ] {
        let (code, body, _) =
            post(&client, "/apis/rampart.dev/v1alpha1/clustersecuritypolicies", &policy("bad", &caps)).await?;
        ensure!(code == 422 && body.contains(said), "{caps}: {code}: {body}");
    }
    Ok(())
}
