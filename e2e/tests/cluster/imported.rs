//! ApiKey with `spec.source.imported`: a token of another system, from a Secret of the user's own.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{
    ByteString,
    api::{apps::v1::Deployment, core::v1::Secret, events::v1::Event},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rampart::{
    api::{ApiKey, RecordState, VersionState},
    keys::format::digest_of,
};
use rampart_e2e::{fixtures, stories, wait};
use serde_json::{Value, json};

use crate::{
    Env, Tests,
    keys::{records, status, text},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("imported::a_token_is_taken_once_its_owner_agrees_and_no_verifier_is_told", token_is_taken);
    tests.add("imported::weak_and_malformed_tokens_are_refused_and_never_shown", bad_tokens_are_refused);
    tests.add("imported::a_successor_is_taken_with_overlap_and_restart", successor_is_taken);
    tests.add("imported::a_replaced_token_ends_and_is_not_taken_again", replaced_token_ends);
    tests.add("imported::a_revoked_token_put_back_is_refused", revoked_token_is_refused);
    tests.add("imported::the_same_token_again_is_no_new_version", same_token_is_no_version);
    tests.add("imported::a_token_is_one_apikeys_and_outlives_it", token_is_one_apikeys);
    tests.add("imported::the_successor_is_asked_for_when_it_is_due", successor_is_asked_for);
    tests.add("imported::a_token_ends_when_its_issuer_says_so", token_ends_as_told);
    tests.add("imported::bad_specs_are_refused", crate::imported_specs::are_refused);
}

pub(crate) const FIRST: &str = "ghp_R4nd0mQ7xV2bK9sLw3TzYc8HfJ5uN1mPgEaD";
pub(crate) const SECOND: &str = "ghp_Wq3ZtY7nB1vC5xK8mL2pR6sD9fG4hJ0aQeUi";
const THIRD: &str = "ghp_M8uI2oP6yT4rE0wQ1zX5cV9bN3mKlJhGfDsA";

/// The ApiKey `orders`, of the entry `token` of the Secret `github`.
pub(crate) fn key(namespace: &str) -> Value {
    json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey",
        "metadata": {"name": "orders", "namespace": namespace},
        "spec": {
            "owner": {"customerId": namespace}, "audiences": ["api.github.com"], "ttl": "2160h",
            "source": {"imported": {"secretRef": {"name": "github", "key": "token"}, "format": "ghp_[A-Za-z0-9]{36}"}},
            "rotation": {"policy": "Manual", "overlap": "1h"},
            "secret": {"name": "orders-key", "keys": {"current": "GITHUB_TOKEN"}},
        },
    })
}

/// The user writes a token into the Secret `github`.
pub(crate) async fn supply(secrets: &Api<Secret>, token: &str) -> Result<Secret> {
    let written = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "github", "labels": {"rampart.dev/import": "true"}},
        "data": {"token": ByteString(token.as_bytes().to_vec())},
    });
    Ok(secrets.patch("github", &PatchParams::apply("user").force(), &Patch::Apply(&written)).await?)
}

async fn merge(client: &Client, namespace: &str, patch: Value) -> Result<ApiKey> {
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
    Ok(keys.patch("orders", &PatchParams::default(), &Patch::Merge(patch)).await?)
}

