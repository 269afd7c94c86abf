//! ApiKey: takes the steps that the rotation machine decides, one write at a time.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Secret};
use kube::{
    Api, Resource, ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{WatchStreamExt as _, reflector::ObjectRef, watcher},
};
use tokio::sync::{mpsc, watch};

use super::{Context, Next, Reconciler, Roots, Triggers, api_key_caps, api_key_orphans::Orphans, pruning, requested};
use crate::{
    api::{
        ApiKey, ApiKeyStatus, KeyRecord, VersionState,
        condition::{Conditions, Type},
        labels::{MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME, OWNER_NAMESPACE},
    },
    cluster::{
        Error, Result,
        adoption_secret::adoption_key,
        error::{call, found},
        events::Reason,
        key_store::{KeyStore, OWNER},
        leader::Leadership,
        policy_index::PolicyIndex,
        status,
    },
    keys::{Observed, Spec, Step, adoption::AdoptionKey, decide, is_issue},
    runtime::{clock, metrics::ResultLabel, readiness::Gate, tasks::Tasks},
};

/// Steps that one reconcile takes at the most; a rotation has about ten.
const STEPS: usize = 32;
/// A running test is looked at again by then, should its event be lost.
const TEST_CHECK: Duration = Duration::from_mins(1);

/// What stands in the way is often somebody else's object, which nobody watches.
const REFUSAL_CHECK: Duration = Duration::from_mins(1);

/// How the controller is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace that Rampart is installed in.
    pub install_namespace: String,
    /// Namespace of KeyRecords.
    pub keys_namespace: String,
    /// Image of the test Job.
    pub selftest_image: String,
}

/// The controller of ApiKeys.
pub struct ApiKeys {
    context: Context,
    settings: Settings,
    adoption: AdoptionKey,
    /// What ApiKeys of each namespace may ask for.
    policies: PolicyIndex,
}

impl ApiKeys {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(
        context: Context,
        policies: (PolicyIndex, Gate),
        settings: Settings,
        leadership: Leadership,
        tasks: &mut Tasks,
    ) {
        let (root, roots) = super::root::<ApiKey>();
        let (one_tx, one) = mpsc::unbounded_channel();
        let (all_tx, all) = watch::channel(0);
        // Until it leads it watches nothing, and has nothing to be ready for.
        tasks.spawn(
            Self::NAME,
            Self::run(context, policies, settings, leadership, (root, roots), (one_tx, all_tx), Triggers { one, all }),
        );
    }

