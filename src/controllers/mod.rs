//! The controllers: a file a kind. Each observes, decides, applies, and reports status.
//!
//! [`run`] is what they share: the watch that one unreadable object can't stop, the deadline and the
//! panic guard of each reconcile, per-object backoff, and metrics.

mod api_key;
mod backoff;
pub(crate) mod cluster_facts;
mod cluster_security_policy;
mod counts;
mod floor;
pub mod kinds;
mod legal_hold;
mod network;
mod news;
mod policy_exception;
mod presence;
mod pruning;
mod residents;
mod retention_policy;
mod scan;
mod security_policy;
mod surroundings;
mod switched_off;
mod webhooks;
mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    future::Future,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, stream};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        Controller, Predicate as _, WatchStreamExt as _, controller, predicates,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use api_key::{ApiKeys, Selftest, Settings as ApiKeySettings};
pub use cluster_security_policy::ClusterSecurityPolicies;
pub use floor::{Floors, Leaning};
pub use legal_hold::LegalHolds;
pub use network::Networks;
pub use policy_exception::PolicyExceptions;
pub(crate) use policy_exception::in_vain;
pub use presence::Away;
pub use residents::Residents;
pub use retention_policy::{RetentionPolicies, Settings as RetentionSettings};
pub use scan::{Scanner, Telling};
pub use security_policy::SecurityPolicies;
pub use webhooks::Webhooks;

use self::{backoff::Backoff, work::Work};
use crate::{
    cluster::{
        Error,
        client::{PAGE, RESUMED_AFTER},
        events::Events,
    },
    runtime::{
        metrics::{ControllerLabel, KindLabel, Metrics, Standings},
        readiness::Readiness,
    },
};

/// What every controller needs.
#[derive(Clone)]
pub struct Context {
    /// Client of the operator itself.
    pub client: Client,
    /// Events.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// Readiness.
    pub readiness: Readiness,
    /// Cancelled when the process ends.
    pub stopped: CancellationToken,
    /// Reconciles of one kind that may be under way at once.
    pub concurrency: u16,
}

#[cfg(test)]
impl Context {
    /// Of a process that has nothing else than this client.
    fn of_client(client: Client) -> Self {
        Self {
            events: Events::new(client.clone(), "operator"),
            client,
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            stopped: CancellationToken::new(),
            concurrency: 1,
        }
    }
}

/// What statuses tell of hardening besides what the policy says.
#[derive(Clone)]
pub struct Hardened {
    /// Whether anything comes of what policies say of it.
    pub is_on: bool,
    /// What refuses pods.
    pub in_force: watch::Receiver<floor::InForce>,
    /// How pods fare.
    pub scan: watch::Receiver<scan::Known>,
    /// Whether the webhook is away.
    pub away: watch::Receiver<Option<Away>>,
}

impl Hardened {
    /// Where nothing comes of it, and nothing is known.
    #[must_use]
    pub fn off() -> Self {
        Self {
            is_on: false,
            in_force: watch::channel(floor::InForce::default()).1,
            scan: watch::channel(None).1,
            away: watch::channel(None).1,
        }
    }
}

/// When to look at an object again that did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// When something changes.
    Change,
    /// After this long.
    After(Duration),
}

/// What a reconcile has of something that others need, too, until it ends.
#[derive(Debug, Default)]
pub struct Turn {
    _shares: Vec<OwnedSemaphorePermit>,
}

/// A kind that is reconciled.
pub trait Reconciler: Send + Sync + 'static {
    /// The kind.
    type Root: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static;
    /// Name of the controller, for metrics and logs.
    const NAME: &'static str;

    /// Waits until it is the turn of `root`; how long it may take counts from then on. `Err` where that does not come now:
    /// when to ask again, and others are reconciled meanwhile.
    fn turn(&self, _root: &Self::Root) -> impl Future<Output = Result<Turn, Next>> + Send {
        std::future::ready(Ok(Turn::default()))
    }

    /// Brings the cluster to what `root` says.
    fn reconcile(&self, root: &Self::Root) -> impl Future<Output = Result<Next, Error>> + Send;

    /// Tells in status that it failed again and again, and why; whoever reconciles next tells otherwise. ApiKeys and
    /// RetentionPolicies tell by themselves what a visit failed at.
    fn failed(&self, _root: &Self::Root, _error: &Error) -> impl Future<Output = Result<(), Error>> + Send {
        std::future::ready(Ok(()))
    }
}

