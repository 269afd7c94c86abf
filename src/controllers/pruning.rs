//! Removing what was made for an owner that is gone, unless the prune brake holds.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, CustomResourceExt, Resource,
    api::{Patch, PatchParams},
};
use tokio::{sync::watch, time::Instant};

use super::{
    Context, Roots,
    news::{after, due},
};
use crate::{
    api::labels::CONFIRM_PRUNE,
    cluster::{
        Result,
        error::call,
        leader::LEASE,
        prune::{Confirmation, Verdict, crd_state, decide},
    },
    runtime::metrics::KindLabel,
};

/// Everything is looked at again by then: so is found what no event told of.
const LOOK_AT_ALL: Duration = Duration::from_hours(1);
/// What was still made for an owner while it was being deleted is heard of by then.
const SETTLED: Duration = Duration::from_secs(10);

/// How far a look for orphans goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// At what was heard of is enough.
    AtNews,
    /// At everything that there is.
    AtAll,
}

/// One kind whose orphans are pruned.
pub(super) trait Orphanage: Send + Sync + 'static {
    /// What the owners are.
    type Owner: Resource<DynamicType = ()> + CustomResourceExt + Clone + Debug + Send + Sync + 'static;
    /// What an orphan is.
    type Orphan: Send + Sync;
    /// The owners' kind.
    const OWNER: &'static str;

    /// The owners there are now.
    fn owners(&self) -> &Roots<Self::Owner>;
    /// Changes its value whenever there may be orphans.
    fn news(&self) -> watch::Receiver<u64> {
        self.owners().deletions()
    }
    /// The orphans there are now, in the order in which they go: while some are held, none after them goes.
    fn orphans(&self, look: Look) -> impl Future<Output = Result<Vec<Lost<Self::Orphan>>>> + Send;
    /// Metadata of an orphan.
    fn metadata<'a>(&self, orphan: &'a Self::Orphan) -> &'a ObjectMeta;
    /// Whether it still is one: its owner may have been made anew since.
    fn is_orphan(&self, orphan: &Self::Orphan) -> bool;
    /// Removes one.
    fn remove(&self, orphan: &Self::Orphan) -> impl Future<Output = Result<()>> + Send;
}

/// Orphans that the brake counts together.
pub(super) struct Lost<O> {
    /// What they are called by metrics, and by who confirms.
    pub(super) kind: &'static str,
    /// What is counted.
    pub(super) counted: Vec<O>,
    /// What goes along with them.
    pub(super) along: Vec<O>,
    /// How many objects there are in all of what is counted.
    pub(super) all: usize,
    /// What kept the rest of the orphans from being found: these go all the same.
    pub(super) rest: Result<()>,
}

impl<O> Lost<O> {
    /// Those with which nothing goes along.
    pub(super) const fn alone(kind: &'static str, counted: Vec<O>, all: usize) -> Self {
        Self { kind, counted, along: vec![], all, rest: Ok(()) }
    }
}

/// Prunes whenever there may be orphans or somebody confirmed, and each hour, until the process stops; not before all
/// owners are known.
pub(super) async fn follow<O: Orphanage>(
    orphanage: Arc<O>,
    context: Context,
    install_namespace: String,
    mut confirmed: watch::Receiver<Confirmation>,
) -> anyhow::Result<()> {
    if !orphanage.owners().were_listed().await {
        return Ok(());
    }
    let mut told = orphanage.news();
    let mut backoff = super::Backoff::default();
    let key = (String::new(), O::OWNER.to_owned());
    let (mut all, mut settled) = (Instant::now(), None);
    loop {
        let confirmation = confirmed.borrow_and_update().clone();
        told.borrow_and_update();
        let look = if all <= Instant::now() { Look::AtAll } else { Look::AtNews };
        let retry = match pass((&*orphanage, look), &context, &install_namespace, &confirmation).await {
            Ok(()) => {
                backoff = super::Backoff::default();
                all = if look == Look::AtAll { Instant::now() + LOOK_AT_ALL } else { all };
                None
            }
            Err(error) => {
                tracing::warn!(owner = O::OWNER, %error, "orphans could not be pruned");
                Some(backoff.failed(&key))
            }
        };
        // Whoever tells us may end first when the process stops.
        let ended = tokio::select! {
            changed = told.changed() => {
                settled = Some(Instant::now() + SETTLED);
                changed.is_err()
            }
            changed = confirmed.changed() => {
                // What is confirmed is how many there are, and not how many were heard of.
                all = Instant::now();
                changed.is_err()
            }
            () = after(retry) => false,
            () = due(settled) => {
                settled = None;
                false
            }
            () = due(Some(all).filter(|_| retry.is_none())) => false,
            () = context.stopped.cancelled() => true,
        };
        if ended {
            context.stopped.cancelled().await;
            return Ok(());
        }
    }
}

