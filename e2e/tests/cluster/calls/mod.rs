//! Consumers call 200 times a second while keys are rotated, whatever befalls the operator: no call is refused.

mod caller;
mod ends;
mod faults;
mod witness;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use rampart::api::ApiKey;
use rampart_e2e::{
    ControlPlane, Envoy, Operator, Options, Verifier, fixtures,
    operator::{Ports, kubeconfig},
    proxy::Proxy,
    stories, wait,
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    Env, Tests,
    keys::{status, text},
};
use caller::{Caller, Front};
use witness::Witness;

pub(crate) fn tests(tests: &mut Tests) {
    // In turn of one place and the other, so that neither waits for long.
    faults::rough_tests(tests);
    tests.add("calls::ten_rotations_refuse_none", ten_rotations);
    faults::calm_tests(tests);
    ends::tests(tests);
    tests.add("calls::the_witness_sees_what_must_not_be", witness::sees_what_must_not_be);
}

/// Stories of two kinds are told beside each other.
#[derive(Clone, Copy)]
enum Place {
    /// Where operators are killed.
    Rough,
    /// Where they are not.
    Calm,
}

/// A control plane with two verifiers, and a webhook that lives on whatever befalls the controllers.
pub(crate) struct Stage {
    plane: ControlPlane,
    proxy: Proxy,
    /// Of the operator, through the proxy.
    kubeconfig: PathBuf,
    _webhook: Operator,
    front: Arc<Front>,
    seed: u64,
    stories: AtomicUsize,
    /// Stories are told one after another: each has an operator of its own.
    turn: Mutex<()>,
}

impl Stage {
    async fn of(env: &Env, place: Place) -> Result<&Self> {
        env.calls[place as usize].get_or_try_init(Self::start).await
    }

    async fn start() -> Result<Self> {
        let plane = ControlPlane::start(&Options::default()).await?;
        let ports = Ports::claim()?;
        fixtures::install(&plane.client(), &ports.webhook_url()).await?;
        let direct = plane.dir().join("webhook.kubeconfig");
        std::fs::rename(kubeconfig(&plane, plane.server()).await?, &direct)?;
        let webhook = Operator::start_part("webhook", plane.dir(), &direct, ports, &[])?;
        webhook.ready().await?;
        let proxy = Proxy::start(&plane).await?;
        let kubeconfig = kubeconfig(&plane, proxy.url()).await?;
        let mut verifiers = vec![];
        for name in ["verifier-a", "verifier-b"] {
            verifiers.push(Verifier::start(&plane, plane.server(), name).await?);
        }
        let envoy = match Envoy::binary() {
            Some(binary) => {
                let ports: Vec<u16> = verifiers.iter().map(Verifier::grpc_port).collect();
                Some(Envoy::start(&binary, plane.dir(), &ports).await?)
            }
            None => None,
        };
        let front = Arc::new(Front { verifiers, envoy });
        let (seed, stories, turn) = (rampart_e2e::seed(), AtomicUsize::new(0), Mutex::default());
        Ok(Self { plane, proxy, kubeconfig, _webhook: webhook, front, seed, stories, turn })
    }

    /// Starts the controllers, in the environment that is given.
    fn controllers(&self, ports: Ports, flags: &[&str], environment: &[(&str, &str)]) -> Result<Operator> {
        Operator::start_with("controller", self.plane.dir(), &self.kubeconfig, ports, flags, environment)
    }

    /// A namespace that is allowed so many calls.
    async fn namespace(&self) -> Result<(Client, String)> {
        let client = self.plane.client();
        let name = format!("calls-{}", self.stories.fetch_add(1, Ordering::Relaxed));
        fixtures::namespace(&client, &name, json!({"calls": name})).await?;
        fixtures::ready_for_pods(&client, &name).await?;
        let policy = json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": name},
            "spec": {"namespaceSelector": {"matchLabels": {"calls": name}}, "apiKeys": {"maxRate": rates()}},
        });
        fixtures::apply(&client, &policy).await?;
        Ok((client, name))
    }
}

/// Rates that no story comes near.
fn rates() -> Value {
    json!({"perSecond": 5000, "burst": 5000, "perMinute": 100_000, "perHour": 1_000_000, "perDay": 1_000_000})
}

