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
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Backoff, Context, Leaning,
    floor::webhook_alone,
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

/// How long after a pass the next one waits, at most, while namespaces go on coming and changing. Meanwhile the webhook is
/// asked about new ones all the same, by the configuration that is shipped; but no pod of theirs waits for its word, nor is
/// completed.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// So long the first pass waits for the floor to say who leans on the webhook.
const LEANING_AT_THE_LATEST: Duration = Duration::from_secs(10);

/// The controller.
pub struct Webhooks {
    context: Context,
    index: PolicyIndex,
    pauses: Pauses,
    leaning: Leaning,
    /// So many requirements of SecurityPolicies there is room for.
    places: usize,
}

impl Webhooks {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(
        context: &Context,
        (index, pauses, synced): (PolicyIndex, Pauses, Gate),
        (leaning, places): (Leaning, usize),
        leadership: Leadership,
        tasks: &mut Tasks,
    ) {
        let [(ours_tx, ours), (shipped_tx, shipped)] = [watch::channel(0_u64), watch::channel(0_u64)];
        let (client, stopped) = (&context.client, || context.stopped.clone());
        let following = news::follow("our webhook configurations", ours_changes(client), ours_tx, stopped());
        tasks.spawn("webhooks-watch", following);
        let following = news::follow("the webhook configuration", vec![shipped_changes(client)], shipped_tx, stopped());
        tasks.spawn("shipped-webhook-watch", following);
        let webhooks = Self { context: context.clone(), index, pauses, leaning, places };
        tasks.spawn("webhooks", webhooks.run(synced, leadership, [ours, shipped]));
    }

    async fn run(
        self,
        synced: Gate,
        mut leadership: Leadership,
        [ours, shipped]: [watch::Receiver<u64>; 2],
    ) -> anyhow::Result<()> {
        let stopped = self.context.stopped.clone();
        let mut leaning = self.leaning.clone();
        let ready = async {
            leadership.acquired().await;
            synced.was_opened().await;
            // Else more would be put on the list where there may not be room for all, and taken from it in a moment.
            let _ = timeout(LEANING_AT_THE_LATEST, leaning.wait_for(Option::is_some)).await;
        };
        tokio::select! {
            () = ready => {}
            () = stopped.cancelled() => return Ok(()),
        }
        let (policies, labels, pauses) = (self.index.changes(), self.index.label_changes(), self.pauses.clone());
        let mut asking = Asking { policies, labels, ours, leaning, shipped, pauses };
        let (mut backoff, key) = (Backoff::default(), (String::new(), FIELD_MANAGER.to_owned()));
        loop {
            // Before the pass: what changes while it runs asks for another.
            asking.mark_unchanged();
            let (retry, names) = match self.pass().await {
                Ok(names) => {
                    backoff = Backoff::default();
                    (None, names)
                }
                Err(error) => {
                    tracing::warn!(%error, "webhook configurations could not be kept");
                    (Some(backoff.failed(&key)), 0)
                }
            };
            let until = self.pauses.borrow().as_ref().map(|pause| pause.until);
            let end = until.filter(|until| *until > clock::now()).map(news::until);
            let again = [retry, end].into_iter().flatten().min();
            tokio::select! {
                () = asking.next(again, Instant::now() + rest(names)) => {}
                () = stopped.cancelled() => return Ok(()),
            }
        }
    }

    /// Answers how many namespaces are named.
    async fn pass(&self) -> Result<usize> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.context.client.clone());
        let doing = || format!("reading the ValidatingWebhookConfiguration {WEBHOOK_CONFIGURATION}");
        // Where it is gone, the garbage collector takes ours with it.
        let Some(shipped) = found(call(doing, api.get(WEBHOOK_CONFIGURATION)).await)? else { return Ok(0) };
        // The certificate's keeper tells the API server whom to trust, and that is news.
        let Some(client) = pods_client(&shipped) else { return Ok(0) };
        let known = self.index.known();
        let paused = holds(self.pauses.borrow().as_ref(), clock::now());
        let enforcing = if paused {
            BTreeSet::new()
        } else {
            let told = self.leaning.borrow().clone();
            let leaning = match told {
                Some(told) => told,
                // As another controller left it.
                None => &webhook_alone(&self.context.client).await? | &crowd((&known, self.places), clock::now()),
            };
            waiting(&leaning, &known)
        };
        let fixing = known.fixing();
        let (enforce, fix) = (enforce_configuration(client, &enforcing), fix_configuration(client, &fixing));
        if enforce.is_none() || fix.is_none() {
            tracing::warn!(
                "the address in the webhook configuration {WEBHOOK_CONFIGURATION} does not end in /validate"
            );
        }
        self.put(ENFORCE_CONFIGURATION, enforce.filter(|_| !enforcing.is_empty()), &shipped).await?;
        self.put(FIX_CONFIGURATION, fix.filter(|_| !fixing.is_empty()), &shipped).await?;
        Ok(enforcing.len().saturating_add(fixing.len()))
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

/// Namespaces for which there may be no admission policy for want of room, as long as nobody says which: all that ask for
/// one in a cluster that asks for too many.
fn crowd((known, places): (&Policies, usize), now: Timestamp) -> BTreeSet<String> {
    let demand = known.demand(now);
    if demand.is_crowded(places) { demand.namespaces.into_keys().collect() } else { BTreeSet::new() }
}

/// Namespaces where no pod is made without the webhook's word: where it alone refuses something, and where the floor has not
/// let it go, which nobody waits for once nothing is refused there.
fn waiting(leaning: &BTreeSet<String>, known: &Policies) -> BTreeSet<String> {
    &(leaning & &known.refusing()) | &known.needing_webhook()
}

