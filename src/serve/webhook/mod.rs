//! The admission webhook: `POST` to `/validate`, `/enforce` and `/mutate`, over TLS, with limits on everything
//! that a client controls.

mod review;

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::{Body, Bytes};
use kube::Client;
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::review::Failure;
use super::{
    Answered, TEXT, answered,
    body::{self, COMMON_ROOM, LARGE_ROOM, Room},
    connections::{MAX_HEAD, Protocol, Server, UNUSED},
    wrong_method,
};
use crate::{
    admission::{ENFORCE, MUTATE, VALIDATE},
    cluster::{pause::Pauses, policy_index::PolicyIndex},
    runtime::{
        metrics::{Metrics, WebhookLabels},
        readiness::Readiness,
    },
};

/// The API server's own limit on an object is 3 MiB, and an update carries two of them.
const MAX_BODY: usize = 8 << 20;
/// Less than the three seconds after which the API server gives up: waiting for a turn and for the body included.
const REQUEST_DEADLINE: Duration = Duration::from_millis(2500);
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

/// What all reviews are answered by, and how much of it each may take.
struct Service {
    shared: Shared,
    turns: Semaphore,
    room: Room,
    deadline: Duration,
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
    let service = Arc::new(Service::new(shared));
    let protocol = Protocol::Http1(MAX_HEAD);
    let server = Server { name: "webhook", protocol, tls: Some(tls), places: PLACES, idle: UNUSED };
    server
        .serve(listener, &connections, stopped, move |request, peer| {
            let service = Arc::clone(&service);
            async move { Ok(service.answer(request, peer.ip()).await) }
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
    fn of(path: &str) -> Option<Self> {
        [Self::Validate, Self::Enforce, Self::Mutate].into_iter().find(|it| it.as_str() == path)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Validate => VALIDATE,
            Self::Enforce => ENFORCE,
            Self::Mutate => MUTATE,
        }
    }
}

impl Service {
    fn new(shared: Shared) -> Self {
        let (turns, room) = (Semaphore::new(MAX_IN_FLIGHT), Room::new(COMMON_ROOM, LARGE_ROOM));
        Self { shared, turns, room, deadline: REQUEST_DEADLINE }
    }

