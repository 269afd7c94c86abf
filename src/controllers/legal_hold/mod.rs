//! LegalHold and ClusterLegalHold: keeps the admission policies by which the API server refuses, until the hold ends
//! or is gone. A pause never touches them.

mod orphans;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::{Api, ResourceExt as _, core::PartialObjectMeta, runtime::watcher};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use self::orphans::Orphans;
use super::{Context, Next, Reconciler, Roots, Triggers, news, pruning, requested};
use crate::{
    api::{
        HoldState, LegalHoldStatus,
        condition::{Conditions, Type, is_true},
    },
    cluster::{
        Error, Result,
        apply::{IN_FORCE_AFTER, Outcome},
        events::Reason,
        holds::{Holding, Live, made_for, unserved},
        leader::Leadership,
        server_clock::server_time,
        status,
    },
    retention::{Hold, refusals},
    runtime::{clock, metrics::KindLabel, tasks::Tasks},
};

/// A kind that is not served may come.
const AGAIN: Duration = Duration::from_secs(30);
/// A clock may be set, and a machine may sleep.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

const ACTIVE: Reason = Reason::normal("HoldActive");
const EXPIRED: Reason = Reason::normal("HoldExpired");
const REVERTED: Reason = Reason::warning("DriftReverted");

/// The controller of one kind of hold.
pub struct LegalHolds<K: Holding> {
    context: Context,
    roots: Roots<K>,
    /// UIDs of those that are in force.
    active: Mutex<BTreeSet<String>>,
    /// When what is refused for a hold was written last, by its UID; forgotten when every API server knows.
    written: Mutex<BTreeMap<String, Instant>>,
}

/// What a visit found.
enum Found {
    /// It can't be read; what was refused for it before still is.
    Invalid(String),
    /// It has ended, and nothing is refused for it any more.
    Over(Timestamp),
    /// What refuses for it could not be read or written.
    Failed(Error),
    /// It holds, or will when every API server knows.
    Held { pending: bool, unserved: Option<String>, policies: Vec<String> },
}

impl<K: Holding> LegalHolds<K> {
    /// Adds the controller to the tasks of a process.
    pub fn spawn(context: &Context, leadership: Leadership, install_namespace: String, tasks: &mut Tasks) {
        let (root, roots) = super::root::<K>();
        let (all_tx, all) = watch::channel(0);
        let which = watcher::Config::default().labels(&made_for(K::KIND));
        let policies: Api<PartialObjectMeta<ValidatingAdmissionPolicy>> = Api::all(context.client.clone());
        let bindings: Api<PartialObjectMeta<ValidatingAdmissionPolicyBinding>> = Api::all(context.client.clone());
        let news = vec![news::of(policies, which.clone()), news::of(bindings, which)];
        tasks.spawn("hold-watch", news::follow("what is refused for holds", news, all_tx, context.stopped.clone()));
        let controller =
            Arc::new(Self { context: context.clone(), roots, active: Mutex::default(), written: Mutex::default() });
        tasks.spawn(K::CONTROLLER, controller.run(root, all, leadership, install_namespace));
    }

    async fn run(
        self: Arc<Self>,
        root: super::Root<K>,
        all: watch::Receiver<u64>,
        mut leadership: Leadership,
        namespace: String,
    ) -> anyhow::Result<()> {
        let (context, roots) = (self.context.clone(), self.roots.clone());
        tokio::select! {
            () = leadership.acquired() => {}
            () = context.stopped.cancelled() => return Ok(()),
        }
        let (_one, one) = mpsc::unbounded_channel();
        let orphanage = Arc::new(Orphans { client: context.client.clone(), roots: roots.clone() });
        let confirmed = leadership.confirmed_prune();
        let pruning = pruning::follow(orphanage, context.clone(), namespace, confirmed);
        let running = super::run(self.clone(), context.clone(), root, Triggers { one, all });
        tokio::try_join!(running, pruning, self.forget_deleted())?;
        Ok(())
    }

    async fn forget_deleted(&self) -> anyhow::Result<()> {
        let mut deletions = self.roots.deletions();
        loop {
            tokio::select! {
                changed = deletions.changed() => if changed.is_err() { break },
                () = self.context.stopped.cancelled() => return Ok(()),
            }
            let uids = self.roots.uids();
            self.count(|active| active.retain(|uid| uids.contains(uid)));
        }
        self.context.stopped.cancelled().await;
        Ok(())
    }