async fn pass<O: Orphanage>(
    (orphanage, look): (&O, Look),
    context: &Context,
    install_namespace: &str,
    confirmation: &Confirmation,
) -> Result<()> {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for lost in orphanage.orphans(look).await? {
        let metric = context.metrics.prune_held.get_or_create_owned(&KindLabel { kind: lost.kind });
        let rest = lost.rest;
        if lost.counted.is_empty() {
            metric.set(0);
            rest?;
            continue;
        }
        // For one part of a kind that is counted in parts: the log has not named another one that is as large.
        let confirmed = confirmation.of(lost.kind).filter(|_| !used.contains(lost.kind));
        let crd = crd_state(&context.client, O::Owner::crd_name()).await?;
        let created: Vec<Timestamp> = lost.counted.iter().map(|it| created(orphanage.metadata(it))).collect();
        if let Verdict::Hold(why) = decide(&created, lost.all, crd, confirmed) {
            metric.set(i64::try_from(created.len()).unwrap_or(i64::MAX));
            tracing::warn!(
                owner = O::OWNER,
                orphans = created.len(),
                why,
                "nothing is pruned: to confirm, annotate the Lease {install_namespace}/{LEASE} with {CONFIRM_PRUNE}={}={}",
                lost.kind,
                created.len()
            );
            return rest;
        }
        if confirmed == Some(created.len()) {
            used.insert(lost.kind);
        }
        remove(orphanage, lost.counted.iter()).await?;
        remove(orphanage, lost.along.iter()).await?;
        metric.set(0);
        if confirmed.is_some() {
            withdraw_confirmation(context, install_namespace).await?;
        }
        rest?;
    }
    Ok(())
}

async fn remove<'o, O: Orphanage>(orphanage: &O, orphans: impl Iterator<Item = &'o O::Orphan> + Send) -> Result<()> {
    let mut result = Ok(());
    for orphan in orphans.filter(|orphan| orphanage.is_orphan(orphan)) {
        let metadata = orphanage.metadata(orphan);
        match orphanage.remove(orphan).await {
            Ok(()) => {
                tracing::info!(
                    owner = O::OWNER,
                    namespace = metadata.namespace,
                    name = metadata.name,
                    "pruned an orphan"
                );
            }
            // One that can't be removed keeps no other.
            Err(error) => result = Err(error),
        }
    }
    result
}

pub(super) fn created(metadata: &ObjectMeta) -> Timestamp {
    // An object without a creation time is as old as can be: the careful reading.
    metadata.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0)
}

/// A confirmation is for once.
pub(super) async fn withdraw_confirmation(context: &Context, install_namespace: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(context.client.clone(), install_namespace);
    let patch = serde_json::json!({"metadata": {"annotations": {CONFIRM_PRUNE: null}}});
    let doing = || "withdrawing the confirmation on the Lease".into();
    call(doing, leases.patch(LEASE, &PatchParams::default(), &Patch::Merge(patch))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::{Client, client::Body};
    use parking_lot::Mutex;
    use serde_json::json;

    use super::*;
    use crate::{api::SecurityPolicy, controllers::root};

    /// A kind that is counted in two parts, of six each.
    struct Parts {
        roots: Roots<SecurityPolicy>,
        removed: Mutex<Vec<String>>,
    }

    impl Orphanage for Parts {
        type Owner = SecurityPolicy;
        type Orphan = ObjectMeta;
        const OWNER: &'static str = "SecurityPolicy";

        fn owners(&self) -> &Roots<SecurityPolicy> {
            &self.roots
        }

        async fn orphans(&self, _: Look) -> Result<Vec<Lost<ObjectMeta>>> {
            let six = |part: &str| -> Vec<ObjectMeta> {
                let names = (0..6).map(|nth| format!("{part}-{nth}"));
                names.map(|name| ObjectMeta { name: Some(name), ..ObjectMeta::default() }).collect()
            };
            Ok(["one", "other"].map(|part| Lost::alone(Self::OWNER, six(part), 6)).into())
        }

        fn metadata<'a>(&self, orphan: &'a ObjectMeta) -> &'a ObjectMeta {
            orphan
        }

        fn is_orphan(&self, _: &ObjectMeta) -> bool {
            true
        }

        async fn remove(&self, orphan: &ObjectMeta) -> Result<()> {
            self.removed.lock().extend(orphan.name.clone());
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_confirmation_is_for_one_part_of_a_kind() {
        let answer = |_: Request<Body>| async {
            let object = json!({"metadata": {"name": "x", "creationTimestamp": "2020-01-01T00:00:00Z"}});
            Ok::<_, Infallible>(Response::new(Body::from(object.to_string().into_bytes())))
        };
        let context = Context::of_client(Client::new(tower::service_fn(answer), "default"));
        let (_root, roots) = root();
        let parts = Parts { roots, removed: Mutex::default() };
        let confirmation = Confirmation::parse("SecurityPolicy=6");
        pass((&parts, Look::AtAll), &context, "rampart-system", &confirmation).await.unwrap();
        let removed = parts.removed.into_inner();
        assert!(removed.len() == 6 && removed.iter().all(|name| name.starts_with("one-")), "{removed:?}");
    }
}