/// Waits for a condition of an ApiKey: its status and its reason. The answer is its message.
async fn condition(
    client: &Client,
    (namespace, name): (&str, &str),
    kind: &str,
    wanted: (&str, &str),
) -> Result<String> {
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("{kind} of {namespace}/{name} to be {wanted:?}"), wait::SOON, || async {
        let live = serde_json::to_value(keys.get(name).await?)?;
        let it = stories::condition(&live, kind).context("the condition")?;
        ensure!(it["status"] == wanted.0 && it["reason"] == wanted.1, "{it}");
        Ok(it["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// With `FIRST` in use.
async fn taken(env: &Env) -> Result<(Client, String, Api<Secret>)> {
    let (client, namespace) = env.namespace().await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    supply(&secrets, FIRST).await?;
    fixtures::apply(&client, &key(&namespace)).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    Ok((client, namespace, secrets))
}

/// No copy of `FIRST` is left, and the user's own Secret is as it was.
async fn first_is_nobodys_but_the_users(secrets: &Api<Secret>) -> Result<()> {
    let consumer = secrets.get("orders-key").await?;
    ensure!(consumer.data.is_none_or(|data| data.is_empty()), "consumers still have something");
    ensure!(secrets.get_opt("orders-v1").await?.is_none(), "a copy is left");
    ensure!(text(&secrets.get("github").await?, "token").as_deref() == Some(FIRST), "the user's Secret was written");
    Ok(())
}

/// Waits until the operator has looked at the ApiKey as it is now.
async fn looked(client: &Client, namespace: &str, token: &str) -> Result<()> {
    let annotation = json!({"metadata": {"annotations": {"rampart.dev/reconcile-requested-at": token}}});
    merge(client, namespace, annotation).await?;
    status(client, namespace, "a look", |it| it.last_handled_reconcile_at.as_deref() == Some(token)).await.map(drop)
}

/// No token, and no digest of one, anywhere but in Secrets.
async fn tokens_are_secret(env: &Env, client: &Client, namespace: &str, tokens: &[&str]) -> Result<()> {
    let (keys, events): (Api<ApiKey>, Api<Event>) =
        (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let (all, shared) = (ListParams::default(), env.shared().await?);
    let places = [
        ("logs", shared.operator.log()?),
        ("metrics", shared.operator.admin("/metrics").await?.1),
        ("events", serde_json::to_string(&events.list(&all).await?.items)?),
        ("ApiKeys", serde_json::to_string(&keys.list(&all).await?.items)?),
        ("KeyRecords", serde_json::to_string(&records(client, namespace).await?)?),
        ("labels and annotations of Secrets", serde_json::to_string(&metadata_of(&secrets).await?)?),
    ];
    for token in tokens {
        let (body, digest) = (token.trim_start_matches("ghp_"), digest_of(token.as_bytes()));
        for (place, text) in &places {
            ensure!(!text.contains(body) && !text.contains(&digest), "a token, or its digest, in {place}");
        }
    }
    Ok(())
}

/// Of Rampart's own; what the user's client leaves on theirs is theirs.
async fn metadata_of(secrets: &Api<Secret>) -> Result<Vec<kube::api::ObjectMeta>> {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=rampart");
    Ok(secrets.list_metadata(&ours).await?.items.into_iter().map(|it| it.metadata).collect())
}

async fn token_is_taken(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let (secrets, at): (Api<Secret>, _) = (Api::namespaced(client.clone(), &namespace), (namespace.as_str(), "orders"));
    fixtures::apply(&client, &key(&namespace)).await?;
    let message = condition(&client, at, "Ready", ("False", "SecretNotFound")).await?;
    ensure!(message.contains("Secret github") && message.contains("entry token"), "{message}");
    condition(&client, at, "Stalled", ("True", "SecretNotFound")).await?;
    condition(&client, at, "Accepted", ("True", "Accepted")).await?;

    // There, and nobody agreed.
    let silent: Secret =
        serde_json::from_value(json!({"metadata": {"name": "github"}, "stringData": {"token": FIRST}}))?;
    secrets.create(&PostParams::default(), &silent).await?;
    looked(&client, &namespace, "1").await?;
    let message = condition(&client, at, "Ready", ("False", "SecretNotPermitted")).await?;
    ensure!(message.contains("rampart.dev/import: \"true\""), "{message}");
    ensure!(secrets.get_opt("orders-key").await?.is_none() && secrets.get_opt("orders-v1").await?.is_none());

    // Nobody tells the operator: it watches.
    let agreed = supply(&secrets, FIRST).await?;
    let issued = stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    let consumer = secrets.get("orders-key").await?;
    ensure!(text(&consumer, "GITHUB_TOKEN").as_deref() == Some(FIRST), "consumers have another token");
    ensure!(text(&consumer, "API_KEY_PREVIOUS").is_none());
    let version = secrets.get("orders-v1").await?;
    ensure!(version.immutable == Some(true) && text(&version, "key").as_deref() == Some(FIRST));
    ensure!(
        secrets.get("github").await?.resource_version() == agreed.resource_version(),
        "the user's Secret was written"
    );
    ensure!(records(&client, &namespace).await?.is_empty(), "verifiers were told of a token of another system");
    let said = issued.status.context("a status")?;
    ensure!(said.verifiers.is_none() && said.versions.len() == 1, "{said:?}");
    ensure!(text(&consumer, "API_KEY_ID").as_ref() == Some(&said.versions[0].id));
    let life = said.versions[0].expires_at.0.duration_since(said.versions[0].created_at.0);
    ensure!(life == jiff::SignedDuration::from_hours(2160), "it ends after {life}");
    tokens_are_secret(&env, &client, &namespace, &[FIRST]).await
}

async fn bad_tokens_are_refused(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let (secrets, at): (Api<Secret>, _) = (Api::namespaced(client.clone(), &namespace), (namespace.as_str(), "orders"));
    let mut weak = key(&namespace);
    weak["spec"]["source"]["imported"]["format"] = json!("ghp_.+");
    supply(&secrets, "ghp_correcthorse42").await?;
    fixtures::apply(&client, &weak).await?;
    let message = condition(&client, at, "Ready", ("False", "TokenWeak")).await?;
    ensure!(message.contains("128 bits") && !message.contains("correcthorse"), "{message}");
    ensure!(secrets.get_opt("orders-v1").await?.is_none(), "a weak token was taken");
    supply(&secrets, FIRST).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;

    // With one in use, nothing changes.
    for (bad, reason) in [("xyz_correcthorse42", "TokenMalformed"), ("ghp_correcthorse43\n", "TokenMalformed")] {
        supply(&secrets, bad).await?;
        condition(&client, at, "Rotating", ("False", reason)).await?;
        condition(&client, at, "Ready", ("True", "Ready")).await?;
    }
    secrets.delete("github", &DeleteParams::default()).await?;
    condition(&client, at, "Rotating", ("False", "SecretNotFound")).await?;
    condition(&client, at, "Ready", ("True", "Ready")).await?;
    let consumer = secrets.get("orders-key").await?;
    ensure!(text(&consumer, "GITHUB_TOKEN").as_deref() == Some(FIRST), "consumers lost their token");
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    wait::until("an event of what was refused", wait::SOON, || async {
        let all = events.list(&ListParams::default()).await?.items;
        let told = all.iter().filter(|event| event.reason.as_deref() == Some("TokenRefused")).count();
        Ok(ensure!(told > 0, "no event"))
    })
    .await?;
    let bodies = ["correcthorse42", "correcthorse43", FIRST];
    tokens_are_secret(&env, &client, &namespace, &bodies).await
}

async fn successor_is_taken(env: Env) -> Result<()> {
    let (client, namespace, secrets) = taken(&env).await?;
    let web = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace, "annotations": {"rampart.dev/restart-on-rotation": "true"}},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                         "spec": {"containers": [{"name": "main", "image": "registry.example.com/main:1"}]}},
        },
    });
    fixtures::apply(&client, &web).await?;
    merge(&client, &namespace, json!({"spec": {"restartTargets": [{"kind": "Deployment", "name": "web"}]}})).await?;
    let runs = |n: i64| {
        let (client, namespace) = (client.clone(), namespace.clone());
        async move {
            status(&client, &namespace, &format!("web to run version {n}"), |it| {
                it.consumers.iter().any(|web| web.ready && web.version == Some(n)) && it.next_version.is_none()
            })
            .await
        }
    };
    runs(1).await?;
    supply(&secrets, SECOND).await?;
    let after = runs(2).await?;
    let consumer = secrets.get("orders-key").await?;
    let has = |entry: &str| text(&consumer, entry);
    ensure!(has("GITHUB_TOKEN").as_deref() == Some(SECOND) && has("API_KEY_PREVIOUS").as_deref() == Some(FIRST));
    let [old, new] = after.versions.as_slice() else { anyhow::bail!("{after:?}") };
    ensure!((old.state, new.state) == (VersionState::Deprecated, VersionState::Current), "{after:?}");
    ensure!(old.replaced_by.as_ref() == Some(&new.id) && old.destroy_at.is_some(), "{old:?}");
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    ensure!(deployments.get("web").await?.metadata.generation == Some(3), "restarted otherwise than once a version");
    ensure!(text(&secrets.get("github").await?, "token").as_deref() == Some(SECOND));

    // The one before, while it still lives.
    supply(&secrets, FIRST).await?;
    let at = (namespace.as_str(), "orders");
    condition(&client, at, "Rotating", ("False", "TokenEnded")).await?;
    ensure!(secrets.get("orders-key").await?.data == consumer.data, "a replaced token came back");
    tokens_are_secret(&env, &client, &namespace, &[FIRST, SECOND]).await
}

