//! No key material anywhere but in the Secrets.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{batch::v1::Job, core::v1::Secret, events::v1::Event};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use rampart::{
    api::{ApiKey, KeyRecord},
    keys::format::ApiKeyText,
};
use rampart_e2e::{fixtures, stories};
use serde_json::json;

use crate::{Env, Tests, keys::status};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("secrecy::keys_are_in_secrets_and_nowhere_else", keys_are_in_secrets_alone);
}

async fn keys_are_in_secrets_alone(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let shared = env.shared().await?;
    fixtures::apply(&client, &stories::api_key(&namespace)).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    let now = fixtures::this_second();
    let rotate = Patch::Merge(json!({"spec": {"rotation": {"requestedAt": now.to_string()}}}));
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    keys.patch("orders", &PatchParams::default(), &rotate).await?;
    status(&client, &namespace, "version 2", |it| it.current_version == Some(2) && it.next_version.is_none()).await?;

    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let mut material = vec![];
    for version in ["orders-v1", "orders-v2"] {
        let secret = secrets.get(version).await?;
        let key = secret.data.and_then(|data| data.get("key").cloned()).context("a key")?;
        material.push(String::from_utf8(key.0)?);
    }
    let records: Api<KeyRecord> = Api::namespaced(client.clone(), "rampart-keys");
    let events: Api<Event> = Api::all(client.clone());
    let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
    let all = ListParams::default();
    let places = [
        ("logs", shared.operator.log()?),
        ("metrics", shared.operator.admin("/metrics").await?.1),
        ("the audit log", shared.plane.audit().text()?),
        ("events", serde_json::to_string(&events.list(&all).await?.items)?),
        ("ApiKeys", serde_json::to_string(&keys.list(&all).await?.items)?),
        ("Jobs", serde_json::to_string(&jobs.list(&all).await?.items)?),
        ("KeyRecords", serde_json::to_string(&records.list(&all).await?.items)?),
        ("labels and annotations of Secrets", serde_json::to_string(&secrets.list_metadata(&all).await?.items)?),
    ];
    for key in material {
        let digest = ApiKeyText::parse(&key)?.digest();
        // The secret part alone must not be there either.
        let body = key.rsplit('_').next().context("a body")?;
        for (place, text) in &places {
            ensure!(!text.is_empty(), "{place} could not be read");
            ensure!(!text.contains(body), "key material in {place}");
            ensure!(*place == "KeyRecords" || !text.contains(&digest), "a digest in {place}");
        }
    }
    Ok(())
}