/// What wakes a controller besides its own kind.
pub struct Triggers<K: Resource<DynamicType = ()>> {
    /// One object.
    pub one: mpsc::UnboundedReceiver<ObjectRef<DeserializeGuard<K>>>,
    /// All objects, whenever the value changes.
    pub all: watch::Receiver<u64>,
}

/// The roots of a controller, as last seen.
#[derive(Clone)]
pub struct Roots<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<DeserializeGuard<K>>,
    changed: watch::Receiver<u64>,
}

impl<K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static> Roots<K> {
    /// UIDs of all of them, unreadable ones too.
    #[must_use]
    pub fn uids(&self) -> BTreeSet<String> {
        self.store.state().iter().filter_map(|root| root.uid()).collect()
    }

    /// The namespace of each of them, by its UID, unreadable ones too; `None` where they are the cluster's.
    #[must_use]
    pub fn places(&self) -> BTreeMap<String, Option<String>> {
        self.store.state().iter().filter_map(|root| Some((root.uid()?, root.namespace()))).collect()
    }

    /// Whether there is the very one of this namespace and name; those of the cluster are in every namespace.
    #[must_use]
    pub fn has(&self, (namespace, name): (&str, &str), uid: &str) -> bool {
        let root = self.store.get(&ObjectRef::new(name).within(namespace));
        root.is_some_and(|root| root.meta().uid.as_deref() == Some(uid))
    }

    /// Has those visited of which that is true, as far as they are known by now.
    pub fn wake(
        &self,
        one: &mpsc::UnboundedSender<ObjectRef<DeserializeGuard<K>>>,
        which: impl Fn(&DeserializeGuard<K>) -> bool,
    ) {
        for root in self.store.state_filter(which) {
            // Nobody hears it any more where the process stops.
            let _ = one.send(ObjectRef::from_obj(root.as_ref()));
        }
    }

    /// Whether there is one of this name.
    #[must_use]
    pub fn contains(&self, namespace: &str, name: &str) -> bool {
        self.store.get(&ObjectRef::new(name).within(namespace)).is_some()
    }

    /// Has metrics tell how each of them stands, whenever somebody asks.
    pub fn tell<S: 'static>(&self, standings: &Standings<S>, stand: fn(&K) -> Option<S>) {
        let roots = self.clone();
        standings.tell(move || roots.store.state().iter().filter_map(|root| stand(root.0.as_ref().ok()?)).collect());
    }

    /// Whether all have been listed once.
    #[must_use]
    pub fn are_listed(&self) -> bool {
        matches!(self.store.wait_until_ready().now_or_never(), Some(Ok(())))
    }

    /// Waits until all have been listed once. `false`: their watch ended before, as it does when the process stops.
    pub async fn were_listed(&self) -> bool {
        self.store.wait_until_ready().await.is_ok()
    }

    /// Changes its value whenever one was deleted, or all were listed anew.
    #[must_use]
    pub fn deletions(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

/// The watch of a controller's own kind, not running yet.
pub struct Root<K: Resource<DynamicType = ()> + Clone + 'static> {
    writer: reflector::store::Writer<DeserializeGuard<K>>,
    deleted: watch::Sender<u64>,
    told: Box<dyn Fn(&K) + Send + Sync>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Root<K> {
    /// Tells `told` of each object that is listed, made or changed, before it is queued for its visit.
    #[must_use]
    fn telling(self, told: impl Fn(&K) + Send + Sync + 'static) -> Self {
        Self { told: Box::new(told), ..self }
    }
}

/// Prepares the watch of a kind, so that others can look at its objects before it runs.
#[must_use]
pub fn root<K>() -> (Root<K>, Roots<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let (deleted, changed) = watch::channel(0);
    (Root { writer, deleted, told: Box::new(|_| {}) }, Roots { store, changed })
}

/// Wakes all objects of a controller whenever a value changes, until the process stops.
async fn wake_all<T>(
    mut changes: watch::Receiver<T>,
    all: &watch::Sender<u64>,
    stopped: &CancellationToken,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            told = changes.changed() => if told.is_err() { break },
            // Who could tell of changes may live as long as the process.
            () = stopped.cancelled() => return Ok(()),
        }
        all.send_modify(|count| *count += 1);
    }
    stopped.cancelled().await;
    Ok(())
}