    /// Answers what a peer asks.
    async fn answer<B>(&self, request: Request<B>, peer: IpAddr) -> Answered
    where
        B: Body<Data = Bytes, Error: Display> + Unpin,
    {
        let mut answer = match Path::of(request.uri().path()) {
            None => answered(StatusCode::NOT_FOUND, TEXT, ""),
            Some(_) if request.method() != Method::POST => wrong_method("POST", "reviews are sent by POST\n"),
            Some(path) => {
                // What panics has admitted nothing.
                let answering = AssertUnwindSafe(self.in_time(request.into_body(), peer, path)).catch_unwind();
                answering.await.unwrap_or_else(|_| {
                    self.shared.metrics.webhook_panics.inc();
                    answered(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "")
                })
            }
        };
        let headers = answer.headers_mut();
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // The next review is to come to a replica that stays.
        if self.shared.readiness.is_shutting_down() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Answers a review before the API server gives up, and counts it.
    async fn in_time<B>(&self, body: B, peer: IpAddr, path: Path) -> Answered
    where
        B: Body<Data = Bytes, Error: Display> + Unpin,
    {
        let mut counted = Counted::new(&self.shared.metrics, path);
        let answer = timeout(self.deadline, self.judge(body, peer, path)).await;
        let late = |_| answered(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the review was not answered in time\n");
        let answer = answer.unwrap_or_else(late);
        counted.code = Some(answer.status());
        answer
    }

    async fn judge<B>(&self, body: B, peer: IpAddr, path: Path) -> Answered
    where
        B: Body<Data = Bytes, Error: Display> + Unpin,
    {
        let body = match body::read(body, MAX_BODY, (&self.room, peer)).await {
            Ok(body) => body,
            Err((status, text)) => return answered(status, TEXT, text),
        };
        // Only now: who sends slowly has no turn meanwhile.
        let _turn = self.turns.acquire().await;
        match review::answer(&self.shared, &body.bytes, path).await {
            Ok(answer) => answered(StatusCode::OK, "application/json", answer),
            Err(Failure::NotListed) => {
                answered(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the policies have not been listed yet\n")
            }
            Err(Failure::NoPolicies(error)) => {
                // The API server takes it as a webhook that is away; the floor refuses what it must.
                tracing::warn!(%error, "the policies of a namespace could not be found");
                answered(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{error}\n"))
            }
            Err(Failure::NoReview(error)) => {
                let span = tracing::info_span!("review");
                async { tracing::warn!(%error, "a request was not a review") }.instrument(span).await;
                answered(StatusCode::BAD_REQUEST, TEXT, format!("{error}\n"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, net::Ipv4Addr, task::Poll};

    use futures::{Stream, stream};
    use http_body_util::{Empty, Full, StreamBody};
    use hyper::body::Frame;
    use rstest::rstest;
    use tokio::sync::watch;

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

    fn review(group: &str, kind: &str) -> Full<Bytes> {
        let review = serde_json::json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u", "kind": {"group": group, "version": "v1", "kind": kind}, "namespace": "shop", "name": "web",
                "operation": "CREATE", "object": {"metadata": {}, "spec": {"containers": [{"name": "main"}]}},
            },
        });
        review.to_string().into()
    }

    async fn ask<B>(service: &Service, path: &str, body: B) -> Answered
    where
        B: Body<Data = Bytes, Error: Display> + Unpin,
    {
        service.answer(Request::post(path).body(body).unwrap(), Ipv4Addr::LOCALHOST.into()).await
    }

    #[rstest]
    #[case::review(Method::POST, "/validate?timeout=3s", 400)]
    #[case::other_method(Method::GET, "/validate", 405)]
    #[case::below(Method::POST, "/validate/", 404)]
    #[case::none(Method::POST, "/", 404)]
    #[tokio::test]
    async fn a_request_is_answered_by_its_path(#[case] method: Method, #[case] path: &str, #[case] status: u16) {
        let request = Request::builder().method(method).uri(path).body(Empty::new()).unwrap();
        let answer = Service::new(shared()).answer(request, Ipv4Addr::LOCALHOST.into()).await;
        let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(answer.status(), status);
        assert_eq!(header(header::ALLOW), (status == 405).then_some("POST"));
        assert_eq!(header(header::X_CONTENT_TYPE_OPTIONS), Some("nosniff"));
        assert_eq!(header(header::STRICT_TRANSPORT_SECURITY), Some("max-age=31536000"));
    }

    #[tokio::test]
    async fn nothing_is_allowed_by_policies_that_were_not_listed() {
        let shared = shared();
        let policies = shared.policies.clone();
        let service = Service::new(shared);
        let answers = async || {
            let pod = ask(&service, ENFORCE, review("", "Pod")).await.status().as_u16();
            let key = ask(&service, VALIDATE, review(crate::GROUP, "ApiKey")).await.status().as_u16();
            let policy = ask(&service, VALIDATE, review(crate::GROUP, "SecurityPolicy")).await.status().as_u16();
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
        let service = Service::new(shared);
        let connection = async || ask(&service, ENFORCE, Empty::new()).await.headers().get(header::CONNECTION).cloned();
        assert_eq!(connection().await, None);
        readiness.shut_down();
        assert_eq!(connection().await, Some(HeaderValue::from_static("close")));
    }

    fn hurried(turns: usize) -> Service {
        let (turns, room) = (Semaphore::new(turns), Room::new(COMMON_ROOM, LARGE_ROOM));
        Service { shared: shared(), turns, room, deadline: Duration::from_millis(50) }
    }

    /// The code of an answer, and how many of this code are counted.
    async fn counted<B>(service: Service, body: B) -> (u16, u64)
    where
        B: Body<Data = Bytes, Error: Display> + Unpin,
    {
        let metrics = service.shared.metrics.clone();
        let code = ask(&service, ENFORCE, body).await.status().as_u16();
        assert_eq!(metrics.webhook_in_flight.get(), 0);
        let labels = WebhookLabels { webhook: ENFORCE, code };
        (code, metrics.webhook_requests.get_or_create(&labels).get())
    }

    fn streamed<S>(stream: S) -> StreamBody<S>
    where
        S: Stream<Item = io::Result<Frame<Bytes>>>,
    {
        StreamBody::new(stream)
    }

    #[tokio::test]
    async fn what_gets_no_answer_in_time_is_answered_and_counted() {
        let endless = streamed(stream::pending());
        assert_eq!(counted(hurried(1), endless).await, (503, 1), "a body that does not end");
        assert_eq!(counted(hurried(0), review("", "Pod")).await, (503, 1), "a turn that does not come");
    }

    #[tokio::test]
    async fn who_sends_slowly_takes_no_turn() {
        let service = Service { deadline: REQUEST_DEADLINE, ..hurried(1) };
        service.shared.policies.mark_listed();
        let endless = streamed(stream::pending());
        let mut slow = std::pin::pin!(ask(&service, ENFORCE, endless));
        assert!(futures::poll!(slow.as_mut()).is_pending());
        assert_eq!(ask(&service, ENFORCE, review("", "Pod")).await.status(), 200);
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
        let broken = stream::poll_fn(|_| -> Poll<Option<_>> { panic!("a body that panics") });
        assert_eq!(counted(hurried(1), streamed(broken)).await, (500, 1));
    }
}