async fn replaced_token_ends(env: Env) -> Result<()> {
    let (client, namespace, secrets) = taken(&env).await?;
    merge(&client, &namespace, json!({"spec": {"rotation": {"overlap": "1s", "historyLimit": 0}}})).await?;
    supply(&secrets, SECOND).await?;
    let after = status(&client, &namespace, "version 1 to be gone", |it| {
        it.current_version == Some(2) && it.versions.len() == 1 && it.next_version.is_none()
    })
    .await?;
    ensure!(secrets.get_opt("orders-v1").await?.is_none(), "a copy is left");
    let consumer = secrets.get("orders-key").await?;
    ensure!(
        text(&consumer, "API_KEY_PREVIOUS").is_none() && text(&consumer, "GITHUB_TOKEN").as_deref() == Some(SECOND)
    );
    let record = records(&client, &namespace).await?.remove(&1).context("a tombstone")?.spec;
    ensure!(record.state == RecordState::Destroyed && record.digest.is_none(), "{record:?}");

    // Status has forgotten it; the tombstone has not.
    supply(&secrets, FIRST).await?;
    let message = condition(&client, (&namespace, "orders"), "Rotating", ("False", "TokenEnded")).await?;
    ensure!(message.contains("have another one issued"), "{message}");
    let now = status(&client, &namespace, "version 2 to stay", |it| it.current_version == Some(2)).await?;
    ensure!(now.versions == after.versions, "{now:?}");
    Ok(())
}