/// What asks for another pass.
struct Asking {
    policies: watch::Receiver<u64>,
    labels: watch::Receiver<u64>,
    ours: watch::Receiver<u64>,
    leaning: Leaning,
    shipped: watch::Receiver<u64>,
    pauses: Pauses,
}

impl Asking {
    fn mark_unchanged(&mut self) {
        for receiver in [&mut self.policies, &mut self.labels, &mut self.ours, &mut self.shipped] {
            receiver.mark_unchanged();
        }
        self.leaning.mark_unchanged();
        self.pauses.mark_unchanged();
    }

    /// Waits until something asks for another pass. One for a pause, another certificate, or what failed before waits for
    /// no rest.
    async fn next(&mut self, again: Option<Duration>, rested: Instant) {
        let rests = tokio::select! {
            _ = self.policies.changed() => true,
            _ = self.labels.changed() => true,
            _ = self.ours.changed() => true,
            Ok(()) = self.leaning.changed() => true,
            _ = self.shipped.changed() => false,
            _ = self.pauses.changed() => false,
            () = news::after(again) => false,
        };
        sleep(SETTLE).await;
        if rests {
            tokio::select! {
                () = sleep_until(rested) => {}
                _ = self.shipped.changed() => {}
                _ = self.pauses.changed() => {}
            }
        }
    }
}

/// How long to rest after a pass that named so many namespaces: each is written again, with all others, and every API server
/// reads all of them.
fn rest(names: usize) -> Duration {
    u64::try_from(names).map_or(LONGEST_REST, Duration::from_millis).min(LONGEST_REST)
}

/// Whatever changes the webhook configuration that is shipped.
fn shipped_changes(client: &Client) -> News {
    let validating: Api<PartialObjectMeta<ValidatingWebhookConfiguration>> = Api::all(client.clone());
    news::of(validating, news::named(WEBHOOK_CONFIGURATION))
}

/// Whatever changes webhook configurations of ours.
fn ours_changes(client: &Client) -> Vec<News> {
    let validating: Api<PartialObjectMeta<ValidatingWebhookConfiguration>> = Api::all(client.clone());
    let mutating: Api<PartialObjectMeta<MutatingWebhookConfiguration>> = Api::all(client.clone());
    vec![news::of(validating, news::named(ENFORCE_CONFIGURATION)), news::of(mutating, news::named(FIX_CONFIGURATION))]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::hardening::{Covering, Origin, Requirement};

    /// Namespaces that each ask for something else, and have it refused by admission policies (`Generate`) or not (`None`).
    fn known(count: usize, admission_policy: &str) -> Policies {
        let own = |number: usize| -> (String, Arc<[Covering]>) {
            let hardening = json!({"mode": "Enforce", "podSecurity": {"level": "baseline"},
                "admissionPolicy": admission_policy,
                "rules": {"images": {"allow": [format!("registry-{number}.example/**")]}}});
            let requirement = Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap();
            let origin = Origin::SecurityPolicy("own".into());
            let covering = Covering { origin, made: None, requirement, exceptions: Arc::default() };
            (format!("team-{number}"), Arc::from([covering]))
        };
        Policies { own: Arc::new((0..count).map(own).collect()), ..Policies::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn long_lists_are_written_seldom_and_a_pause_does_not_wait_for_them() {
        let sender = || watch::Sender::new(0_u64);
        let [policies, labels, ours, shipped] = [sender(), sender(), sender(), sender()];
        let (leaning, pauses) = (watch::Sender::new(None), watch::Sender::new(None));
        let mut asking = Asking {
            policies: policies.subscribe(),
            labels: labels.subscribe(),
            ours: ours.subscribe(),
            leaning: leaning.subscribe(),
            shipped: shipped.subscribe(),
            pauses: pauses.subscribe(),
        };
        let began = Instant::now();
        labels.send_modify(|count| *count += 1);
        asking.next(None, began + rest(10_000)).await;
        assert!((LONGEST_REST..LONGEST_REST + SETTLE).contains(&began.elapsed()), "{:?}", began.elapsed());
        asking.mark_unchanged();
        let began = Instant::now();
        labels.send_modify(|count| *count += 1);
        pauses.send_replace(None);
        asking.next(None, began + rest(10_000)).await;
        assert!(began.elapsed() < LONGEST_REST, "the pause waited");
        asking.mark_unchanged();
        let began = Instant::now();
        labels.send_modify(|count| *count += 1);
        asking.next(None, began).await;
        assert!(began.elapsed() < 2 * SETTLE, "the first after a rest waited");
        assert!(rest(10) < SETTLE, "short lists wait");
    }

    #[test]
    fn until_it_is_known_who_is_crowded_out_all_are_that_may_be() {
        let crowd = |count: usize| crowd((&known(count, "Generate"), 9), Timestamp::UNIX_EPOCH).len();
        assert_eq!((crowd(9), crowd(10)), (0, 10));
    }

    #[test]
    fn who_leaves_the_webhook_waits_for_it_until_the_floor_lets_go_or_nothing_is_refused() {
        let leaning = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let (both, none) = (leaning(&["team-0", "team-1"]), leaning(&[]));
        assert_eq!(waiting(&none, &known(2, "None")), both, "whatever the floor says");
        assert_eq!(waiting(&both, &known(2, "Generate")), both);
        assert_eq!(waiting(&leaning(&["team-1"]), &known(2, "Generate")), leaning(&["team-1"]));
        assert_eq!(waiting(&both, &known(1, "Generate")), leaning(&["team-0"]), "the other asks for nothing more");
        assert_eq!(waiting(&none, &known(2, "Generate")), none);
    }
}
