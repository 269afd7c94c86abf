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
    future::ready,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hyper::{
    HeaderMap, Request as Question, StatusCode,
    body::{Bytes, Incoming},
    header::{HeaderName, HeaderValue},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Answered,
        connections::{Protocol, Server},
        of_status,
    },
    Desk, IDLE, PLACES,
};
use crate::{
    keys::verify::{Answer, Credentials, Form, REMOVED_LIST, Request, Route, Verdict, answer},
    runtime::{metrics::ConnectionMetrics, readiness::Gate},
};

/// The largest head: a question carries the headers of another request.
const MAX_HEAD: usize = 64 << 10;

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
    let shared = Arc::new(Shared { desk, source });
    // Nothing is waited for between question and answer, and no body is read: there is nothing to time out.
    let answer = move |question: Question<Incoming>, peer: SocketAddr| ready(Ok(shared.answer(&question, peer.ip())));
    let protocol = Protocol::Http1(MAX_HEAD);
    let server = Server { name: "http", protocol, tls: None, places: PLACES, idle: IDLE };
    server.serve(listener, connections, stopped, answer).await;
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

/// What all questions are answered by.
struct Shared {
    desk: Desk,
    /// The header in which the proxy writes the client's address.
    source: HeaderName,
}

impl Shared {
    /// By the path of a question; a peer put it.
    fn answer<B>(&self, question: &Question<B>, peer: IpAddr) -> Answered {
        let by = |names| Asked::by(question.headers(), names, &self.source);
        let (asked, form) = match question.uri().path() {
            "/check" => (by(["x-forwarded-method", "x-forwarded-uri"]), Form::Plain),
            "/auth_request" => (by(["x-original-method", "x-original-uri"]), Form::AuthRequest),
            path => match path.strip_prefix("/check") {
                Some(path) if path.starts_with('/') => {
                    let (method, path) = (Stated::One(question.method().as_str()), Stated::One(path));
                    (Asked { method, path, ..by(["", ""]) }, Form::Plain)
                }
                _ => return of_status(StatusCode::NOT_FOUND, Bytes::new()),
            },
        };
        self.reply(asked, form, peer)
    }

    fn reply(&self, asked: Asked<'_>, form: Form, peer: IpAddr) -> Answered {
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
        let source = self.desk.proxies.client(Some(peer), stated);
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

fn write(answer: Answer<'_>, envoy: bool) -> Answered {
    let admitted = answer.status == 200;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = of_status(status, answer.body.map_or_else(Bytes::new, Bytes::from));
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rstest::rstest;

    use super::{
        super::tests::{desk, key},
        *,
    };

    #[rstest]
    #[case::forwarded("/check?a=b", "x-forwarded", 200)]
    #[case::own("/check/orders", "none", 200)]
    #[case::root_of_its_own("/check/", "none", 200)]
    #[case::nginx("/auth_request", "x-original", 200)]
    #[case::forwarded_without_path("/check", "none", 503)]
    #[case::another_proxys_headers("/auth_request", "x-forwarded", 503)]
    #[case::other("/checks", "x-forwarded", 404)]
    #[case::below_nginx("/auth_request/orders", "x-original", 404)]
    #[case::none("/", "x-forwarded", 404)]
    fn a_question_is_read_by_its_path(#[case] path: &str, #[case] headers: &str, #[case] status: u16) {
        let shared = Shared { desk: desk(), source: HeaderName::from_static("x-rampart-source") };
        let question = Question::get(path)
            .header("x-api-key", key().expose())
            .header("x-rampart-audience", "orders-api")
            .header(format!("{headers}-method"), "GET")
            .header(format!("{headers}-uri"), "/orders")
            .body(())
            .unwrap();
        assert_eq!(shared.answer(&question, Ipv4Addr::LOCALHOST.into()).status(), status);
    }
}
