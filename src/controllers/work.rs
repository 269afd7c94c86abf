//! One reconcile, with its deadline and its panic guard, and what is told of it.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Backoff, Context, Next, Reconciler, key};
use crate::{
    cluster::{Class, Error, status::report_unreadable},
    runtime::{
        clock,
        metrics::{ControllerLabel, ErrorLabels, KindLabel, ReconcileLabels},
    },
};

/// Longest reconcile of one object: its calls have deadlines of their own, this bounds their number.
pub(super) const RECONCILE_DEADLINE: Duration = Duration::from_mins(2);

/// Failures in a row that no status tells of: most are over by then.
pub(super) const UNTOLD: u32 = 2;

/// An edit of an object, by its UID and generation.
type Edit = (Option<String>, Option<i64>);

/// A reconciler, guarded.
pub(super) struct Work<R: Reconciler> {
    reconciler: Arc<R>,
    context: Context,
    backoff: Backoff,
    /// Edits of objects that can't be read: when to try again to tell so, where that failed.
    unreadable: Mutex<HashMap<Edit, Option<Instant>>>,
    roots: Store<DeserializeGuard<R::Root>>,
    deleted: watch::Sender<u64>,
}

impl<R: Reconciler> Work<R> {
    /// Of roots as last seen, and who is told when one was deleted.
    pub(super) fn new(
        reconciler: Arc<R>,
        context: Context,
        (roots, deleted): (Store<DeserializeGuard<R::Root>>, watch::Sender<u64>),
    ) -> Self {
        Self { reconciler, context, backoff: Backoff::default(), unreadable: Mutex::default(), roots, deleted }
    }

    pub(super) async fn reconcile(&self, object: &DeserializeGuard<R::Root>) -> Result<Action, Error> {
        let (metrics, controller) = (&self.context.metrics, R::NAME);
        let label = ControllerLabel { controller };
        let root = match &object.0 {
            Ok(root) => root,
            Err(invalid) => {
                // The schema admitted it under another version of the CRD: it can't be read, and so what it led
                // to is left alone. All others go on.
                let kind = R::Root::kind(&()).into_owned();
                tracing::error!(kind, name = invalid.metadata.name, error = invalid.error, "an object can't be read");
                metrics.invalid_objects.get_or_create(&KindLabel { kind: R::NAME }).inc();
                return Ok(self.tell_unreadable(&invalid.metadata, &invalid.error).await);
            }
        };
        let _turn = match self.reconciler.turn(root).await {
            Ok(turn) => turn,
            Err(next) => return Ok(action(next)),
        };
        let began = Instant::now();
        metrics.active_workers.get_or_create(&label).inc();
        let guarded = AssertUnwindSafe(self.reconciler.reconcile(root)).catch_unwind();
        let result = match tokio::time::timeout(RECONCILE_DEADLINE, guarded).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                metrics.reconcile_panics.get_or_create(&label).inc();
                Err(Error::Unexpected("the reconcile panicked".into()))
            }
            Err(_) => {
                metrics.reconcile_timeouts.get_or_create(&label).inc();
                Err(Error::Unexpected(format!("the reconcile was cut off after {RECONCILE_DEADLINE:?}")))
            }
        };
        metrics.active_workers.get_or_create(&label).dec();
        metrics.reconcile_seconds.get_or_create(&label).observe(began.elapsed().as_secs_f64());
        let outcome = match &result {
            Ok(Next::Change) => "success",
            Ok(Next::After(_)) => "requeue_after",
            Err(_) => "error",
        };
        metrics.reconciles.get_or_create(&ReconcileLabels { controller, result: outcome }).inc();
        self.tell_again_if_gone(object);
        let next = match result {
            Ok(next) => next,
            Err(error) => {
                // What nobody tries again is told at once.
                if error.class() == Class::User || self.backoff.failures(&key(object)) >= UNTOLD {
                    self.tell_failure(root, &error).await;
                }
                return Err(error);
            }
        };
        self.backoff.succeeded(&key(object));
        Ok(action(next))
    }

    /// Has it told in status what failed. That this failed, too, is for the log alone.
    async fn tell_failure(&self, root: &R::Root, error: &Error) {
        let told = AssertUnwindSafe(self.reconciler.failed(root, error)).catch_unwind();
        let why = match tokio::time::timeout(RECONCILE_DEADLINE, told).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error,
            Ok(Err(_)) => {
                self.context.metrics.reconcile_panics.get_or_create(&ControllerLabel { controller: R::NAME }).inc();
                Error::Unexpected("telling it panicked".into())
            }
            Err(_) => Error::Unexpected(format!("telling it was cut off after {RECONCILE_DEADLINE:?}")),
        };
        let (namespace, name) = (root.namespace().unwrap_or_default(), root.name_any());
        tracing::warn!(controller = R::NAME, namespace, name, error = %why, "a failure could not be told in status");
    }

    /// Tells in its status that an object can't be read, once for each edit.
    async fn tell_unreadable(&self, metadata: &ObjectMeta, why: &str) -> Action {
        let edit = (metadata.uid.clone(), metadata.generation);
        match self.unreadable.lock().get(&edit) {
            Some(None) => return Action::await_change(),
            Some(Some(next)) if *next > Instant::now() => return Action::requeue(*next - Instant::now()),
            _ => {}
        }
        let key = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        match report_unreadable::<R::Root>(&self.context.client, metadata, why, clock::now()).await {
            Ok(()) => {
                self.unreadable.lock().insert(edit, None);
                self.backoff.succeeded(&key);
                Action::await_change()
            }
            Err(error) => {
                tracing::warn!(controller = R::NAME, %error, "that an object can't be read could not be told in its status");
                let pause = self.backoff.failed(&key);
                self.unreadable.lock().insert(edit, Some(Instant::now() + pause));
                Action::requeue(pause)
            }
        }
    }

    /// Who prunes was told of a deletion when it came; what was written for the object since would stay.
    fn tell_again_if_gone(&self, object: &DeserializeGuard<R::Root>) {
        let now = self.roots.get(&ObjectRef::from_obj(object));
        if now.is_none_or(|now| now.uid() != object.uid()) {
            self.deleted.send_modify(|count| *count += 1);
        }
    }

    pub(super) fn after_error(&self, object: &DeserializeGuard<R::Root>, error: &Error) -> Action {
        let metrics = &self.context.metrics;
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        tracing::warn!(controller = R::NAME, namespace, name, reason = error.reason(), %error, "a reconcile failed");
        let labels = ErrorLabels { controller: R::NAME, reason: error.reason() };
        metrics.reconcile_errors.get_or_create(&labels).inc();
        match error.class() {
            Class::User => {
                metrics.terminal_errors.get_or_create(&ControllerLabel { controller: R::NAME }).inc();
                Action::await_change()
            }
            Class::Transient => Action::requeue(self.backoff.failed(&key(object))),
        }
    }
}