    async fn run(
        context: Context,
        (policies, listed): (PolicyIndex, Gate),
        settings: Settings,
        mut leadership: Leadership,
        (root, roots): (super::Root<ApiKey>, Roots<ApiKey>),
        (one, all): (mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ApiKey>>>, watch::Sender<u64>),
        triggers: Triggers<ApiKey>,
    ) -> anyhow::Result<()> {
        let stopped = context.stopped.clone();
        tokio::select! {
            () = async { leadership.acquired().await; listed.was_opened().await } => {}
            () = stopped.cancelled() => return Ok(()),
        }
        let adoption = loop {
            match adoption_key(&context.client, &settings.install_namespace).await {
                Ok(key) => break key,
                Err(error) => tracing::warn!(%error, "no ApiKey is reconciled before the adoption key is there"),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
                () = stopped.cancelled() => return Ok(()),
            }
        };
        let client = context.client.clone();
        let orphanage = Arc::new(Orphans {
            client: client.clone(),
            keys_namespace: settings.keys_namespace.clone(),
            roots: roots.clone(),
        });
        let pruning = async {
            roots.store.wait_until_ready().await?;
            let confirmed = leadership.confirmed_prune();
            let namespace = settings.install_namespace.clone();
            pruning::follow(orphanage, context.clone(), namespace, roots.deletions(), confirmed).await
        };
        let (index, woken) = (policies.clone(), one.clone());
        let caps = api_key_caps::follow(&index, &roots, &woken, &stopped);
        let made = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER},{OWNER_KIND}={OWNER}"));
        let secrets = Api::<PartialObjectMeta<Secret>>::all(client.clone());
        let records = Api::<PartialObjectMeta<KeyRecord>>::namespaced(client.clone(), &settings.keys_namespace);
        let watches = async {
            tokio::join!(
                wake(secrets, made.clone(), (one.clone(), all.clone())),
                wake(records, made.clone(), (one.clone(), all.clone())),
                wake(Api::<Job>::all(client), made, (one, all)),
            );
            Ok(())
        };
        let controller = Arc::new(Self { context: context.clone(), settings: settings.clone(), adoption, policies });
        let controlling = super::run(controller, context.clone(), root, triggers);
        tokio::select! {
            result = async { tokio::try_join!(controlling, pruning, caps) } => result.map(drop),
            result = watches => result,
        }
    }

    fn store<'a>(&'a self, spec: &'a Spec) -> KeyStore<'a> {
        KeyStore {
            client: &self.context.client,
            keys_namespace: &self.settings.keys_namespace,
            adoption: &self.adoption,
            spec,
        }
    }

    /// Takes one step; `None` when there is nothing more to do now.
    async fn take(&self, key: &mut ApiKey, spec: &Spec, seen: &Observed, step: &Step) -> Result<Option<Next>> {
        let store = self.store(spec);
        match step {
            Step::Remember(status) => {
                let before = seen.status.clone();
                self.report(key, (**status).clone(), step).await?;
                self.announce(key, &before, status).await;
            }
            Step::CreateSecret { n } => store.create_secret(*n).await?,
            Step::CreateRecord { n, expires_at } => {
                let secret = seen.secrets.get(n).ok_or_else(|| Error::Unexpected("a record without a key".into()))?;
                store.create_record(*n, secret, *expires_at).await?;
            }
            Step::StartTest { n, attempt } => {
                let id = seen.secrets.get(n).map(|secret| secret.id.clone()).unwrap_or_default();
                store.start_test(*n, &id, *attempt, &self.settings.selftest_image).await?;
            }
            Step::WriteConsumer { current, previous } => store.write_consumer(*current, *previous).await?,
            Step::UpdateRecord { id, state, replaced_by, destroy_at } => {
                store.update_record(id, *state, replaced_by.clone(), *destroy_at).await?;
            }
            Step::DeleteSecret { n } => store.delete_secret(*n).await?,
            Step::AwaitTest { .. } => {
                self.report(key, seen.status.clone(), step).await?;
                return Ok(Some(Next::After(TEST_CHECK)));
            }
            Step::Rest { until } => {
                self.report(key, seen.status.clone(), step).await?;
                return Ok(Some(until.map_or(Next::Change, after)));
            }
            Step::Refuse(_) => {
                self.report(key, seen.status.clone(), step).await?;
                return Ok(Some(Next::After(REFUSAL_CHECK)));
            }
        }
        Ok(None)
    }

    async fn report(&self, key: &mut ApiKey, mut status: ApiKeyStatus, step: &Step) -> Result<()> {
        status.observed_generation = key.metadata.generation;
        status.last_handled_reconcile_at = requested(key);
        let old = key.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        status.conditions = conditions(key.metadata.generation, &status, step).carried_from(&old, clock::now());
        key.metadata.resource_version = status::remember(&self.context.client, key, &status).await?;
        key.status = Some(status);
        Ok(())
    }

    /// Tells what a status brought: never what a key is, only its id.
    async fn announce(&self, key: &ApiKey, before: &ApiKeyStatus, after: &ApiKeyStatus) {
        let find = |status: &ApiKeyStatus, n| {
            status.versions.iter().find(|version| version.n == n).map(|version| version.state)
        };
        let events = &self.context.events;
        for version in &after.versions {
            match (find(before, version.n), version.state) {
                (None, VersionState::Current) => {
                    let first = before.current_version.is_none();
                    let reason = Reason::normal(if first { "KeyIssued" } else { "RotationCompleted" });
                    self.context.metrics.rotations.get_or_create(&ResultLabel { result: "success" }).inc();
                    tracing::info!(
                        namespace = key.namespace(),
                        name = key.name_any(),
                        id = version.id,
                        reason.name,
                        "key"
                    );
                    events
                        .publish(key, reason, &format!("version {} with id {} is current", version.n, version.id))
                        .await;
                }
                (Some(VersionState::Current), VersionState::Deprecated) => {
                    let end = version.destroy_at.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
                    let note = format!("version {} with id {} stays valid until {end}", version.n, version.id);
                    events.publish(key, Reason::normal("KeyDeprecated"), &note).await;
                }
                (Some(old), VersionState::Destroyed) if old != VersionState::Destroyed => {
                    let note = format!("version {} with id {} is gone", version.n, version.id);
                    events.publish(key, Reason::normal("KeyDestroyed"), &note).await;
                }
                _ => {}
            }
        }
        if after.failed_attempts > before.failed_attempts {
            self.context.metrics.rotations.get_or_create(&ResultLabel { result: "test_failed" }).inc();
            let note = "the test of the new version failed; the current one stays";
            events.publish(key, Reason::warning("RotationFailed"), note).await;
        }
    }

    async fn refuse(&self, key: &ApiKey, reason: &str, message: &str) -> Result<Next> {
        let mut conditions = Conditions::of_generation(key.metadata.generation);
        refused(&mut conditions, reason, message);
        let mut status = key.status.clone().unwrap_or_default();
        status.observed_generation = key.metadata.generation;
        status.last_handled_reconcile_at = requested(key);
        status.conditions = conditions.carried_from(&status.conditions, clock::now());
        status::report(&self.context.client, key, &status).await?;
        Ok(Next::After(REFUSAL_CHECK))
    }
}