    fn count(&self, change: impl FnOnce(&mut BTreeSet<String>)) {
        let mut active = self.active.lock();
        change(&mut active);
        let gauge = self.context.metrics.holds_active.get_or_create(&KindLabel { kind: K::KIND.as_str() }).clone();
        gauge.set(i64::try_from(active.len()).unwrap_or(i64::MAX));
    }

    /// Whether it has ended, by both clocks: one that was set ahead releases nothing.
    async fn is_over(&self, hold: &Hold) -> Result<bool> {
        if !hold.has_ended(clock::now()) {
            return Ok(false);
        }
        let theirs = server_time(&self.context.client).await?;
        if !hold.has_ended(theirs) {
            let (kind, name, namespace) = (hold.kind.as_str(), &hold.name, &hold.namespace);
            tracing::warn!(kind, namespace, name, api_server = %theirs, "a hold goes on: it has ended by our clock alone");
        }
        Ok(hold.has_ended(theirs))
    }

    async fn visit(&self, object: &K) -> Result<Found> {
        let hold = match object.hold() {
            Ok(hold) => hold,
            Err(invalid) => return Ok(Found::Invalid(invalid.to_string())),
        };
        let client = &self.context.client;
        if self.is_over(&hold).await? {
            for refusal in refusals(&hold) {
                let name = refusal.policy.name_any();
                if Live::read(client, &name).await?.remove(client).await? {
                    tracing::info!(name, hold = %hold, "a hold has ended: admission policy removed");
                }
            }
            return Ok(Found::Over(hold.until.unwrap_or_default()));
        }
        let (mut policies, mut is_new) = (vec![], false);
        for refusal in refusals(&hold) {
            let name = refusal.policy.name_any();
            let outcomes = Live::read(client, &name).await?.put(client, &refusal).await?;
            if outcomes.iter().any(|outcome| *outcome != Outcome::Unchanged) {
                tracing::info!(name, hold = %hold, ?outcomes, "admission policy of a hold");
                is_new = true;
            }
            policies.push(name);
        }
        if is_new {
            self.tell_of_drift(object).await;
        }
        let pending = self.is_pending(&hold.uid, is_new);
        let unserved = if told_ready(object) { None } else { unserved(client, &hold).await? };
        Ok(Found::Held { pending, unserved, policies })
    }

    /// Whether some API server may not refuse yet. By the time that passes, not by what a clock says.
    fn is_pending(&self, uid: &str, is_new: bool) -> bool {
        let mut written = self.written.lock();
        if is_new {
            written.insert(uid.into(), Instant::now());
        }
        written.retain(|_, at| at.elapsed() < IN_FORCE_AFTER);
        written.contains_key(uid)
    }

    /// What was in force for this very spec has been changed or removed by somebody else.
    async fn tell_of_drift(&self, object: &K) {
        let told = object.status().filter(|status| status.observed_generation == object.meta().generation);
        if told.is_some_and(|status| status.state == Some(HoldState::Active)) {
            let kind = "ValidatingAdmissionPolicy";
            self.context.metrics.drift_reverted.get_or_create(&KindLabel { kind }).inc();
            let note = "what the API server refuses for this hold was changed or removed, and is put back";
            self.context.events.publish(object, REVERTED, note).await;
        }
    }

