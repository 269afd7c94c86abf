//! The webhook configurations that exist only while some policy needs them: `rampart-enforce` and
//! `rampart-fix`. They follow the one that is shipped: its address, its CA, and its end.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    ClusterResourceScope,
    api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client, Resource, ResourceExt as _, core::PartialObjectMeta};
use tokio::{sync::watch, time::timeout};

use super::{
    Backoff, Context, Crowded,
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
    hardening::Policies,
    runtime::{clock, readiness::Gate, tasks::Tasks},
};

const FIELD_MANAGER: &str = "rampart-webhooks";
/// Changes that come together are one pass.
const SETTLE: Duration = Duration::from_millis(100);

/// So long the first pass waits for the floor to say for whom it has no room.
const CROWDED_AT_THE_LATEST: Duration = Duration::from_secs(10);

/// The controller.
pub struct Webhooks {
    context: Context,
    index: PolicyIndex,
    pauses: Pauses,
    crowded: Crowded,
}

impl Webhooks {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(
        context: &Context,
        (index, pauses, synced): (PolicyIndex, Pauses, Gate),
        crowded: Crowded,
        leadership: Leadership,
        tasks: &mut Tasks,
    ) {
        let (news_tx, news) = watch::channel(0_u64);
        let following =
            news::follow("webhook configurations", changes(&context.client), news_tx, context.stopped.clone());
        tasks.spawn("webhooks-watch", following);
        let webhooks = Self { context: context.clone(), index, pauses, crowded };
        tasks.spawn("webhooks", webhooks.run(synced, leadership, news));
    }

    async fn run(self, synced: Gate, mut leadership: Leadership, mut news: watch::Receiver<u64>) -> anyhow::Result<()> {
        let stopped = self.context.stopped.clone();
        let mut crowded = self.crowded.clone();
        let ready = async {
            leadership.acquired().await;
            synced.was_opened().await;
            // Else those that it crowds out would be taken from the list, and put back in a moment.
            let _ = timeout(CROWDED_AT_THE_LATEST, crowded.wait_for(Option::is_some)).await;
        };
        tokio::select! {
            () = ready => {}
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
            crowded.borrow_and_update();
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
                Ok(()) = crowded.changed() => {}
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
        let enforcing = if paused {
            BTreeSet::new()
        } else {
            &known.needing_webhook() | &crowded_out(self.crowded.borrow().as_ref(), &known, clock::now())
        };
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

/// Namespaces for which there may be no admission policy for want of room: while nobody has said which, all that ask for
/// one in a cluster that asks for too many.
fn crowded_out(told: Option<&BTreeSet<String>>, known: &Policies, now: Timestamp) -> BTreeSet<String> {
    told.cloned().unwrap_or_else(|| {
        let demand = known.demand(now);
        if demand.is_crowded() { demand.namespaces.into_keys().collect() } else { BTreeSet::new() }
    })
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::hardening::{ALL_FLOORS, Covering, Origin, Requirement};

    /// Namespaces that each ask for something else.
    fn known(count: usize) -> Policies {
        let own = |number: usize| -> (String, Arc<[Covering]>) {
            let hardening = json!({"mode": "Enforce", "podSecurity": {"level": "baseline"},
                "rules": {"images": {"allow": [format!("registry-{number}.example/**")]}}});
            let requirement = Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap();
            let origin = Origin::SecurityPolicy("own".into());
            (format!("team-{number}"), Arc::from([Covering { origin, requirement, exceptions: Arc::default() }]))
        };
        Policies { own: Arc::new((0..count).map(own).collect()), ..Policies::default() }
    }

    #[test]
    fn until_it_is_known_who_is_crowded_out_all_are_that_may_be() {
        let crowded = |told: Option<&[&str]>, count: usize| {
            let told: Option<BTreeSet<String>> =
                told.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            crowded_out(told.as_ref(), &known(count), Timestamp::UNIX_EPOCH).len()
        };
        assert_eq!((crowded(None, ALL_FLOORS), crowded(None, ALL_FLOORS + 1)), (0, ALL_FLOORS + 1));
        assert_eq!((crowded(Some(&[]), ALL_FLOORS + 1), crowded(Some(&["team-7"]), ALL_FLOORS + 1)), (0, 1));
    }
}
