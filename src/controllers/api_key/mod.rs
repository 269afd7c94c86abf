//! ApiKey: takes the steps that the rotation machine decides, one write at a time.

mod adoption;
mod caps;
mod clocks;
mod events;
mod import;
mod neighbours;
mod orphans;
mod refused;
mod revocations;
mod standing;
mod take;
mod usage;
mod visits;
mod waiting;
mod watches;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::Secret};
use kube::{
    Api, ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{reflector::ObjectRef, watcher},
};
use tokio::sync::{mpsc, watch};

use self::{
    adoption::{Adoption, LOST, lost},
    events::Herald,
    neighbours::neighbours,
    orphans::Orphans,
    standing::stand,
    take::Taken,
    visits::Visits,
    waiting::{Waiting, waits},
    watches::wake,
};
use super::{Context, Next, Reconciler, Roots, Triggers, requested};
use crate::{
    api::{
        ApiKey, ApiKeyStatus, KeyRecord,
        condition::{Type, suspended},
        labels::{MANAGED_BY, MANAGER, OWNER_KIND},
    },
    cluster::{
        Error, Result,
        error::{call, found},
        kept_secrets::KeptSecrets,
        key_jobs::fares,
        key_store::{KeyStore, OWNER},
        leader::Leadership,
        owned_names::{OwnedNames, owner_beside, owner_of_record},
        policy_index::PolicyIndex,
        status,
        verifiers::Verifiers,
    },
    keys::{
        CONFLICTED, JobSeen, Observed, Spec, Step, conditions, count, decide, is_issue, next_moment, restarts,
        write_refused,
    },
    runtime::{clock, readiness::Gate, tasks::Tasks},
};

/// Steps that one reconcile takes at the most; a rotation has about ten.
const STEPS: usize = 32;
/// A running Job is looked at again by then, should its event be lost.
const JOB_CHECK: Duration = Duration::from_mins(1);
/// Verifiers that lag are looked at again by then.
const VERIFIER_CHECK: Duration = Duration::from_secs(3);
/// Workloads that are being rolled out are looked at again by then.
const ROLLOUT_CHECK: Duration = Duration::from_secs(5);
/// What stands in the way is often somebody else's object, which nobody watches.
const REFUSAL_CHECK: Duration = Duration::from_mins(1);
/// Whether a clock is right again nobody tells; all keys may wait for it.
const CLOCK_CHECK: Duration = Duration::from_mins(5);

/// How a new version is tested.
#[derive(Debug, Clone)]
pub struct Selftest {
    /// Image of the Job.
    pub image: String,
    /// Where verifiers answer over HTTP, for the Job to ask with the new key.
    pub verifier: Option<String>,
}

/// How the controller is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace that Rampart is installed in.
    pub install_namespace: String,
    /// Namespace of KeyRecords.
    pub keys_namespace: String,
    /// How a new version is tested, where no hook does.
    pub selftest: Selftest,
    /// How often the use of a key is written into its status.
    pub usage_interval: Duration,
}