async fn revoked_token_is_refused(env: Env) -> Result<()> {
    let (client, namespace, secrets) = taken(&env).await?;
    merge(&client, &namespace, json!({"spec": {"revocation": {"reason": "Leaked"}}})).await?;
    condition(&client, (&namespace, "orders"), "Stalled", ("True", "Revoked")).await?;
    first_is_nobodys_but_the_users(&secrets).await?;
    let record = records(&client, &namespace).await?.remove(&1).context("a tombstone")?.spec;
    ensure!(record.state == RecordState::Revoked && record.digest.is_none(), "{record:?}");

    // Made anew with the same token, and under another name.
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    keys.delete("orders", &DeleteParams::default()).await?;
    wait::until("it to be gone", wait::SOON, || async {
        ensure!(keys.get_opt("orders").await?.is_none() && secrets.get_opt("orders-key").await?.is_none());
        Ok(())
    })
    .await?;
    let mut other = key(&namespace);
    (other["metadata"]["name"], other["spec"]["secret"]["name"]) = (json!("other"), json!("other-key"));
    for (name, again) in [("orders", key(&namespace)), ("other", other)] {
        fixtures::apply(&client, &again).await?;
        let message = condition(&client, (&namespace, name), "Ready", ("False", "TokenRevoked")).await?;
        ensure!(message.contains("for ever"), "{message}");
        ensure!(secrets.get_opt(&format!("{name}-key")).await?.is_none(), "a revoked token was handed out");
    }
    keys.delete("other", &DeleteParams::default()).await?;
    supply(&secrets, SECOND).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    ensure!(text(&secrets.get("orders-key").await?, "GITHUB_TOKEN").as_deref() == Some(SECOND));
    // And put back under the one that lives.
    supply(&secrets, FIRST).await?;
    condition(&client, (&namespace, "orders"), "Rotating", ("False", "TokenRevoked")).await?;
    condition(&client, (&namespace, "orders"), "Ready", ("True", "Ready")).await.map(drop)
}

async fn same_token_is_no_version(env: Env) -> Result<()> {
    let (client, namespace, secrets) = taken(&env).await?;
    let revisions = || async {
        let all = secrets.list(&ListParams::default().labels("app.kubernetes.io/managed-by=rampart")).await?.items;
        anyhow::Ok(all.into_iter().map(|it| (it.name_any(), it.resource_version())).collect::<Vec<_>>())
    };
    let before = revisions().await?;
    // Deleted and made anew, with the same token and another entry.
    secrets.delete("github", &DeleteParams::default()).await?;
    condition(&client, (&namespace, "orders"), "Rotating", ("False", "SecretNotFound")).await?;
    supply(&secrets, FIRST).await?;
    let more = Patch::Merge(json!({"stringData": {"user": "octocat"}}));
    secrets.patch("github", &PatchParams::default(), &more).await?;
    status(&client, &namespace, "it to be well", |it| !it.conditions.iter().any(|it| it.type_ == "Rotating")).await?;
    looked(&client, &namespace, "1").await?;
    let after = status(&client, &namespace, "a status", |it| it.current_version == Some(1)).await?;
    ensure!(after.versions.len() == 1 && after.next_version.is_none(), "{after:?}");
    ensure!(revisions().await? == before, "a Secret was written");
    Ok(())
}