fn action(next: Next) -> Action {
    match next {
        Next::Change => Action::await_change(),
        Next::After(pause) => Action::requeue(pause),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicU32, Ordering},
    };

    use http::{Method, Request, Response};
    use kube::{
        Client,
        client::Body,
        runtime::{reflector, watcher},
    };
    use serde_json::json;

    use super::*;
    use crate::{api::SecurityPolicy, cluster::client::tests::nobody, controllers::Turn};

    fn policy(uid: &str) -> DeserializeGuard<SecurityPolicy> {
        let metadata = json!({"name": "web", "namespace": "shop", "uid": uid});
        serde_json::from_value(json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
            "metadata": metadata, "spec": {}}))
        .unwrap()
    }

    /// Fails, and counts how often that is told.
    #[derive(Default)]
    struct Fails(AtomicU32);

    impl Reconciler for Fails {
        type Root = SecurityPolicy;
        const NAME: &'static str = "fails";

        async fn reconcile(&self, _: &SecurityPolicy) -> Result<Next, Error> {
            Err(Error::Unexpected("no".into()))
        }

        async fn failed(&self, _: &SecurityPolicy, error: &Error) -> Result<(), Error> {
            assert_eq!(error.to_string(), Error::Unexpected("no".into()).to_string());
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(Error::Unexpected("nobody is there".into()))
        }
    }

    #[tokio::test]
    async fn what_fails_three_times_in_a_row_is_told() {
        let (roots, _writer) = reflector::store();
        let fails = Arc::new(Fails::default());
        let work = Work::new(fails.clone(), Context::of_client(nobody()), (roots, watch::channel(0).0));
        let log = tempfile::NamedTempFile::new().unwrap();
        let logging = tracing_subscriber::fmt().with_ansi(false).with_writer(Arc::new(log.reopen().unwrap())).finish();
        let _logging = tracing::subscriber::set_default(logging);
        let mut told = vec![];
        for _ in 0..4 {
            let error = work.reconcile(&policy("a")).await.unwrap_err();
            work.after_error(&policy("a"), &error);
            told.push(fails.0.load(Ordering::Relaxed));
        }
        assert_eq!(told, [0, 0, 1, 2]);
        let log = std::fs::read_to_string(log.path()).unwrap();
        let untold: Vec<&str> = log.lines().filter(|line| line.contains("could not be told in status")).collect();
        assert_eq!(untold.len(), 2, "{log}");
        assert!(untold.iter().all(|line| line.contains("nobody is there") && line.contains("web")), "{log}");
    }

    #[tokio::test]
    async fn what_can_not_be_read_says_so_once() {
        let asked = Arc::new(Mutex::new(vec![]));
        let seen = Arc::clone(&asked);
        let answer = move |request: Request<Body>| {
            let is_list = request.method() == Method::GET;
            seen.lock().push(format!("{} {}", request.method(), request.uri().path()));
            let types = |kind: &str| json!({"apiVersion": "rampart.dev/v1alpha1", "kind": kind, "metadata": {}});
            let mut json = types(if is_list { "SecurityPolicyList" } else { "SecurityPolicy" });
            if is_list {
                let mut item = types("SecurityPolicy");
                item["metadata"] = json!({"name": "web", "namespace": "shop", "uid": "a"});
                json["items"] = json!([item]);
            }
            let answer = Response::new(Body::from(json.to_string().into_bytes()));
            async move { Ok::<_, Infallible>(answer) }
        };
        let client = Client::new(tower::service_fn(answer), "default");
        let (roots, _writer) = reflector::store();
        let work = Work::new(Arc::new(Writes), Context::of_client(client), (roots, watch::channel(0).0));
        let metadata = json!({"name": "web", "namespace": "shop", "uid": "a", "generation": 1});
        let unreadable: DeserializeGuard<SecurityPolicy> = serde_json::from_value(json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy", "metadata": metadata,
            "spec": {"network": 7}}))
        .unwrap();
        for _ in 0..2 {
            work.reconcile(&unreadable).await.unwrap();
        }
        let at = "/apis/rampart.dev/v1alpha1/namespaces/shop/securitypolicies";
        assert_eq!(*asked.lock(), [format!("GET {at}"), format!("PATCH {at}/web/status")]);
    }

    /// Whose turn does not come, but perhaps when it is asked for again.
    struct Waits(Next, AtomicU32);

    impl Reconciler for Waits {
        type Root = SecurityPolicy;
        const NAME: &'static str = "waits";

        async fn turn(&self, _: &SecurityPolicy) -> Result<Turn, Next> {
            Err(self.0)
        }

        async fn reconcile(&self, _: &SecurityPolicy) -> Result<Next, Error> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok(Next::Change)
        }
    }

    #[tokio::test]
    async fn nothing_begins_whose_turn_does_not_come() {
        let second = Duration::from_secs(1);
        let all = [(Next::Change, Action::await_change()), (Next::After(second), Action::requeue(second))];
        for (next, told) in all {
            let (roots, _writer) = reflector::store();
            let waits = Arc::new(Waits(next, AtomicU32::default()));
            let work = Work::new(waits.clone(), Context::of_client(nobody()), (roots, watch::channel(0).0));
            assert_eq!(work.reconcile(&policy("a")).await.unwrap(), told);
            assert_eq!(waits.1.load(Ordering::Relaxed), 0);
        }
    }

    struct Writes;

    impl Reconciler for Writes {
        type Root = SecurityPolicy;
        const NAME: &'static str = "writes";

        async fn reconcile(&self, _: &SecurityPolicy) -> Result<Next, Error> {
            Ok(Next::Change)
        }
    }

    #[tokio::test]
    async fn who_prunes_looks_again_after_a_reconcile_of_what_was_deleted_meanwhile() {
        let (roots, mut writer) = reflector::store();
        let (deleted, told) = watch::channel(0);
        let work = Work::new(Arc::new(Writes), Context::of_client(nobody()), (roots, deleted));
        writer.apply_watcher_event(&watcher::Event::Apply(policy("a")));
        work.reconcile(&policy("a")).await.unwrap();
        assert_eq!(*told.borrow(), 0, "it is there");
        writer.apply_watcher_event(&watcher::Event::Apply(policy("b")));
        work.reconcile(&policy("a")).await.unwrap();
        assert_eq!(*told.borrow(), 1, "another of its name");
        writer.apply_watcher_event(&watcher::Event::Delete(policy("b")));
        work.reconcile(&policy("b")).await.unwrap();
        assert_eq!(*told.borrow(), 2);
    }
}
