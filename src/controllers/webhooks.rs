//! The webhook configurations that exist only while some policy needs them: `rampart-enforce` and
//! `rampart-fix`. They follow the one that is shipped: its address, its CA, and its end.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::{
    ClusterResourceScope,
    api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client, Resource, ResourceExt as _, core::PartialObjectMeta};
use tokio::sync::watch;

use super::{
    Backoff, Context,
    news::{self, News},
};
use crate::{
    admission::{
        ENFORCE_CONFIGURATION, FIX_CONFIGURATION, WEBHOOK_CONFIGURATION, enforce_configuration, fix_configuration,
        pods_client,
    },
    api::labels::{MANAGED_BY, MANAGER, PART, WEBHOOK},
    cluster::{
        Result,
        apply::{Kept, Outcome, delete_seen_in, keep_in},
        error::{call, found},
        leader::Leadership,
        pause::{Pauses, holds},
        policy_index::PolicyIndex,
    },
    runtime::{clock, readiness::Gate, tasks::Tasks},
};

const FIELD_MANAGER: &str = "rampart-webhooks";
/// Changes that come together are one pass.
const SETTLE: Duration = Duration::from_millis(100);

/// The controller.
pub struct Webhooks {
    context: Context,
    index: PolicyIndex,
    pauses: Pauses,
}

impl Webhooks {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(
        context: &Context,
        (index, pauses, synced): (PolicyIndex, Pauses, Gate),
        leadership: Leadership,
        tasks: &mut Tasks,
    ) {
        let (news_tx, news) = watch::channel(0_u64);
        let following =
            news::follow("webhook configurations", changes(&context.client), news_tx, context.stopped.clone());
        tasks.spawn("webhooks-watch", following);
        let webhooks = Self { context: context.clone(), index, pauses };
        tasks.spawn("webhooks", webhooks.run(synced, leadership, news));
    }

    async fn run(self, synced: Gate, mut leadership: Leadership, mut news: watch::Receiver<u64>) -> anyhow::Result<()> {
        let stopped = self.context.stopped.clone();
        tokio::select! {
            () = async { leadership.acquired().await; synced.was_opened().await } => {}
            () = stopped.cancelled() => return Ok(()),
        }
        let (mut policies, mut labels) = (self.index.changes(), self.index.label_changes());
        let mut pauses = self.pauses.clone();
        let (mut backoff, key) = (Backoff::default(), (String::new(), FIELD_MANAGER.to_owned()));
        loop {
            // Before the pass: what changes while it runs asks for another.
            for receiver in [&mut policies, &mut labels, &mut news] {
                receiver.borrow_and_update();
            }
            pauses.borrow_and_update();
            let retry = match self.pass().await {
                Ok(()) => {
                    backoff = Backoff::default();
                    None
                }
                Err(error) => {
                    tracing::warn!(%error, "webhook configurations could not be kept");
                    Some(backoff.failed(&key))
                }
            };
            let until = pauses.borrow().as_ref().map(|pause| pause.until);
            let end = until.filter(|until| *until > clock::now()).map(news::until);
            let again = news::after([retry, end].into_iter().flatten().min());
            tokio::select! {
                _ = policies.changed() => {}
                _ = labels.changed() => {}
                _ = news.changed() => {}
                _ = pauses.changed() => {}
                () = again => {}
                () = stopped.cancelled() => return Ok(()),
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    async fn pass(&self) -> Result<()> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.context.client.clone());
        let doing = || format!("reading the ValidatingWebhookConfiguration {WEBHOOK_CONFIGURATION}");
        // Where it is gone, the garbage collector takes ours with it.
        let Some(shipped) = found(call(doing, api.get(WEBHOOK_CONFIGURATION)).await)? else { return Ok(()) };
        // The certificate's keeper tells the API server whom to trust, and that is news.
        let Some(client) = pods_client(&shipped) else { return Ok(()) };
        let known = self.index.known();
        let paused = holds(self.pauses.borrow().as_ref(), clock::now());
        let enforcing = if paused { BTreeSet::new() } else { known.needing_webhook() };
        let fixing = known.fixing();
        let (enforce, fix) = (enforce_configuration(client, &enforcing), fix_configuration(client, &fixing));
        if enforce.is_none() || fix.is_none() {
            tracing::warn!(
                "the address in the webhook configuration {WEBHOOK_CONFIGURATION} does not end in /validate"
            );
        }
        self.put(ENFORCE_CONFIGURATION, enforce.filter(|_| !enforcing.is_empty()), &shipped).await?;
        self.put(FIX_CONFIGURATION, fix.filter(|_| !fixing.is_empty()), &shipped).await
    }

    /// Makes a configuration what it should be, or be gone.
    async fn put<K>(&self, name: &str, wanted: Option<K>, shipped: &ValidatingWebhookConfiguration) -> Result<()>
    where
        K: Kept + Resource<Scope = ClusterResourceScope>,
    {
        let api: Api<K> = Api::all(self.context.client.clone());
        let kind = K::kind(&());
        let live = found(call(|| format!("reading the {kind} {name}"), api.get(name)).await)?;
        let Some(mut wanted) = wanted else {
            let ours = live.filter(|live| live.labels().get(PART).is_some_and(|part| part == WEBHOOK));
            if let Some(live) = ours {
                delete_seen_in(&api, &live).await?;
                tracing::info!(name, "webhook configuration removed: no policy needs it");
            }
            return Ok(());
        };
        wanted.meta_mut().owner_references = Some(vec![OwnerReference {
            api_version: "admissionregistration.k8s.io/v1".into(),
            kind: "ValidatingWebhookConfiguration".into(),
            name: WEBHOOK_CONFIGURATION.into(),
            uid: shipped.uid().unwrap_or_default(),
            ..OwnerReference::default()
        }]);
        let is_ours = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
        };
        let (_, outcome) = keep_in(&api, FIELD_MANAGER, is_ours, &wanted, live.as_ref()).await?;
        if outcome != Outcome::Unchanged {
            tracing::info!(name, ?outcome, "webhook configuration");
        }
        Ok(())
    }
}

/// Whatever changes webhook configurations of ours.
fn changes(client: &Client) -> Vec<News> {
    let validating: Api<PartialObjectMeta<ValidatingWebhookConfiguration>> = Api::all(client.clone());
    let mutating: Api<PartialObjectMeta<MutatingWebhookConfiguration>> = Api::all(client.clone());
    vec![
        news::of(validating.clone(), news::named(WEBHOOK_CONFIGURATION)),
        news::of(validating, news::named(ENFORCE_CONFIGURATION)),
        news::of(mutating, news::named(FIX_CONFIGURATION)),
    ]
}
