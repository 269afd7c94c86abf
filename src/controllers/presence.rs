//! Whether the webhook is there, by the EndpointSlices of its Service, and whose statuses tell where it is not.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use k8s_openapi::api::{admissionregistration::v1::ValidatingWebhookConfiguration, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, Resource,
    core::DeserializeGuard,
    runtime::{reflector::ObjectRef, watcher},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, Hardened, Roots,
    floor::InForce,
    news::{due, named},
};
use crate::{
    admission::{WEBHOOK_CONFIGURATION, WEBHOOK_SERVICE},
    cluster::follow::{Key, follow_those},
    network::validated_by,
    runtime::tasks::Tasks,
};

/// So long nobody is ready until the webhook is away: a container that is started anew, or a pod that is made anew on
/// another node, is ready sooner, and statuses need not be written twice for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// That the webhook is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// Where its pods are looked for.
    namespace: String,
}

impl Away {
    /// Adds the watch of the webhook's Service to the tasks of a process; the answer follows whether it is away. Who does
    /// not lead watches, too, and so knows since when, once it does.
    pub fn follow(context: &Context, namespace: String, tasks: &mut Tasks) -> watch::Receiver<Option<Self>> {
        let (away, follow) = watch::channel(None);
        let (client, stopped) = (context.client.clone(), context.stopped.clone());
        tasks.spawn("webhook-presence", async move {
            stopped.run_until_cancelled(follow_service(&client, &namespace, &away)).await;
            stopped.cancelled().await;
            Ok(())
        });
        follow
    }

    /// With its pods in this namespace.
    pub(super) fn of(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    /// What to say of it: what is so meanwhile, and where to look.
    pub(super) fn says(&self, meanwhile: &str) -> String {
        format!(
            "no endpoint of the webhook's Service is ready, and until one is, {meanwhile}; look at `kubectl get pods,endpointslices -n {} -l app.kubernetes.io/component=webhook`",
            self.namespace
        )
    }
}

/// What EndpointSlices say of a Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Endpoints {
    /// They could not be listed yet.
    #[default]
    Unlisted,
    /// There is none.
    Missing,
    /// Somebody is ready.
    Ready,
    /// Nobody is.
    Unready,
}

impl Endpoints {
    /// By whether each slice has one that is ready.
    fn of(slices: &BTreeMap<Key, bool>) -> Self {
        match slices.values().max() {
            None => Self::Missing,
            Some(true) => Self::Ready,
            Some(false) => Self::Unready,
        }
    }
}

/// Whether an endpoint of a slice is ready; one that says nothing of it is, by the rules of the API.
fn has_ready(slice: &EndpointSlice) -> bool {
    let mut endpoints = slice.endpoints.iter().flatten();
    endpoints.any(|endpoint| endpoint.conditions.as_ref().and_then(|it| it.ready) != Some(false))
}

/// What is known of the webhook's Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Known {
    endpoints: Endpoints,
    /// Whether the webhook's configuration names it. What is called another way may well be there without a slice.
    is_called: bool,
}

impl Known {
    /// Whether nobody is ready.
    fn is_unready(self) -> bool {
        match self.endpoints {
            Endpoints::Unlisted | Endpoints::Ready => false,
            Endpoints::Missing => self.is_called,
            Endpoints::Unready => true,
        }
    }
}

/// Whether the API server is to call the webhook by its Service in a namespace.
fn calls_service(configuration: &ValidatingWebhookConfiguration, namespace: &str) -> bool {
    validated_by(configuration).iter().any(|((of, name), _)| of == namespace && name == WEBHOOK_SERVICE)
}

/// Since when nobody has been ready, without a break.
#[derive(Debug, Default)]
struct Presence {
    unready_since: Option<Instant>,
}

impl Presence {
    fn see(&mut self, known: Known, now: Instant) {
        let since = known.is_unready().then_some(now);
        self.unready_since = since.map(|now| self.unready_since.unwrap_or(now));
    }

    /// From when on it is away, unless somebody is ready before.
    fn away_at(&self) -> Option<Instant> {
        self.unready_since.map(|since| since + PATIENCE)
    }

    fn is_away(&self, now: Instant) -> bool {
        self.away_at().is_some_and(|at| at <= now)
    }
}