/// The controller of ApiKeys.
pub struct ApiKeys {
    context: Context,
    settings: Settings,
    adoption: Adoption,
    verifiers: Verifiers,
    record_names: OwnedNames,
    secret_names: OwnedNames,
    visits: Arc<Visits>,
    waiting: Waiting,
    /// What ApiKeys of each namespace may ask for.
    policies: PolicyIndex,
    /// All ApiKeys, as last seen.
    roots: Roots<ApiKey>,
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
        let Some(adoption) = Adoption::read(&context, &settings.install_namespace).await else { return Ok(()) };
        roots.tell(&context.metrics.keys.standings, stand);
        let (verifiers, following) = Verifiers::follow(&context.client, &settings.keys_namespace);
        let controller = Arc::new(Self {
            context,
            settings,
            adoption,
            verifiers,
            record_names: OwnedNames::default(),
            secret_names: OwnedNames::default(),
            visits: Arc::new(Visits::new(one.clone())),
            waiting: Waiting::default(),
            policies,
            roots,
        });
        let (root, revoked) = revocations::notice(root);
        let controlling = Arc::clone(&controller).control(root, triggers);
        let pruning = controller.prune(&leadership);
        let caps = caps::follow(&controller.policies, &controller.roots, &one, &stopped);
        let restored = all.clone();
        let (client, namespace) = (&controller.context.client, &controller.settings.install_namespace);
        let adoption = controller.adoption.follow(client, namespace, &restored);
        let watching =
            async { tokio::join!(following, adoption, controller.watch(&one, all), controller.end_at_once(revoked)) };
        tokio::select! {
            result = async { tokio::try_join!(controlling, pruning, caps) } => result.map(drop),
            ((), (), (), ()) = watching => Ok(()),
        }
    }

    /// Reconciles until the process stops. Who knows of no verifier waits for none: not before all have been listed.
    async fn control(self: Arc<Self>, root: super::Root<ApiKey>, triggers: Triggers<ApiKey>) -> anyhow::Result<()> {
        let context = self.context.clone();
        tokio::select! {
            ((), ()) = async { tokio::join!(self.verifiers.listed(), self.record_names.listed()) } => {}
            () = context.stopped.cancelled() => return Ok(()),
        }
        super::run(self, context, root, triggers).await
    }

    /// Removes what is left of ApiKeys that are gone, until the process stops.
    async fn prune(&self, leadership: &Leadership) -> anyhow::Result<()> {
        let orphans = Orphans {
            client: self.context.client.clone(),
            keys_namespace: self.settings.keys_namespace.clone(),
            roots: self.roots.clone(),
            record_names: self.record_names.clone(),
            secret_names: self.secret_names.clone(),
            news: watch::channel(0).0,
        };
        orphans
            .prune(&self.context, &self.settings.install_namespace, leadership.confirmed_prune(), &self.policies)
            .await
    }

    /// Wakes ApiKeys by what else than they themselves matters to them, for as long as the future runs.
    async fn watch(&self, one: &mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ApiKey>>>, all: watch::Sender<u64>) {
        let client = &self.context.client;
        let made = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER},{OWNER_KIND}={OWNER}"));
        let secrets = Api::<PartialObjectMeta<Secret>>::all(client.clone());
        let records = Api::<PartialObjectMeta<KeyRecord>>::namespaced(client.clone(), &self.settings.keys_namespace);
        let jobs = Api::<Job>::all(client.clone());
        let (hears, kept) = ((self.visits.clone(), all), self.settings.keys_namespace.as_str());
        tokio::join!(
            self.waiting.wake(self.verifiers.clone(), one.clone()),
            usage::follow(self.verifiers.clone(), &self.roots, one, self.settings.usage_interval),
            import::follow(client.clone(), &self.roots, one),
            wake((secrets, made.clone()), |event| self.secret_names.note(event, owner_beside), |_| true, &hears, kept),
            wake(
                (records, made.clone()),
                |event| self.record_names.note(event, owner_of_record),
                |_| true,
                &hears,
                kept
            ),
            // How its pods fare until it ends matters to nobody.
            wake((jobs, made), |_| {}, |job| fares(job) != JobSeen::Running, &hears, kept),
        );
    }

    fn store<'a>(&'a self, spec: &'a Spec, kept: &'a KeptSecrets) -> KeyStore<'a> {
        KeyStore {
            client: &self.context.client,
            keys_namespace: &self.settings.keys_namespace,
            adoption: self.adoption.key(),
            verifiers: &self.verifiers,
            record_names: &self.record_names,
            own: &self.visits.own,
            kept,
            spec,
        }
    }

    fn herald(&self) -> Herald<'_> {
        Herald { events: &self.context.events, metrics: &self.context.metrics.keys }
    }

    /// When to look again.
    fn next(&self, key: &ApiKey, spec: &Spec, seen: &Observed, step: &Step) -> Next {
        let mut pauses: Vec<Duration> = next_moment(spec, seen, clock::now()).map(pause_until).into_iter().collect();
        match step {
            Step::AwaitJob(_) => pauses.push(JOB_CHECK),
            Step::Stuck { .. } | Step::Refuse(_) => pauses.push(REFUSAL_CHECK),
            _ => {}
        }
        if seen.clock_suspect.is_some() {
            pauses.push(CLOCK_CHECK);
        }
        // Only a Secret whose owner agreed is watched.
        if matches!(seen.supplied, Some(Err(_))) {
            pauses.push(REFUSAL_CHECK);
        }
        let status = key.status.clone().unwrap_or_default();
        let lags = status.verifiers.as_ref().is_some_and(|counts| counts.up_to_date < counts.desired);
        self.waiting.note(key, status.verifiers.as_ref().is_some_and(waits));
        // Verifiers that lag drop out of the count without an event, too.
        if lags {
            pauses.push(VERIFIER_CHECK);
        }
        // Nobody watches workloads.
        let updated = status.conditions.iter().find(|it| it.type_ == Type::ConsumersUpdated.as_str());
        match updated.filter(|it| it.status == "False").map(|it| it.reason.as_str()) {
            Some("RollingOut") => pauses.push(ROLLOUT_CHECK),
            Some(_) => pauses.push(REFUSAL_CHECK),
            None => {}
        }
        pauses.into_iter().min().map_or(Next::Change, Next::After)
    }

    async fn report(
        &self,
        key: &mut ApiKey,
        spec: &Spec,
        seen: &Observed,
        mut status: ApiKeyStatus,
        (step, refused): (&Step, Option<&str>),
    ) -> Result<()> {
        let now = clock::now();
        status.observed_generation = key.metadata.generation;
        status.last_handled_reconcile_at = requested(key);
        count(spec, seen, &mut status, now);
        let old = key.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let mut told = conditions(key.metadata.generation, spec, seen, &status, step, now);
        if let Some(message) = refused {
            write_refused(&mut told, spec, &status, message, now);
        }
        status.conditions = told.carried_from(&old, now);
        key.metadata.resource_version = status::remember(&self.context.client, key, &status).await?;
        self.herald().ends_soon(key, &old, &status).await;
        self.herald().hindered(key, &old, &status).await;
        self.herald().conflict(key, &old, &status.conditions).await;
        self.herald().in_use(key, &status, seen).await;
        key.status = Some(status);
        Ok(())
    }
}