/// The key of the stories.
fn key(namespace: &str) -> Value {
    let mut key = stories::api_key(namespace);
    key["spec"]["role"] = json!("Editor");
    key["spec"]["ttl"] = json!("720h");
    key["spec"]["rotation"] = json!({"policy": "Manual", "overlap": "240h"});
    key["spec"]["rateLimit"] = rates();
    key
}

/// A consumer that calls with a key, and a witness of everything that becomes of it.
struct Story<'a> {
    stage: &'a Stage,
    client: Client,
    namespace: String,
    caller: Caller,
    witness: Witness,
    rotations: i64,
    turn: MutexGuard<'a, ()>,
}

impl<'a> Story<'a> {
    /// Begins one with an undisturbed operator.
    async fn begin(env: &'a Env, place: Place) -> Result<(Self, Operator)> {
        let stage = Stage::of(env, place).await?;
        let turn = stage.turn.lock().await;
        stage.proxy.clear();
        let operator = stage.controllers(Ports::claim()?, &[], &[])?;
        let (client, namespace) = stage.namespace().await?;
        let witness = Witness::start(&client, &namespace).await?;
        // The webhook learns of the policy in a moment.
        wait::until("the key to be allowed", wait::SOON, || async {
            fixtures::apply(&client, &key(&namespace)).await.map(drop)
        })
        .await?;
        stories::ready::<ApiKey>(&client, &namespace, "orders").await.with_context(|| operator.log_tail())?;
        let caller = Caller::start(&stage.front, &client, &namespace, stage.seed).await?;
        Ok((Self { stage, client, namespace, caller, witness, rotations: 0, turn }, operator))
    }

    fn keys(&self) -> Api<ApiKey> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Asks for a rotation. The version that is to be current then.
    async fn request(&mut self) -> Result<i64> {
        self.request_for(Timestamp::UNIX_EPOCH).await
    }

    /// Asks for a rotation at a time, or after the last one.
    async fn request_for(&mut self, at: Timestamp) -> Result<i64> {
        self.rotations += 1;
        request(&self.client, &self.namespace, at).await
    }

    /// Waits until a version is current and nothing is under way any more.
    async fn done(&self, n: i64) -> Result<()> {
        let what = format!("version {n} to be current");
        status(&self.client, &self.namespace, &what, |it| it.current_version == Some(n) && it.next_version.is_none())
            .await
            .map(drop)
    }

    async fn rotate(&mut self) -> Result<()> {
        let n = self.request().await?;
        self.done(n).await
    }

    /// What consumers are to have.
    async fn handed_out(&self) -> Result<String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        text(&secrets.get("orders-key").await?, "API_KEY").context("a key")
    }

    /// Ends it, when the consumer has the newest key; an error if a call was refused, or a key was lost or made twice.
    /// The turn is given back.
    async fn finish(self, name: &str) -> Result<MutexGuard<'a, ()>> {
        self.caller.has(&self.handed_out().await?).await?;
        let versions = self.witness.check().await.context(self.namespace.clone())?;
        ensure!(versions == self.rotations + 1, "{versions} versions of {} rotations", self.rotations);
        let told = self.caller.finish().await.with_context(|| format!("seed {}", self.stage.seed))?;
        println!("{name}: {} rotations, {told}", self.rotations);
        Ok(self.turn)
    }
}

/// Asks for a rotation as `rampart keys rotate` does, after what was asked for before: times are whole seconds.
async fn request(client: &Client, namespace: &str, at: Timestamp) -> Result<i64> {
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), namespace);
    let status = keys.get("orders").await?.status.unwrap_or_default();
    let handled = status.last_handled_rotation.map(|at| at.0.checked_add(SignedDuration::from_secs(1)));
    let current = status.versions.iter().find(|version| Some(version.n) == status.current_version);
    let made = current.context("a current version")?.created_at.0;
    let now = fixtures::this_second();
    let at = at.max(now).max(made).max(handled.transpose()?.unwrap_or(made));
    let patch = Patch::Merge(json!({"spec": {"rotation": {"requestedAt": at.to_string()}}}));
    keys.patch("orders", &PatchParams::default(), &patch).await?;
    Ok(status.current_version.unwrap_or_default() + 1)
}

async fn ten_rotations(env: Env) -> Result<()> {
    let (mut story, operator) = Story::begin(&env, Place::Calm).await?;
    for _ in 0..10 {
        story.rotate().await?;
    }
    let way = if story.stage.front.envoy.is_some() { "through Envoy" } else { "asked directly" };
    operator.stop().await?;
    story.finish(way).await.map(drop)
}
