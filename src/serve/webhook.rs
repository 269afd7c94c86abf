//! The admission webhook: `POST` to `/validate`, `/enforce` and `/mutate`, over TLS, with limits on everything
//! that a client controls.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, State},
    http::{HeaderName, HeaderValue, Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use jiff::Timestamp;
use kube::Client;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower::{Service as _, ServiceBuilder};
use tower_http::{catch_panic::CatchPanicLayer, set_header::SetResponseHeaderLayer};
use tracing::Instrument as _;

use super::{
    body::{self, COMMON_ROOM, LARGE_ROOM, Room},
    connections::{MAX_HEAD, Protocol, Server, UNUSED, peer},
};
use crate::{
    admission::{BadReview, ENFORCE, MUTATE, Preview, Review, VALIDATE, decide, decide_api_key, fix, is_of_api_key},
    cluster::{
        pause::{Pauses, holds},
        pods,
        policy_index::PolicyIndex,
    },
    hardening::Enforcement,
    runtime::{
        clock,
        metrics::{Metrics, WebhookLabels},
        readiness::Readiness,
    },
};

/// The API server's own limit on an object is 3 MiB, and an update carries two of them.
const MAX_BODY: usize = 8 << 20;
/// Less than the three seconds after which the API server gives up: waiting for a turn and for the body included.
const REQUEST_DEADLINE: Duration = Duration::from_millis(2500);
/// For the pods that a change would refuse; Pod Security Admission takes no longer either.
const PREVIEW_DEADLINE: Duration = Duration::from_secs(1);
/// Previews under way at once: each reads up to 3,000 pods.
static PREVIEWS: Semaphore = Semaphore::const_new(4);
/// Reviews under way at once.
const MAX_IN_FLIGHT: usize = 128;
/// Open connections, of which one API server has half: it judges up to 600 requests at once (`--max-requests-inflight`
/// and `--max-mutating-requests-inflight`), each of which may ask on a connection of its own.
const PLACES: u16 = 1536;

/// What a handler needs.
pub struct Shared {
    /// For a namespace that is too new to be in the index.
    pub client: Client,
    /// Policies by namespace.
    pub policies: PolicyIndex,
    /// Whether enforcement is suspended.
    pub pauses: Pauses,
    /// Whether pods are judged at all.
    pub hardens: bool,
    /// Metrics.
    pub metrics: Metrics,
    /// Whether the process is about to end.
    pub readiness: Readiness,
}

/// What handlers share, and how much of it a review may take.
struct Service {
    shared: Shared,
    turns: Semaphore,
    room: Room,
    deadline: Duration,
}

/// The routes, without TLS.
pub fn router(shared: Shared) -> Router {
    let (turns, room) = (Semaphore::new(MAX_IN_FLIGHT), Room::new(COMMON_ROOM, LARGE_ROOM));
    routes(Service { shared, turns, room, deadline: REQUEST_DEADLINE })
}

fn routes(service: Service) -> Router {
    let panics = service.shared.metrics.webhook_panics.clone();
    let on_panic = move |_: Box<dyn std::any::Any + Send>| {
        panics.inc();
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    };
    let set = |name: HeaderName, value| SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value));
    // One layer for axum, which boxes and clones each by itself; the outermost first.
    let layers = ServiceBuilder::new()
        .layer(set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"))
        .layer(set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(CatchPanicLayer::custom(on_panic));
    Router::new()
        .route(VALIDATE, post(|service, request| serve_review(service, request, Path::Validate)))
        .route(ENFORCE, post(|service, request| serve_review(service, request, Path::Enforce)))
        .route(MUTATE, post(|service, request| serve_review(service, request, Path::Mutate)))
        .layer(layers)
        .with_state(Arc::new(service))
}

/// Serves until the process stops.
///
/// # Errors
/// When the address can't be bound.
pub async fn serve(
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    shared: Shared,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let connections = shared.metrics.connections.clone();
    let router = router(shared);
    let protocol = Protocol::Http1(MAX_HEAD);
    let server = Server { name: "webhook", protocol, tls: Some(tls), places: PLACES, idle: UNUSED };
    server
        .serve(listener, &connections, stopped, move |mut request, peer| {
            // Who asks may have no more than a share of the room for bodies.
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().call(request)
        })
        .await;
    Ok(())
}

/// Counts a request for as long as it is handled, and then what came of it.
struct Counted<'a> {
    metrics: &'a Metrics,
    path: Path,
    began: Instant,
    /// None yet where the handling panics, or the client is gone.
    code: Option<StatusCode>,
}

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics, path: Path) -> Self {
        metrics.webhook_in_flight.inc();
        Self { metrics, path, began: Instant::now(), code: None }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.webhook_in_flight.dec();
        let panicked = std::thread::panicking().then_some(StatusCode::INTERNAL_SERVER_ERROR);
        let Some(code) = self.code.or(panicked) else { return };
        let labels = WebhookLabels { webhook: self.path.as_str(), code: code.as_u16() };
        self.metrics.webhook_requests.get_or_create(&labels).inc();
        self.metrics.webhook_seconds.get_or_create(&labels).observe(self.began.elapsed().as_secs_f64());
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// A verdict.
    Validate,
    /// A verdict on a pod for which there is no other.
    Enforce,
    /// What is to be set in a pod.
    Mutate,
}