fn pause_until(moment: Timestamp) -> Duration {
    let wait = moment.duration_since(clock::now());
    // Late rather than early: times are whole seconds.
    Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(50)
}

impl Reconciler for ApiKeys {
    type Root = ApiKey;
    const NAME: &'static str = "apikey";

    async fn reconcile(&self, cached: &ApiKey) -> Result<Next> {
        let (namespace, name) = (cached.namespace().unwrap_or_default(), cached.name_any());
        let _visit = self.visits.begin((namespace.clone(), name.clone()));
        // The status is the machine's memory: an old copy of it from a cache would rotate twice.
        let api: Api<ApiKey> = Api::namespaced(self.context.client.clone(), &namespace);
        let Some(mut key) = found(call(|| format!("reading ApiKey {name}"), api.get(&name)).await)? else {
            return Ok(Next::Change);
        };
        // Who revokes a key that is not reconciled, or waits for a finalizer to go, means it all the same.
        let revoked = key.spec.revocation.is_some();
        if key.metadata.deletion_timestamp.is_some() && !revoked {
            return Ok(Next::Change);
        }
        if key.spec.suspend == Some(true) && !revoked {
            let mut status = key.status.clone().unwrap_or_default();
            status.observed_generation = key.metadata.generation;
            status.last_handled_reconcile_at = requested(&key);
            status.conditions = suspended(status.conditions, key.metadata.generation, clock::now());
            status::remember(&self.context.client, &key, &status).await?;
            return Ok(Next::Change);
        }
        if self.adoption.is_lost() && !revoked {
            return self.refuse(&key, None, (LOST, &lost(&self.settings.install_namespace))).await;
        }
        let caps = self.policies.key_caps(&self.context.client, &namespace).await?;
        // What lives lives on, and ends in time; nothing new is made of what is only tolerated.
        let (spec, beyond) = match Spec::tolerate(&key, &caps) {
            Ok(read) => read,
            Err(invalid) => return self.refuse(&key, None, ("Invalid", &invalid.to_string())).await,
        };
        let (mut known, kept) = (None, KeptSecrets::default());
        self.end_revoked(&mut key, (&spec, &kept)).await?;
        for _ in 0..STEPS {
            let store = self.store(&spec, &kept);
            let mut seen = match known.take() {
                Some(seen) => store.hear(seen),
                None => store.observe(key.status.clone().unwrap_or_default()).await?,
            };
            self.check_clock(&spec, &mut seen).await?;
            self.check_verifiers(&spec, &mut seen).await?;
            let spec = spec.as_of(&seen, clock::now());
            if restarts(&spec, &seen, clock::now()) {
                seen.neighbours = neighbours(&self.roots, &spec);
            }
            let step = decide(&spec, &seen, clock::now());
            if let Some(beyond) = &beyond
                && (is_issue(&step, &seen)
                    || matches!(step, Step::Rest { .. } | Step::AwaitJob(_) | Step::AwaitVerifiers { .. }))
            {
                let message = beyond.to_string();
                return self.refuse(&key, Some((&*spec, &seen, &step)), (refused::reason(beyond), &message)).await;
            }
            match self.take(&mut key, (&spec, &kept), &seen, &step).await {
                Ok(Taken::Made(made)) => known = Some(seen.with(*made)),
                Ok(Taken::Other) => {}
                Ok(Taken::Nothing(next)) => return Ok(next),
                Err(error @ Error::Foreign { .. }) => {
                    return self.refuse(&key, Some((&*spec, &seen, &step)), (CONFLICTED, &error.to_string())).await;
                }
                Err(error) => return Err(self.told(&mut key, (&spec, &seen), &step, error).await),
            }
        }
        Err(Error::Unexpected(format!("{name} did not come to rest in {STEPS} steps")))
    }
}