async fn follow_service(client: &Client, namespace: &str, away: &watch::Sender<Option<Away>>) {
    let (known, seen) = watch::channel(Known::default());
    let listed = watch::Sender::new(false);
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let of_service = format!("kubernetes.io/service-name={WEBHOOK_SERVICE}");
    let following_slices = follow_those(
        slices,
        ("EndpointSlice", watcher::Config::default().labels(&of_service)),
        |slice, _| Some(has_ready(slice)),
        |slices, _| known.send_modify(|known| known.endpoints = Endpoints::of(slices)),
        &listed,
    );
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let following_configuration = follow_those(
        configurations,
        ("ValidatingWebhookConfiguration", named(WEBHOOK_CONFIGURATION)),
        |configuration, _| Some(calls_service(configuration, namespace)),
        |configurations, _| known.send_modify(|known| known.is_called = configurations.values().any(|calls| *calls)),
        &listed,
    );
    tokio::select! {
        () = following_slices => {}
        () = following_configuration => {}
        () = tell(seen, namespace, away) => {}
    }
}

/// Tells whether the webhook is away, as endpoints come and go, and as time passes.
async fn tell(mut seen: watch::Receiver<Known>, namespace: &str, away: &watch::Sender<Option<Away>>) {
    let mut presence = Presence::default();
    loop {
        let (known, now) = (*seen.borrow_and_update(), Instant::now());
        presence.see(known, now);
        let is_away = presence.is_away(now);
        let turned = away.send_if_modified(|before| {
            let turns = before.is_some() != is_away;
            *before = is_away.then(|| Away::of(namespace));
            turns
        });
        if turned && is_away {
            tracing::warn!(service = WEBHOOK_SERVICE, "the webhook is away: no endpoint was ready for {PATIENCE:?}");
        } else if turned {
            tracing::info!(service = WEBHOOK_SERVICE, ?known, "the webhook is not taken to be away any more");
        }
        tokio::select! {
            changed = seen.changed() => if changed.is_err() { return },
            () = due(presence.away_at().filter(|at| *at > now)) => {}
        }
    }
}