    fn status(object: &K, found: &Found) -> LegalHoldStatus {
        let mut conditions = Conditions::of_generation(object.meta().generation);
        let accepted = !matches!(found, Found::Invalid(_));
        conditions.set(Type::Accepted, accepted, if accepted { "Accepted" } else { "Invalid" }, "");
        let mut status = LegalHoldStatus {
            observed_generation: object.meta().generation,
            last_handled_reconcile_at: requested(object),
            ..LegalHoldStatus::default()
        };
        match found {
            Found::Failed(error) => {
                let why = format!("whether the API server refuses is not known, and is tried again: {error}");
                wait(&mut conditions, error.reason(), &why);
                status.state = Some(HoldState::Pending);
                status.admission_policies = object.status().map(|it| it.admission_policies.clone()).unwrap_or_default();
            }
            Found::Invalid(why) => {
                conditions.set(Type::Accepted, false, "Invalid", why.as_str()).stall("Invalid", why);
            }
            Found::Over(until) => {
                conditions.stall("Expired", &format!("it ended at {until}: nothing is held by it"));
                status.state = Some(HoldState::Expired);
            }
            Found::Held { pending, unserved, policies } => {
                status.admission_policies.clone_from(policies);
                // Of a kind that is not served, nothing is held yet.
                let waits = *pending || unserved.is_some();
                status.state = Some(if waits { HoldState::Pending } else { HoldState::Active });
                match unserved {
                    Some(why) => drop(conditions.stall("UnknownResource", why)),
                    None if *pending => {
                        let why = "the API server takes a moment until it refuses";
                        wait(&mut conditions, "AdmissionPolicyPending", why);
                    }
                    None => {
                        // A selector with a slip selects nothing, and looks as if it held.
                        let said = object.hold().map(|hold| format!("to see what it holds: {}", hold.listing()));
                        conditions.set(Type::Programmed, true, "Programmed", "");
                        conditions.set(Type::Ready, true, "Active", said.unwrap_or_default());
                    }
                }
            }
        }
        let old = object.status().map(|status| status.conditions.as_slice()).unwrap_or_default();
        status.conditions = conditions.carried_from(old, clock::now());
        status
    }

    /// When to look again at a hold that did not change.
    fn next(object: &K, status: &LegalHoldStatus) -> Next {
        if status.conditions.iter().any(|it| it.reason == "UnknownResource") {
            return Next::After(AGAIN);
        }
        match status.state {
            Some(HoldState::Pending) => Next::After(IN_FORCE_AFTER),
            Some(HoldState::Active) => {
                let end = object.hold().ok().and_then(|hold| hold.until);
                end.map_or(Next::Change, |end| Next::After(look_again(end.duration_since(clock::now()))))
            }
            Some(HoldState::Expired) | None => Next::Change,
        }
    }
}

/// Says why nothing is refused yet, as far as is known.
fn wait(conditions: &mut Conditions, reason: &str, why: &str) {
    for (kind, holds) in [(Type::Programmed, false), (Type::Ready, false), (Type::Reconciling, true)] {
        conditions.set(kind, holds, reason, why);
    }
}

/// When to look again at a hold that has so much left. One that has ended by our clock alone is looked at ever more
/// rarely: after as long as that was ago.
fn look_again(left: SignedDuration) -> Duration {
    left.unsigned_abs().clamp(Duration::from_secs(1), LOOK_AGAIN)
}

/// Whether a failure says nothing of what is refused: a write that came too late, or of a hold that was seen to end.
fn is_no_news<K: Holding>(object: &K, error: &Error) -> bool {
    let told = object.status().filter(|status| status.observed_generation == object.meta().generation);
    error.code() == Some(409) || told.is_some_and(|status| status.state == Some(HoldState::Expired))
}

/// Whether its status says, of this very spec, that it is ready.
fn told_ready<K: Holding>(object: &K) -> bool {
    let told = object.status().filter(|status| status.observed_generation == object.meta().generation);
    told.is_some_and(|status| is_true(&status.conditions, Type::Ready))
}

impl<K: Holding> Reconciler for LegalHolds<K> {
    type Root = K;
    const NAME: &'static str = K::CONTROLLER;

