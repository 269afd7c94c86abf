//! The end of keys: when it is in force, and that it is for ever.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use rampart::api::{
    ApiKey,
    labels::{KEY_VERSION, OWNER_NAME},
};
use rampart_e2e::{fixtures, operator::Ports, stories, wait};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Place, Stage, caller::Front, key, request};
use crate::{
    Env, Tests,
    keys::{status, text},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("calls::a_revocation_is_in_force_at_once_and_for_ever", revocation);
}

/// How long a key may be admitted after it was revoked, beside the other tests of this run on two cores; a second is promised
/// where nothing else runs (`verifier::an_end_is_in_force_on_every_replica_within_a_second`).
const IN_FORCE: Duration = Duration::from_secs(10);

/// Asks every verifier about keys again and again.
pub(super) struct Asking {
    /// When each key was last admitted, by verifier.
    admitted: Arc<Mutex<Admitted>>,
    wanted: usize,
    _tasks: JoinSet<Result<()>>,
}

type Admitted = BTreeMap<(usize, String), Instant>;

impl Asking {
    fn about(front: &Arc<Front>, keys: &[String]) -> Self {
        let admitted = Arc::<Mutex<Admitted>>::default();
        let mut tasks = JoinSet::new();
        for (nth, _) in front.verifiers.iter().enumerate() {
            let (front, keys, admitted) = (front.clone(), keys.to_vec(), admitted.clone());
            tasks.spawn(async move {
                for key in keys.iter().cycle() {
                    let began = Instant::now();
                    if front.verifiers[nth].ask(key).await? == 200 {
                        let mut admitted = admitted.lock().unwrap_or_else(PoisonError::into_inner);
                        admitted.insert((nth, key.clone()), began);
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Ok(())
            });
        }
        Self { admitted, wanted: keys.len() * front.verifiers.len(), _tasks: tasks }
    }

    fn admitted(&self) -> Admitted {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn all_are_admitted(&self) -> Result<()> {
        let admitted = self.admitted().len();
        Ok(ensure!(admitted == self.wanted, "admitted are {admitted} of {}", self.wanted))
    }
}

/// Revokes a key while every verifier is asked about its versions; an error if one is admitted [`IN_FORCE`] after the write.
/// Verifiers are asked on.
pub(super) async fn revoke(stage: &Stage, client: &Client, namespace: &str, keys: &[String]) -> Result<Asking> {
    let asking = Asking::about(&stage.front, keys);
    wait::until("all to be admitted", wait::SOON, || async { asking.all_are_admitted() }).await?;
    let orders: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
    let revoked = Patch::Merge(json!({"spec": {"revocation": {"reason": "Leaked"}}}));
    orders.patch("orders", &PatchParams::default(), &revoked).await?;
    let written = Instant::now();
    status(client, namespace, "the revocation", |it| it.current_version.is_none()).await?;
    tokio::time::sleep(IN_FORCE.saturating_sub(written.elapsed())).await;
    let late = asking.admitted().into_values().map(|at| at.saturating_duration_since(written)).max();
    let late = late.context("nobody was asked")?;
    println!("{} versions are refused by every verifier {late:.0?} after the write of the revocation", keys.len());
    ensure!(late < IN_FORCE, "admitted {late:?} after it");
    Ok(asking)
}

/// The keys of all versions that there are.
pub(super) async fn version_keys(client: &Client, namespace: &str) -> Result<Vec<String>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let versions = secrets.list(&ListParams::default().labels(KEY_VERSION)).await?;
    Ok(versions.iter().filter_map(|secret| text(secret, "key")).collect())
}

/// Every Secret of the key, as a backup has them.
async fn backup(client: &Client, namespace: &str) -> Result<Vec<Secret>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let ours = ListParams::default().labels(&format!("{OWNER_NAME}=orders"));
    let mut all = secrets.list(&ours).await?.items;
    for secret in &mut all {
        secret.metadata = ObjectMeta {
            name: Some(secret.name_any()),
            labels: secret.metadata.labels.take(),
            annotations: secret.metadata.annotations.take(),
            ..ObjectMeta::default()
        };
    }
    ensure!(all.len() == 3, "two versions, and what consumers have: {}", all.len());
    Ok(all)
}

/// Puts them where they are not, and over what is there.
async fn put_back(client: &Client, namespace: &str, backup: &[Secret]) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for secret in backup {
        // The operator may delete it between the two.
        wait::until("a Secret to be put back", wait::SOON, || async {
            match secrets.create(&PostParams::default(), secret).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let data = Patch::Merge(json!({"data": secret.data}));
                    secrets.patch(&secret.name_any(), &PatchParams::default(), &data).await?;
                }
                made => drop(made?),
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn revocation(env: Env) -> Result<()> {
    let stage = Stage::of(&env, Place::Calm).await?;
    let _turn = stage.turn.lock().await;
    stage.proxy.clear();
    let operator = stage.controllers(Ports::claim()?, &[], &[])?;
    let (client, namespace) = stage.namespace().await?;
    wait::until("the key to be allowed", wait::SOON, || async {
        fixtures::apply(&client, &key(&namespace)).await.map(drop)
    })
    .await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await?;
    let n = request(&client, &namespace, jiff::Timestamp::UNIX_EPOCH).await?;
    status(&client, &namespace, "version 2", |it| it.current_version == Some(n) && it.next_version.is_none()).await?;
    let backup = backup(&client, &namespace).await?;
    let keys = version_keys(&client, &namespace).await?;
    ensure!(keys.len() == 2, "two keys");

    let asking = revoke(stage, &client, &namespace, &keys).await?;
    let orders: Api<ApiKey> = Api::namespaced(client.clone(), &namespace);
    let in_force = asking.admitted();

    // Put back by hand, consumers' Secret and all.
    put_back(&client, &namespace, &backup).await?;
    gone(&client, &namespace).await?;
    // With every label in another namespace, where there is an ApiKey of that name.
    let (_, other) = stage.namespace().await?;
    put_back(&client, &other, &backup).await?;
    wait::until("the key to be allowed", wait::SOON, || async {
        fixtures::apply(&client, &key(&other)).await.map(drop)
    })
    .await?;
    let there: Api<ApiKey> = Api::namespaced(client.clone(), &other);
    wait::until("the copies to be refused", wait::SOON, || async {
        let live = serde_json::to_value(there.get("orders").await?)?;
        let accepted = stories::condition(&live, "Accepted").context("a condition")?;
        Ok(ensure!(accepted["reason"] == "AdoptionRefused", "{accepted}"))
    })
    .await?;
    // From a backup of before the revocation, resource and all.
    orders.delete("orders", &DeleteParams::default()).await?;
    wait::until("the ApiKey to go", wait::SOON, || async { Ok(ensure!(orders.get_opt("orders").await?.is_none())) })
        .await?;
    put_back(&client, &namespace, &backup).await?;
    fixtures::apply(&client, &key(&namespace)).await?;
    stories::ready::<ApiKey>(&client, &namespace, "orders").await.with_context(|| operator.log_tail())?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let new = text(&secrets.get("orders-key").await?, "API_KEY").context("a key")?;
    ensure!(!keys.contains(&new), "a revoked key was handed out again");
    for verifier in &stage.front.verifiers {
        ensure!(verifier.ask(&new).await? == 200, "the new one is refused");
    }
    ensure!(asking.admitted() == in_force, "a revoked key was admitted again");
    operator.stop().await?;
    Ok(())
}

/// Waits until nothing of a revoked key is left.
async fn gone(client: &Client, namespace: &str) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    wait::until("what was put back to go", wait::SOON, || async {
        let consumer = secrets.get("orders-key").await?;
        ensure!(consumer.data.is_none_or(|data| data.is_empty()), "consumers have something again");
        for version in ["orders-v1", "orders-v2"] {
            ensure!(secrets.get_opt(version).await?.is_none(), "{version} is there");
        }
        Ok(())
    })
    .await
}