fn after(moment: Timestamp) -> Next {
    let wait = moment.duration_since(clock::now());
    // One second late rather than early: times are whole seconds.
    Next::After(Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(50))
}

fn refused(conditions: &mut Conditions, reason: &str, message: &str) {
    conditions.set(Type::Accepted, false, reason, message);
    conditions.stall(reason, message);
}

fn conditions(generation: Option<i64>, status: &ApiKeyStatus, step: &Step) -> Conditions {
    let mut conditions = Conditions::of_generation(generation);
    if let Step::Refuse(refusal) = step {
        refused(&mut conditions, refusal.reason(), &refusal.to_string());
        return conditions;
    }
    conditions.set(Type::Accepted, true, "Accepted", "");
    let has_current = status.versions.iter().any(|version| version.state == VersionState::Current);
    let rotating = match (status.next_version, &status.retry_at, step) {
        (None, ..) => None,
        (Some(n), Some(at), _) => {
            Some(("TestFailed", format!("the test of version {n} failed, and is repeated at {}", at.0)))
        }
        (Some(n), None, Step::AwaitTest { .. }) => Some(("Testing", format!("version {n} is being tested"))),
        (Some(n), None, _) => Some(("Issuing", format!("version {n} is being made"))),
    };
    if let Some((reason, message)) = &rotating {
        conditions.set(Type::Rotating, true, reason, message.as_str());
        conditions.set(Type::Reconciling, true, reason, message.as_str());
    }
    match (&rotating, has_current) {
        (_, true) => {
            conditions.set(Type::Programmed, true, "Programmed", "");
            conditions.set(Type::Ready, true, "Ready", "");
        }
        (Some((reason, message)), false) => {
            conditions.set(Type::Programmed, false, reason, message.as_str());
            conditions.set(Type::Ready, false, reason, message.as_str());
        }
        (None, false) => {
            let message = "the last version has ended, and rotation.policy does not issue another";
            conditions.stall("Expired", message);
        }
    }
    conditions
}

impl Reconciler for ApiKeys {
    type Root = ApiKey;
    const NAME: &'static str = "apikey";

    async fn reconcile(&self, cached: &ApiKey) -> Result<Next> {
        let (namespace, name) = (cached.namespace().unwrap_or_default(), cached.name_any());
        // The status is the machine's memory: an old copy of it from a cache would rotate twice.
        let api: Api<ApiKey> = Api::namespaced(self.context.client.clone(), &namespace);
        let Some(mut key) = found(call(|| format!("reading ApiKey {name}"), api.get(&name)).await)? else {
            return Ok(Next::Change);
        };
        if key.metadata.deletion_timestamp.is_some() || key.spec.suspend == Some(true) {
            return Ok(Next::Change);
        }
        let caps = self.policies.key_caps(&self.context.client, &namespace).await?;
        // What lives lives on, and ends in time; nothing new is made beyond the caps.
        let (spec, beyond) = match Spec::tolerate(&key, &caps) {
            Ok(read) => read,
            Err(invalid) => return self.refuse(&key, "Invalid", &invalid.to_string()).await,
        };
        for _ in 0..STEPS {
            let seen = self.store(&spec).observe(key.status.clone().unwrap_or_default()).await?;
            let step = decide(&spec, &seen, clock::now());
            if let Some(beyond) = &beyond
                && (is_issue(&step, &seen) || matches!(step, Step::Rest { .. } | Step::AwaitTest { .. }))
            {
                return self.refuse(&key, "NotPermitted", &beyond.to_string()).await;
            }
            match self.take(&mut key, &spec, &seen, &step).await {
                Ok(None) => {}
                Ok(Some(next)) => return Ok(next),
                Err(error @ Error::Foreign { .. }) => return self.refuse(&key, "Conflicted", &error.to_string()).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unexpected(format!("{name} did not come to rest in {STEPS} steps")))
    }
}

/// Wakes the ApiKey that an object was made for, whenever the object changes.
async fn wake<K>(
    api: Api<K>,
    config: watcher::Config,
    (one, all): (mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ApiKey>>>, watch::Sender<u64>),
) where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let stream = watcher(api, config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => {
                let labels = object.labels();
                let namespace = labels.get(OWNER_NAMESPACE).cloned().or_else(|| object.namespace()).unwrap_or_default();
                if let Some(name) = labels.get(OWNER_NAME) {
                    let _ = one.send(ObjectRef::new(name).within(&namespace));
                }
            }
            // What was deleted while nobody watched brought no event of its own.
            Ok(watcher::Event::InitDone) => all.send_modify(|count| *count += 1),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a watch failed and is being restarted"),
        }
    }
}
