//! Forward authentication: a request whose headers are those of the request in question.
//!
//! - `/check`: Traefik's `forwardAuth`, Caddy's `forward_auth` and their like; method and path come in
//!   `X-Forwarded-Method` and `X-Forwarded-Uri`.
//! - `/check/...`: Envoy's external authorisation over HTTP with `path_prefix: /check`; method and path are the
//!   question's own.
//! - `/auth_request`: nginx; method and path come in `X-Original-Method` and `X-Original-Uri`.
//!
//! The proxy states the route in `X-Rampart-Audience`, `-Permission` and `-Customer`, and must overwrite what clients
//! send under these names.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, State},
    http::{HeaderMap, HeaderName, HeaderValue, Request as Question, StatusCode},
    response::Response,
    routing::any,
};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::{
    super::connections::{Protocol, Server, peer},
    Desk, IDLE, PLACES,
};
use crate::{
    keys::verify::{Answer, Credentials, Form, REMOVED_LIST, Request, Route, Verdict, answer},
    runtime::{metrics::ConnectionMetrics, readiness::Gate},
};

/// The largest head: a question carries the headers of another request.
const MAX_HEAD: usize = 64 << 10;

struct Shared {
    desk: Desk,
    source: HeaderName,
}

/// The routes. Nothing is waited for between question and answer, and no body is read: there is nothing to time out.
/// `source` names the header in which the proxy writes the client's address.
fn router(desk: Desk, source: HeaderName) -> Router {
    Router::new()
        .route("/check", any(forwarded))
        .route("/check/{*path}", any(own))
        .route("/check/", any(own))
        .route("/auth_request", any(auth_request))
        .with_state(Arc::new(Shared { desk, source }))
}

/// Serves until the process stops; `listens` opens when it can be asked.
///
/// # Errors
/// When the address can't be bound.
pub async fn serve(
    address: SocketAddr,
    desk: Desk,
    source: HeaderName,
    listens: Gate,
    connections: ConnectionMetrics,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    listens.open();
    serve_on(listener, desk, source, &connections, stopped).await;
    Ok(())
}

pub(super) async fn serve_on(
    listener: TcpListener,
    desk: Desk,
    source: HeaderName,
    connections: &ConnectionMetrics,
    stopped: CancellationToken,
) {
    // Who asks is told to each question only where it is looked at.
    let by_peer = desk.proxies.are_known();
    let router = router(desk, source);
    let answer = move |mut question: Question<Incoming>, peer: SocketAddr| {
        if by_peer {
            question.extensions_mut().insert(ConnectInfo(peer));
        }
        router.clone().call(question)
    };
    let protocol = Protocol::Http1(MAX_HEAD);
    let server = Server { name: "http", protocol, tls: None, places: PLACES, idle: IDLE };
    server.serve(listener, connections, stopped, answer).await;
}

async fn forwarded(State(shared): State<Arc<Shared>>, question: Question<Body>) -> Response {
    let asked = Asked::by(question.headers(), ["x-forwarded-method", "x-forwarded-uri"], &shared.source);
    shared.reply(asked, Form::Plain, peer(question.extensions()))
}

async fn own(State(shared): State<Arc<Shared>>, question: Question<Body>) -> Response {
    let method = Stated::One(question.method().as_str());
    let path = Stated::One(question.uri().path().strip_prefix("/check").unwrap_or_default());
    let asked = Asked { method, path, ..Asked::by(question.headers(), ["", ""], &shared.source) };
    shared.reply(asked, Form::Plain, peer(question.extensions()))
}

async fn auth_request(State(shared): State<Arc<Shared>>, question: Question<Body>) -> Response {
    let asked = Asked::by(question.headers(), ["x-original-method", "x-original-uri"], &shared.source);
    shared.reply(asked, Form::AuthRequest, peer(question.extensions()))
}

/// A header states nothing that can be relied upon.
struct Unclear;

/// What a header states.
#[derive(Clone, Copy, Default)]
enum Stated<'a> {
    #[default]
    Nothing,
    One(&'a str),
    /// Repeated, or no text: the client's hand may be in it.
    Unclear,
}

/// What the headers of a question state.
#[derive(Default)]
struct Asked<'a> {
    credentials: Credentials<'a>,
    method: Stated<'a>,
    path: Stated<'a>,
    audience: Stated<'a>,
    permission: Stated<'a>,
    customer: Stated<'a>,
    source: Stated<'a>,
}

impl<'a> Asked<'a> {
    /// Reads them in one pass; method and path stand in the headers named.
    fn by(headers: &'a HeaderMap, [method, path]: [&str; 2], source: &HeaderName) -> Self {
        let mut asked = Self::default();
        for (name, value) in headers {
            if name == source {
                asked.source.and(value);
            }
            match name.as_str() {
                "x-rampart-audience" => asked.audience.and(value),
                "x-rampart-permission" => asked.permission.and(value),
                "x-rampart-customer" => asked.customer.and(value),
                name if name == method => asked.method.and(value),
                name if name == path => asked.path.and(value),
                name => asked.credentials.header(name, value.as_bytes()),
            }
        }
        asked
    }
}

impl Shared {
    fn reply(&self, asked: Asked<'_>, form: Form, peer: Option<IpAddr>) -> Response {
        let envoy = matches!(form, Form::Plain);
        let Asked { credentials, method, path, audience, permission, customer, source } = asked;
        let [Ok(audience), Ok(permission), Ok(customer)] = [audience, permission, customer].map(Stated::optional)
        else {
            return write(answer(&Verdict::Misrouted, form), envoy);
        };
        // Without the method a DELETE would be judged as the GET by which proxies ask.
        let (Ok(Some(method)), Ok(Some(path))) = (method.optional(), path.optional()) else {
            return write(answer(&Verdict::Misrouted, form), envoy);
        };
        let stated = source.optional().ok().flatten().and_then(super::address);
        let source = self.desk.proxies.client(peer, stated);
        let request = Request { credentials, method, path, route: Route { audience, permission, customer }, source };
        self.desk.answer(&request, form, |answer| write(answer, envoy))
    }
}

impl<'a> Stated<'a> {
    /// One more header of the name.
    fn and(&mut self, value: &'a HeaderValue) {
        *self = match (*self, value.to_str()) {
            (Self::Nothing, Ok(value)) => Self::One(value),
            _ => Self::Unclear,
        };
    }

    fn optional(self) -> Result<Option<&'a str>, Unclear> {
        match self {
            Self::Nothing | Self::One("") => Ok(None),
            Self::One(value) => Ok(Some(value)),
            Self::Unclear => Err(Unclear),
        }
    }
}

/// What Envoy must not hand on.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

fn write(answer: Answer<'_>, envoy: bool) -> Response {
    let admitted = answer.status == 200;
    let mut response = Response::new(answer.body.map_or_else(Body::empty, Body::from));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers_mut();
    // One for Envoy, and the date.
    headers.reserve(answer.identity.len() + answer.client.len() + 2);
    for (name, value) in answer.identity.into_iter().chain(answer.client) {
        // What can't be a header is left empty rather than out: the client's own must not stay.
        let value = HeaderValue::try_from(&*value).unwrap_or_else(|_| HeaderValue::from_static(""));
        headers.insert(name, value);
    }
    if admitted && envoy {
        headers.insert(TO_REMOVE, HeaderValue::from_static(REMOVED_LIST));
    }
    response
}