async fn token_is_one_apikeys(env: Env) -> Result<()> {
    let (client, namespace, secrets) = taken(&env).await?;
    let mut other = key(&namespace);
    (other["metadata"]["name"], other["spec"]["secret"]["name"]) = (json!("other"), json!("other-key"));
    fixtures::apply(&client, &other).await?;
    condition(&client, (&namespace, "other"), "Ready", ("False", "TokenTaken")).await?;
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    for name in ["orders", "other"] {
        keys.delete(name, &DeleteParams::default()).await?;
    }
    wait::until("its copies to go", wait::SOON, || async {
        for name in ["orders-key", "orders-v1"] {
            ensure!(secrets.get_opt(name).await?.is_none(), "{name} is left");
        }
        Ok(())
    })
    .await?;
    // It did not end: it is the user's, and may be imported again.
    ensure!(text(&secrets.get("github").await?, "token").as_deref() == Some(FIRST));
    fixtures::apply(&client, &key(&namespace)).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await.map(drop)
}

async fn successor_is_asked_for(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let mut due = key(&namespace);
    due["spec"]["rotation"] = json!({"interval": "3s", "overlap": "1s"});
    supply(&secrets, FIRST).await?;
    fixtures::apply(&client, &due).await?;
    let at = (namespace.as_str(), "orders");
    let message = condition(&client, at, "Rotating", ("False", "RotationDue")).await?;
    ensure!(message.contains("entry token of Secret github"), "{message}");
    condition(&client, at, "Ready", ("True", "Ready")).await?;
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    wait::until("the event", wait::SOON, || async {
        let all = events.list(&ListParams::default()).await?.items;
        let told = all.iter().filter(|event| event.reason.as_deref() == Some("RotationDue")).count();
        Ok(ensure!(told == 1, "{told} events"))
    })
    .await?;
    ensure!(secrets.get_opt("orders-v2").await?.is_none(), "Rampart made a token");
    // Without a schedule, a request asks.
    merge(&client, &namespace, json!({"spec": {"rotation": {"policy": "Manual"}}})).await?;
    status(&client, &namespace, "nothing to be due", |it| !it.conditions.iter().any(|it| it.type_ == "Rotating"))
        .await?;
    let now = fixtures::this_second();
    merge(&client, &namespace, json!({"spec": {"rotation": {"requestedAt": now.to_string()}}})).await?;
    condition(&client, at, "Rotating", ("False", "RotationDue")).await?;
    supply(&secrets, THIRD).await?;
    let after = status(&client, &namespace, "the successor", |it| {
        it.current_version == Some(2) && it.next_version.is_none() && it.next_rotation_time.is_none()
    })
    .await?;
    ensure!(after.last_handled_rotation.is_some_and(|at| at.0 == now), "the request is not answered");
    Ok(())
}

async fn token_ends_as_told(env: Env) -> Result<()> {
    let (client, namespace, secrets) = taken(&env).await?;
    let at = (namespace.as_str(), "orders");
    let say = |end: String| {
        let secrets = &secrets;
        async move {
            let patch = json!({"metadata": {"annotations": {"rampart.dev/token-expires-at": end}}});
            anyhow::Ok(secrets.patch("github", &PatchParams::default(), &Patch::Merge(patch)).await?)
        }
    };
    let now = fixtures::this_second();
    // No time, and one that is past: what is in use stays.
    for (bad, reason) in [("next year", "TokenExpiryMalformed"), ("2020-01-31T00:00:00Z", "TokenEnded")] {
        say(bad.into()).await?;
        let message = condition(&client, at, "Rotating", ("False", reason)).await?;
        ensure!(message.contains("rampart.dev/token-expires-at"), "{message}");
        condition(&client, at, "Ready", ("True", "Ready")).await?;
    }
    // In 20 days: a warning now.
    let end = now + jiff::SignedDuration::from_hours(20 * 24);
    say(end.to_string()).await?;
    status(&client, &namespace, "its end", |it| it.versions.iter().any(|version| version.expires_at.0 == end)).await?;
    condition(&client, at, "Expiring", ("True", "Within30Days")).await?;
    // It ends, and its copies with it; the user's own Secret is theirs. An end that is past when it is read first is refused.
    let end = fixtures::this_second() + jiff::SignedDuration::from_secs(10);
    say(end.to_string()).await?;
    condition(&client, at, "Ready", ("False", "TokenEnded")).await?;
    first_is_nobodys_but_the_users(&secrets).await?;
    // A successor, with the end that was meant for the one before: not taken, until it is put right.
    supply(&secrets, SECOND).await?;
    looked(&client, &namespace, "1").await?;
    condition(&client, at, "Ready", ("False", "TokenEnded")).await?;
    say((now + jiff::SignedDuration::from_hours(24 * 60)).to_string()).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    ensure!(text(&secrets.get("orders-key").await?, "GITHUB_TOKEN").as_deref() == Some(SECOND));
    Ok(())
}
