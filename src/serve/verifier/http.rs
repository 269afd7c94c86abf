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

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Request as Question, StatusCode},
    response::Response,
    routing::any,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Desk;
use crate::{
    keys::verify::{Answer, Credentials, Form, REMOVED, Request, Route, Verdict, answer},
    runtime::readiness::Gate,
};

struct Shared {
    desk: Desk,
    source: HeaderName,
}

/// The routes. Nothing is waited for between question and answer, and no body is read: there is nothing to time out.
/// `source` names the header in which the proxy writes the client's address.
pub fn router(desk: Desk, source: HeaderName) -> Router {
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
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    listens.open();
    axum::serve(listener, router(desk, source)).with_graceful_shutdown(stopped.cancelled_owned()).await?;
    Ok(())
}

async fn forwarded(State(shared): State<Arc<Shared>>, question: Question<Body>) -> Response {
    let headers = question.headers();
    shared.reply(headers, one(headers, "x-forwarded-method"), one(headers, "x-forwarded-uri"), Form::Plain)
}

async fn own(State(shared): State<Arc<Shared>>, question: Question<Body>) -> Response {
    let path = question.uri().path().strip_prefix("/check").unwrap_or_default();
    shared.reply(question.headers(), Stated::One(question.method().as_str()), Stated::One(path), Form::Plain)
}

async fn auth_request(State(shared): State<Arc<Shared>>, question: Question<Body>) -> Response {
    let headers = question.headers();
    shared.reply(headers, one(headers, "x-original-method"), one(headers, "x-original-uri"), Form::AuthRequest)
}

/// A header states nothing that can be relied upon.
struct Unclear;

/// What a header states.
enum Stated<'a> {
    Nothing,
    One(&'a str),
    /// Repeated, or no text: the client's hand may be in it.
    Unclear,
}

fn one<'a>(headers: &'a HeaderMap, name: &str) -> Stated<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) | (Some(Ok("")), None) => Stated::Nothing,
        (Some(Ok(value)), None) => Stated::One(value),
        _ => Stated::Unclear,
    }
}

impl Shared {
    fn reply(&self, headers: &HeaderMap, method: Stated<'_>, path: Stated<'_>, form: Form) -> Response {
        let envoy = matches!(form, Form::Plain);
        let route = ["x-rampart-audience", "x-rampart-permission", "x-rampart-customer"].map(|name| one(headers, name));
        let [Ok(audience), Ok(permission), Ok(customer)] = route.map(Stated::optional) else {
            return write(answer(&Verdict::Misrouted, form), envoy);
        };
        // Without the method a DELETE would be judged as the GET by which proxies ask.
        let (Stated::One(method), Stated::One(path)) = (method, path) else {
            return write(answer(&Verdict::Misrouted, form), envoy);
        };
        let mut credentials = Credentials::default();
        for name in REMOVED {
            for value in headers.get_all(name) {
                credentials.header(name, value.as_bytes());
            }
        }
        let source = match one(headers, self.source.as_str()) {
            Stated::One(address) => super::address(address),
            _ => None,
        };
        let request = Request { credentials, method, path, route: Route { audience, permission, customer }, source };
        write(self.desk.answer(&request, form), envoy)
    }
}

impl<'a> Stated<'a> {
    fn optional(self) -> Result<Option<&'a str>, Unclear> {
        match self {
            Self::Nothing => Ok(None),
            Self::One(value) => Ok(Some(value)),
            Self::Unclear => Err(Unclear),
        }
    }
}

fn write(answer: Answer, envoy: bool) -> Response {
    let admitted = answer.status == 200;
    let mut response = Response::new(answer.body.map_or_else(Body::empty, Body::from));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers_mut();
    for (name, value) in answer.identity.into_iter().chain(answer.client) {
        // What can't be a header is left empty rather than out: the client's own must not stay.
        let value = HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static(""));
        headers.insert(HeaderName::from_static(name), value);
    }
    if admitted && envoy {
        headers.insert("x-envoy-auth-headers-to-remove", HeaderValue::from_static("authorization,x-api-key"));
    }
    response
}