    async fn reconcile(&self, object: &K) -> Result<Next> {
        if object.meta().deletion_timestamp.is_some() {
            return Ok(Next::Change);
        }
        let found = match Box::pin(self.visit(object)).await {
            Err(error) if is_no_news(object, &error) => return Err(error),
            found => found.unwrap_or_else(Found::Failed),
        };
        let wanted = Self::status(object, &found);
        let before = object.status().and_then(|status| status.state);
        let wrote = status::report(&self.context.client, object, &wanted).await?;
        let uid = object.uid().unwrap_or_default();
        self.count(|active| match wanted.state {
            Some(HoldState::Active) => drop(active.insert(uid)),
            _ => drop(active.remove(&uid)),
        });
        if wrote && before != wanted.state {
            match wanted.state {
                Some(HoldState::Active) => {
                    self.context.events.publish(object, ACTIVE, "what it selects can't be deleted or changed").await;
                }
                Some(HoldState::Expired) => {
                    self.context.events.publish(object, EXPIRED, "it has ended: nothing is held by it any more").await;
                }
                Some(HoldState::Pending) | None => {}
            }
        }
        match found {
            Found::Failed(error) => Err(error),
            _ => Ok(Self::next(object, &wanted)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Method, Request, Response};
    use kube::{Client, client::Body};
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        api::LegalHold,
        cluster::events::Events,
        runtime::{metrics::Metrics, readiness::Readiness},
    };

    type Statuses = Arc<Mutex<Vec<Value>>>;

    /// An API server without admission policies, which takes no others and any status.
    fn refusing(statuses: &Statuses) -> Client {
        let statuses = statuses.clone();
        let answer = move |request: Request<Body>| {
            let statuses = statuses.clone();
            async move {
                let (head, body) = request.into_parts();
                let failure = |code: u16, reason: &str| {
                    (code, json!({"status": "Failure", "message": "no", "reason": reason, "code": code}))
                };
                let (code, json) = if head.uri.path().ends_with("/status") {
                    let body = body.collect_bytes().await.unwrap();
                    statuses.lock().push(serde_json::from_slice(&body).unwrap());
                    (200, json!({"metadata": {}}))
                } else if head.method == Method::GET {
                    failure(404, "NotFound")
                } else {
                    failure(403, "Forbidden")
                };
                let answer = Response::builder().status(code).body(Body::from(json.to_string().into_bytes()));
                Ok::<_, Infallible>(answer.unwrap())
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    /// What is told of a hold of this state when what is refused for it is gone, and can't be put back.
    async fn told(state: &str) -> Option<Value> {
        let until = "2020-01-01T00:00:00Z";
        let end = if state == "Expired" { json!({"until": until}) } else { json!({"indefinite": true}) };
        let mut hold = json!({
            "metadata": {"name": "case", "namespace": "shop", "uid": "u", "generation": 1},
            "spec": {"resources": [{"resource": "configmaps"}], "selector": {}, "ground": "litigation"},
            "status": {"observedGeneration": 1, "state": state, "admissionPolicies": ["a"], "conditions": []},
        });
        hold["spec"].as_object_mut().unwrap().extend(end.as_object().unwrap().clone());
        let hold: LegalHold = serde_json::from_value(hold).unwrap();
        let statuses = Statuses::default();
        let client = refusing(&statuses);
        let context = Context {
            client: client.clone(),
            events: Events::new(client, "test"),
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            stopped: CancellationToken::new(),
            concurrency: 1,
        };
        let (_root, roots) = crate::controllers::root::<LegalHold>();
        let holds = LegalHolds { context, roots, active: Mutex::default(), written: Mutex::default() };
        assert!(holds.reconcile(&hold).await.is_err());
        let told = statuses.lock().pop();
        told.map(|it| it["status"].clone())
    }

    #[tokio::test]
    async fn a_hold_is_not_active_while_nothing_refuses() {
        let told = told("Active").await.unwrap();
        assert_eq!((&told["state"], &told["admissionPolicies"]), (&json!("Pending"), &json!(["a"])));
        let conditions = told["conditions"].as_array().unwrap().iter();
        let of = conditions.map(|it| [&it["type"], &it["status"], &it["reason"]].map(|it| it.as_str().unwrap()));
        let wanted = [
            ["Accepted", "True", "Accepted"],
            ["Programmed", "False", "Forbidden"],
            ["Ready", "False", "Forbidden"],
            ["Reconciling", "True", "Forbidden"],
        ];
        assert_eq!(of.collect::<Vec<_>>(), wanted);
    }

    #[tokio::test]
    async fn what_fails_for_a_hold_that_is_over_lets_it_hold_no_more() {
        assert_eq!(told("Expired").await, None);
    }

    #[test]
    fn a_hold_that_has_ended_by_our_clock_alone_is_looked_at_ever_more_rarely() {
        let wait = |left: i64| look_again(SignedDuration::from_secs(left)).as_secs();
        assert_eq!([3600, 60, 0].map(wait), [300, 60, 1]);
        assert_eq!([-1, -2, -60, -400 * 24 * 3600].map(wait), [1, 2, 60, 300]);
    }
}