/// Wakes those that lack something while the webhook is away, when it goes and when it is back.
pub(super) async fn wake_leaning<K>(
    Hardened { in_force, mut away, .. }: Hardened,
    (roots, one): (Roots<K>, mpsc::UnboundedSender<ObjectRef<DeserializeGuard<K>>>),
    leans: impl Fn(&K, &InForce) -> bool,
    stopped: CancellationToken,
) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    loop {
        tokio::select! {
            changed = away.changed() => if changed.is_err() { break },
            () = stopped.cancelled() => return Ok(()),
        }
        let in_force = in_force.borrow();
        roots.wake(&one, |root| root.0.as_ref().is_ok_and(|root| leans(root, &in_force)));
    }
    stopped.cancelled().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, pin::pin};

    use http::{Request, Response};
    use kube::{client::Body, runtime::reflector};
    use serde_json::{Value, json};
    use tokio::time::timeout;

    use super::*;
    use crate::{admission::webhook_configuration, api::SecurityPolicy};

    /// A webhook that is called by its Service.
    fn called(endpoints: Endpoints) -> Known {
        Known { endpoints, is_called: true }
    }

    #[test]
    fn it_is_away_once_nobody_was_ready_for_a_while_and_back_at_once() {
        let (start, mut presence) = (Instant::now(), Presence::default());
        let mut is_away = |endpoints, seconds| {
            let now = start + Duration::from_secs(seconds);
            presence.see(called(endpoints), now);
            presence.is_away(now)
        };
        assert_eq!([0, 29, 30, 31].map(|at| is_away(Endpoints::Unready, at)), [false, false, true, true]);
        assert!(!is_away(Endpoints::Ready, 32));
        // The time before does not count.
        assert_eq!([33, 62, 63].map(|at| is_away(Endpoints::Unready, at)), [false, false, true]);
        assert!(is_away(Endpoints::Missing, 64), "the Service is gone");
        assert!(!is_away(Endpoints::Ready, 65));
        assert_eq!([66, 95, 96].map(|at| is_away(Endpoints::Missing, at)), [false, false, true]);
    }

    #[test]
    fn it_turns_by_itself_only_while_nobody_is_ready() {
        let (now, mut presence) = (Instant::now(), Presence::default());
        for (endpoints, turns) in
            [(Endpoints::Unlisted, None), (Endpoints::Unready, Some(now + PATIENCE)), (Endpoints::Ready, None)]
        {
            presence.see(called(endpoints), now);
            assert_eq!(presence.away_at(), turns, "{endpoints:?}");
        }
    }

    #[test]
    fn one_slice_that_has_one_that_is_ready_is_enough() {
        let seen = |slices: &[Value]| {
            let ready = slices.iter().enumerate().map(|(nth, endpoints)| {
                let slice =
                    json!({"metadata": {"name": nth.to_string()}, "addressType": "IPv4", "endpoints": endpoints});
                ((String::new(), nth.to_string()), has_ready(&serde_json::from_value(slice).unwrap()))
            });
            Endpoints::of(&ready.collect())
        };
        let endpoint = |conditions: Value| json!({"addresses": ["192.0.2.10"], "conditions": conditions});
        let (ready, unready) = (endpoint(json!({"ready": true})), endpoint(json!({"ready": false, "serving": true})));
        assert_eq!(seen(&[]), Endpoints::Missing);
        assert_eq!(seen(&[json!(null)]), Endpoints::Unready, "a Service that selects no pod");
        assert_eq!(seen(&[json!([]), json!([unready])]), Endpoints::Unready);
        assert_eq!(seen(&[json!([unready]), json!([unready, ready])]), Endpoints::Ready);
        assert_eq!(seen(&[json!([endpoint(json!({}))])]), Endpoints::Ready, "one that says nothing is ready");
    }

    /// An API server that lists a webhook configuration, and EndpointSlices to who may list them. Nothing changes there.
    fn listing(configuration: Value, slices: Option<Value>) -> Client {
        let answer = move |request: Request<Body>| {
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            let is_watch = query.contains("watch=true");
            let items = if path.ends_with("/endpointslices") { slices.clone() } else { Some(json!([configuration])) };
            let (code, json): (u16, _) = match items {
                Some(items) => {
                    let metadata = json!({"resourceVersion": "1"});
                    (200, json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}))
                }
                None => (403, json!({"status": "Failure", "message": "no", "reason": "Forbidden", "code": 403})),
            };
            async move {
                if is_watch {
                    std::future::pending::<()>().await;
                }
                let answer = Response::builder().status(code).body(Body::from(json.to_string().into_bytes()));
                Ok::<_, Infallible>(answer.unwrap())
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_slice_it_is_away_where_it_is_called_by_its_service() {
        let service = |namespace: &str, name: &str| json!({"service": {"namespace": namespace, "name": name}});
        let ours = || service("rampart-system", WEBHOOK_SERVICE);
        let url = json!({"url": "https://192.0.2.1/validate"});
        let unready = json!([{
            "metadata": {"name": "one", "namespace": "rampart-system"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.10"], "conditions": {"ready": false}}],
        }]);
        for (client_config, slices, is_away) in [
            (ours(), Some(json!([])), true),
            (ours(), None, false),
            (service("elsewhere", WEBHOOK_SERVICE), Some(json!([])), false),
            (service("rampart-system", "another"), Some(json!([])), false),
            (url.clone(), Some(json!([])), false),
            (url, Some(unready), true),
        ] {
            let case = format!("{client_config} {slices:?}");
            let client = listing(webhook_configuration(&client_config), slices);
            let away = watch::Sender::new(None);
            let mut following = pin!(follow_service(&client, "rampart-system", &away));
            for (seconds, is_away) in [(29, false), (2, is_away)] {
                assert!(timeout(Duration::from_secs(seconds), following.as_mut()).await.is_err());
                assert_eq!(away.borrow().is_some(), is_away, "{case}");
            }
        }
    }

    #[tokio::test]
    async fn who_needs_no_webhook_is_not_woken_for_it() {
        let (store, mut writer) = reflector::store();
        for name in ["stands", "leans"] {
            let policy: SecurityPolicy =
                serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {}})).unwrap();
            writer.apply_watcher_event(&watcher::Event::Apply(DeserializeGuard(Ok(policy))));
        }
        let roots = Roots { store, changed: watch::channel(0).1 };
        let ((away_tx, away), (one, mut woken)) = (watch::channel(None), mpsc::unbounded_channel());
        let hardened = Hardened { is_on: true, away, ..Hardened::off() };
        let leans = |policy: &SecurityPolicy, _: &InForce| policy.metadata.name.as_deref() == Some("leans");
        let stopped = CancellationToken::new();
        let waking = tokio::spawn(wake_leaning(hardened, (roots, one), leans, stopped.clone()));
        for away in [Some(Away::of("rampart-system")), None] {
            away_tx.send_replace(away);
            assert_eq!(woken.recv().await.unwrap().name, "leans");
        }
        stopped.cancel();
        waking.await.unwrap().unwrap();
        assert!(woken.recv().await.is_none(), "nobody else");
    }
}