impl Path {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Validate => VALIDATE,
            Self::Enforce => ENFORCE,
            Self::Mutate => MUTATE,
        }
    }
}

async fn serve_review(State(service): State<Arc<Service>>, request: Request<Body>, path: Path) -> Response {
    let mut counted = Counted::new(&service.shared.metrics, path);
    let late = |_| (StatusCode::SERVICE_UNAVAILABLE, "the review was not answered in time\n").into_response();
    let peer = peer(request.extensions()).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let answered = tokio::time::timeout(service.deadline, answer(&service, (request.into_body(), peer), path)).await;
    let mut response = answered.unwrap_or_else(late);
    counted.code = Some(response.status());
    // The next review is to come to a replica that stays.
    if service.shared.readiness.is_shutting_down() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(service: &Service, (body, peer): (Body, IpAddr), path: Path) -> Response {
    let body = match body::read(body, MAX_BODY, (&service.room, peer)).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    // Only now: who sends slowly has no turn meanwhile.
    let _turn = service.turns.acquire().await;
    match review(&service.shared, &body.bytes, path).await {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(Failure::NotListed) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the policies have not been listed yet\n").into_response()
        }
        Err(Failure::NoPolicies(error)) => {
            // The API server takes it as a webhook that is away; the floor refuses what it must.
            tracing::warn!(%error, "the policies of a namespace could not be found");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
        Err(Failure::NoReview(error)) => {
            let span = tracing::info_span!("review");
            async { tracing::warn!(%error, "a request was not a review") }.instrument(span).await;
            (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
        }
    }
}

/// Why a review was not answered.
enum Failure {
    NoReview(BadReview),
    NotListed,
    NoPolicies(crate::cluster::Error),
}

async fn review(shared: &Shared, body: &[u8], path: Path) -> Result<Vec<u8>, Failure> {
    let began = Instant::now();
    let request = Review::parse(body).map_err(Failure::NoReview)?;
    // The Service sends nobody here before, but whoever goes around it must not hear that nothing is asked of a pod.
    let by_policies = if request.kind.group == crate::GROUP { is_of_api_key(&request) } else { shared.hardens };
    if by_policies && !shared.policies.is_listed() {
        return Err(Failure::NotListed);
    }
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let policies = if shared.hardens {
        shared.policies.of_namespace(&shared.client, namespace).await.map_err(Failure::NoPolicies)?
    } else {
        Arc::default()
    };
    let now = clock::now();
    let paused = holds(shared.pauses.borrow().as_ref(), now);
    let enforcement = if paused { Enforcement::Paused } else { Enforcement::InForce };
    let answer = match path {
        Path::Validate if is_of_api_key(&request) => {
            let caps = shared.policies.key_caps(&shared.client, namespace).await.map_err(Failure::NoPolicies)?;
            decide_api_key(&request, &caps)
        }
        Path::Validate => {
            let mut answer = decide(&request, &policies, enforcement, now);
            if answer.allowed
                && shared.hardens
                && let Some(preview) = Preview::of(&request, &shared.policies.known())
            {
                // Rare, and too large to be carried about with every review.
                answer.warnings.extend(Box::pin(previewed(shared, preview, began, now)).await);
            }
            shared.metrics.count_review(&request, &answer, &policies);
            answer
        }
        // The same pod is judged at the other path, too.
        Path::Enforce => decide(&request, &policies, enforcement, now),
        Path::Mutate => {
            let (answer, outcomes) = fix(&request, &policies, enforcement, now);
            shared.metrics.count_fixes(&outcomes);
            answer
        }
    };
    let (kind, namespace, name) = (&*request.kind.kind, request.namespace.as_deref(), request.name.as_deref());
    let (allowed, warnings) = (answer.allowed, answer.warnings.len());
    if !allowed || warnings > 0 {
        tracing::info!(request_id = &*request.uid, kind, namespace, name, allowed, warnings, "judged");
    } else {
        tracing::debug!(request_id = &*request.uid, kind, namespace, name, allowed, "judged");
    }
    answer.to_body(&request.uid).map_err(|error| Failure::NoReview(error.into()))
}

/// What a change of policies or labels would refuse of the pods that are there. That it can't be told is no reason
/// to refuse the change.
async fn previewed(shared: &Shared, mut preview: Preview, began: Instant, now: Timestamp) -> Vec<String> {
    // Pods that are being made must not wait for these.
    let Ok(_turn) = PREVIEWS.try_acquire() else {
        return vec!["existing pods were not checked: too many such changes are under way".into()];
    };
    let namespace = preview.namespace.clone();
    let listed =
        pods::list(&shared.client, namespace.as_deref(), (began + PREVIEW_DEADLINE).into(), |namespace, name, pod| {
            preview.judge((namespace, name), pod, now);
        });
    match listed.await {
        Ok((checked, total)) => preview.warnings(checked, total),
        Err(error) => {
            tracing::warn!(%error, "pods could not be listed for a preview");
            vec![format!("existing pods could not be checked: {error}")]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use axum::body::Bytes;
    use futures::stream;
    use tokio::sync::watch;
    use tower::ServiceExt as _;

    use super::*;
    use crate::cluster::client::tests::nobody;

    fn shared() -> Shared {
        Shared {
            client: nobody(),
            policies: PolicyIndex::default(),
            pauses: watch::channel(None).1,
            hardens: true,
            metrics: Metrics::default(),
            readiness: Readiness::default(),
        }
    }

    fn review(group: &str, kind: &str) -> Body {
        let review = serde_json::json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "kind": {"group": group, "version": "v1", "kind": kind}, "namespace": "shop", "name": "web",
                "operation": "CREATE", "object": {"metadata": {}, "spec": {"containers": [{"name": "main"}]}},
            },
        });
        review.to_string().into()
    }

    async fn ask(router: &Router, path: &str, body: Body) -> Response {
        router.clone().oneshot(Request::post(path).body(body).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn nothing_is_allowed_by_policies_that_were_not_listed() {
        let shared = shared();
        let policies = shared.policies.clone();
        let router = router(shared);
        let answers = async || {
            let pod = ask(&router, ENFORCE, review("", "Pod")).await.status().as_u16();
            let key = ask(&router, VALIDATE, review(crate::GROUP, "ApiKey")).await.status().as_u16();
            let policy = ask(&router, VALIDATE, review(crate::GROUP, "SecurityPolicy")).await.status().as_u16();
            (pod, key, policy)
        };
        assert_eq!(answers().await, (503, 503, 200));
        policies.mark_listed();
        assert_eq!(answers().await, (200, 200, 200));
    }

    #[tokio::test]
    async fn connections_end_with_the_next_answer_once_the_process_is_to_end() {
        let shared = shared();
        let readiness = shared.readiness.clone();
        let router = router(shared);
        let connection = async || ask(&router, ENFORCE, Body::empty()).await.headers().get(header::CONNECTION).cloned();
        assert_eq!(connection().await, None);
        readiness.shut_down();
        assert_eq!(connection().await, Some(HeaderValue::from_static("close")));
    }

    fn hurried(turns: usize) -> Service {
        let (turns, room) = (Semaphore::new(turns), Room::new(COMMON_ROOM, LARGE_ROOM));
        Service { shared: shared(), turns, room, deadline: Duration::from_millis(50) }
    }

    /// The code of an answer, and how many of this code are counted.
    async fn counted(service: Service, body: Body) -> (u16, u64) {
        let metrics = service.shared.metrics.clone();
        let code = ask(&routes(service), ENFORCE, body).await.status().as_u16();
        assert_eq!(metrics.webhook_in_flight.get(), 0);
        let labels = WebhookLabels { webhook: ENFORCE, code };
        (code, metrics.webhook_requests.get_or_create(&labels).get())
    }

    #[tokio::test]
    async fn what_gets_no_answer_in_time_is_answered_and_counted() {
        let endless = Body::from_stream(stream::pending::<std::io::Result<Bytes>>());
        assert_eq!(counted(hurried(1), endless).await, (503, 1), "a body that does not end");
        assert_eq!(counted(hurried(0), review("", "Pod")).await, (503, 1), "a turn that does not come");
    }

    #[tokio::test]
    async fn who_sends_slowly_takes_no_turn() {
        let service = Service { deadline: REQUEST_DEADLINE, ..hurried(1) };
        service.shared.policies.mark_listed();
        let router = routes(service);
        let endless = Body::from_stream(stream::pending::<std::io::Result<Bytes>>());
        let mut slow = std::pin::pin!(ask(&router, ENFORCE, endless));
        assert!(futures::poll!(slow.as_mut()).is_pending());
        assert_eq!(ask(&router, ENFORCE, review("", "Pod")).await.status(), 200);
    }

    #[test]
    fn what_clients_can_fill_leaves_the_pod_what_it_needs() {
        let values = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/charts/rampart/values.yaml"));
        let values: serde_json::Value = serde_saphyr::from_str(values).unwrap();
        let limit = values["webhook"]["resources"]["limits"]["memory"].as_str().unwrap();
        let limit = limit.strip_suffix("Mi").unwrap().parse::<usize>().unwrap() << 20;
        // As rustls bounds the messages of a handshake, and its records, which are kept until they are whole.
        let (handshake, record) = (64_usize << 10, 18_usize << 10);
        let connection = handshake.max(record + MAX_HEAD + body::FIRST);
        let filled = usize::from(PLACES) * connection + COMMON_ROOM + LARGE_ROOM;
        // At rest it has less than 40 MiB (README); the rest is what is made of reviews, and what is not given back at once.
        assert!(filled + (96 << 20) <= limit, "{filled} of {limit} bytes");
    }

    #[tokio::test]
    async fn what_panics_is_counted() {
        let broken = stream::poll_fn(|_| -> Poll<Option<std::io::Result<Bytes>>> { panic!("a body that panics") });
        assert_eq!(counted(hurried(1), Body::from_stream(broken)).await, (500, 1));
    }
}