/// Runs a controller until the process stops.
pub async fn run<R: Reconciler>(
    reconciler: Arc<R>,
    context: Context,
    root: Root<R::Root>,
    triggers: Triggers<R::Root>,
) -> anyhow::Result<()> {
    let label = ControllerLabel { controller: R::NAME };
    context.metrics.max_concurrent.get_or_create(&label).set(context.concurrency.into());
    // An increase is seen only of what was 0 before.
    drop(context.metrics.reconcile_panics.get_or_create(&label));
    drop(context.metrics.invalid_objects.get_or_create(&KindLabel { kind: R::NAME }));
    let gate = context.readiness.gate(R::NAME);
    let Root { writer, deleted, told } = root;
    let reader = writer.as_reader();
    let roots = (reader.clone(), deleted.clone());
    let api: Api<DeserializeGuard<R::Root>> = Api::all(context.client.clone());
    let stream = watcher(api, watcher::Config::default().page_size(PAGE).timeout(RESUMED_AFTER))
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .inspect(move |event| match event {
            Ok(watcher::Event::InitDone) => {
                gate.open();
                deleted.send_modify(|count| *count += 1);
            }
            Ok(watcher::Event::Delete(_)) => deleted.send_modify(|count| *count += 1),
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                if let Ok(object) = &object.0 {
                    told(object);
                }
            }
            _ => {}
        })
        .applied_objects()
        // Our own status writes wake nobody.
        .predicate_filter(
            predicates::generation.combine(predicates::annotations).combine(deletion),
            kube::runtime::PredicateConfig::default(),
        );
    let work = Arc::new(Work::new(reconciler, context.clone(), roots));
    let one = stream::unfold(triggers.one, |mut one| async move { Some((one.recv().await?, one)) });
    let all = stream::unfold(triggers.all, |mut all| async move { Some((all.changed().await.ok()?, all)) });
    let config = controller::Config::default().concurrency(context.concurrency);
    let (stopped, store) = (context.stopped.clone(), reader.clone());
    // Before all are listed nothing is reconciled, so nothing has to be finished.
    let stopped_before_listed = async move {
        stopped.cancelled().await;
        if matches!(store.wait_until_ready().now_or_never(), Some(Ok(()))) {
            std::future::pending::<()>().await;
        }
    };
    let running = Controller::for_stream(stream, reader)
        .with_config(config)
        .reconcile_on(one)
        .reconcile_all_on(all)
        .graceful_shutdown_on(context.stopped.clone().cancelled_owned())
        .run(
            |object, work| async move { work.reconcile(&object).await },
            |object, error, work| work.after_error(&object, error),
            work,
        )
        .for_each(|result| async {
            if let Err(controller::Error::QueueError(error)) = result {
                tracing::warn!(controller = R::NAME, %error, "the watch failed and is being restarted");
            }
        });
    tokio::select! {
        () = running => {}
        () = stopped_before_listed => {}
    }
    Ok(())
}

/// Changes when deletion begins.
#[allow(clippy::unnecessary_wraps, reason = "the form of a predicate")]
fn deletion<K: Resource>(object: &K) -> Option<u64> {
    Some(object.meta().deletion_timestamp.is_some().into())
}

fn key<K: Resource>(object: &K) -> (String, String) {
    (object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
}

/// The object that asked for a reconcile by annotation, echoed in status.
fn requested<K: Resource>(root: &K) -> Option<String> {
    root.annotations().get(crate::api::labels::RECONCILE_REQUESTED_AT).cloned()
}
