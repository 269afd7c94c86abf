//! `envoy.service.auth.v3.Authorization/Check`.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    task::Poll,
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption, address, header_value_option::HeaderAppendAction},
        service::auth::v3::{
            CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
            attribute_context::{HttpRequest, Peer},
            authorization_server::{Authorization, AuthorizationServer},
            check_response::HttpResponse,
        },
        r#type::v3::HttpStatus,
    },
    google::rpc,
};
use http::HeaderName;
use hyper::body::Incoming;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status, body::Body};
use tower::Service as _;

use super::{
    super::{
        connections::{Protocol, Server},
        pool::Pool,
    },
    Desk, IDLE, MAX_QUESTION, PLACES,
};
use crate::{
    keys::verify::{Answer, Credentials, Form, Header, REMOVED, Request, Route},
    runtime::{metrics::ConnectionMetrics, readiness::Gate},
};

/// From the head of a question to the end of its body.
const QUESTION: Duration = Duration::from_secs(5);
/// Questions that are not whole when they are first looked at: few are, and each may fill as much memory as the largest.
/// No address has more than half of these turns.
static SLOW: Pool = Pool::new(256, 128);

struct Shared {
    desk: Desk,
    source: Option<HeaderName>,
}

/// Serves until the process stops; `listens` opens when it can be asked. `source` names the header in which the proxy
/// writes the client's address; without it, that is the one that Envoy's connection comes from.
///
/// # Errors
/// When the address can't be bound.
pub async fn serve(
    address: SocketAddr,
    desk: Desk,
    source: Option<HeaderName>,
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
    source: Option<HeaderName>,
    connections: &ConnectionMetrics,
    stopped: CancellationToken,
) {
    // Who asks is told to each question only where it is looked at.
    let by_peer = desk.proxies.are_known();
    let service = AuthorizationServer::new(Shared { desk, source }).max_decoding_message_size(MAX_QUESTION);
    let answer = move |mut question: http::Request<Incoming>, peer: SocketAddr| {
        if by_peer {
            question.extensions_mut().insert(peer);
        }
        in_time(service.clone().call(question), (&SLOW, peer.ip()))
    };
    let server = Server { name: "grpc", protocol: Protocol::Http2, tls: None, places: PLACES, idle: IDLE };
    server.serve(listener, connections, stopped, answer).await;
}

/// The answer, unless the question does not come to its end. Where it is whole at once there is no timer, and nobody is
/// asked for a turn.
async fn in_time<A>(mut answering: A, (slow, peer): (&Pool, IpAddr)) -> Result<http::Response<Body>, Infallible>
where
    A: Future<Output = Result<http::Response<Body>, Infallible>> + Unpin,
{
    if let Poll::Ready(answered) = futures::poll!(&mut answering) {
        return answered;
    }
    let Some(_turn) = slow.take(peer, 1) else {
        return Ok(Status::unavailable("too many questions are not whole").into_http());
    };
    let late = |_| Ok(Status::deadline_exceeded("the question was not whole in time").into_http());
    timeout(QUESTION, answering).await.unwrap_or_else(late)
}

#[tonic::async_trait]
impl Authorization for Shared {
    async fn check(&self, question: tonic::Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let peer = question.extensions().get::<SocketAddr>().map(SocketAddr::ip);
        let attributes = question.into_inner().attributes.unwrap_or_default();
        let http = attributes.request.and_then(|request| request.http).unwrap_or_default();
        let stated =
            |name: &str| attributes.context_extensions.get(name).map(String::as_str).filter(|it| !it.is_empty());
        let stated_source = match &self.source {
            Some(name) => stated_source(&http, name),
            None => attributes.source.as_ref().and_then(connected),
        };
        let request = Request {
            credentials: credentials(&http),
            method: &http.method,
            path: &http.path,
            route: Route {
                audience: stated("audience"),
                permission: stated("permission"),
                customer: stated("customer"),
            },
            source: self.desk.proxies.client(peer, stated_source),
        };
        Ok(Response::new(self.desk.answer(&request, Form::Plain, respond)))
    }
}

/// Envoy joins what came twice with a comma in the map, and leaves it apart in the list (`encode_raw_headers`).
fn credentials(http: &HttpRequest) -> Credentials<'_> {
    let mut found = Credentials::default();
    for header in listed(http) {
        found.header(&header.key, value(header));
    }
    for name in REMOVED {
        if let Some(value) = http.headers.get(name) {
            found.header(name, value.as_bytes());
        }
    }
    found
}

fn listed(http: &HttpRequest) -> impl Iterator<Item = &HeaderValue> {
    http.header_map.iter().flat_map(|map| &map.headers)
}

fn value(header: &HeaderValue) -> &[u8] {
    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }
}

/// Where the connection comes from: with a proxy before Envoy, that is the proxy, whatever `X-Forwarded-For` says.
fn connected(peer: &Peer) -> Option<IpAddr> {
    match peer.address.as_ref()?.address.as_ref()? {
        address::Address::SocketAddress(socket) => super::address(&socket.address),
        _ => None,
    }
}

/// What stands in a header: nothing, where the client's hand may be in it.
fn stated_source(http: &HttpRequest, name: &HeaderName) -> Option<IpAddr> {
    let apart = listed(http).filter(|header| header.key == name.as_str()).map(value);
    let mut values = apart.chain(http.headers.get(name.as_str()).map(String::as_bytes));
    let (only, repeated) = (values.next()?, values.next());
    std::str::from_utf8(only).ok().filter(|_| repeated.is_none()).and_then(super::address)
}

fn respond(answer: Answer<'_>) -> CheckResponse {
    let (code, response) = match answer.status {
        200 => (Code::Ok, HttpResponse::OkResponse(admitted(answer))),
        // By this Envoy tells what broke from what was refused.
        503 => (Code::Unavailable, HttpResponse::ErrorResponse(refused(answer))),
        401 => (Code::Unauthenticated, HttpResponse::DeniedResponse(refused(answer))),
        429 => (Code::ResourceExhausted, HttpResponse::DeniedResponse(refused(answer))),
        _ => (Code::PermissionDenied, HttpResponse::DeniedResponse(refused(answer))),
    };
    CheckResponse {
        status: Some(rpc::Status { code: code.into(), ..rpc::Status::default() }),
        dynamic_metadata: None,
        http_response: Some(response),
    }
}

fn admitted(answer: Answer<'_>) -> OkHttpResponse {
    OkHttpResponse {
        headers: headers(answer.identity),
        headers_to_remove: REMOVED.map(Into::into).into(),
        response_headers_to_add: headers(answer.client),
        ..OkHttpResponse::default()
    }
}

fn refused(answer: Answer<'_>) -> DeniedHttpResponse {
    DeniedHttpResponse {
        status: Some(HttpStatus { code: answer.status.into() }),
        headers: headers(answer.client),
        body: answer.body.unwrap_or_default(),
    }
}

/// Overwriting: what the client sent under these names never stays.
fn headers(headers: Vec<Header<'_>>) -> Vec<HeaderValueOption> {
    let header = |(key, value): Header<'_>| HeaderValueOption {
        header: Some(HeaderValue { key: key.as_str().into(), value: value.into_owned(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: true,
        ..HeaderValueOption::default()
    };
    headers.into_iter().map(header).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use envoy_types::pb::envoy::config::core::v3::HeaderMap;

    use super::*;

    const SOURCE: HeaderName = HeaderName::from_static("x-rampart-source");

    fn apart(values: &[&str]) -> HttpRequest {
        let header = |value: &&str| HeaderValue {
            key: SOURCE.as_str().into(),
            raw_value: value.as_bytes().to_vec(),
            ..HeaderValue::default()
        };
        let headers = values.iter().map(header).collect();
        HttpRequest { header_map: Some(HeaderMap { headers }), ..HttpRequest::default() }
    }

    type Answered = Result<http::Response<Body>, Infallible>;

    fn peer(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    /// A question that does not come to its end.
    fn never() -> std::future::Pending<Answered> {
        std::future::pending()
    }

    fn code(answered: Answered) -> http::HeaderValue {
        answered.unwrap().headers()["grpc-status"].clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_does_not_come_to_its_end_is_answered() {
        let (none, one) = (Pool::new(0, 0), Pool::new(1, 1));
        let whole = std::future::ready(Ok(http::Response::new(Body::default())));
        assert!(in_time(whole, (&none, peer(1))).await.unwrap().headers().is_empty(), "it takes no turn");
        let began = tokio::time::Instant::now();
        assert_eq!(code(in_time(never(), (&none, peer(1))).await), "14", "UNAVAILABLE: too many are slow");
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(code(in_time(never(), (&one, peer(1))).await), "4", "DEADLINE_EXCEEDED");
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_leaves_turns_to_others() {
        let turns = Pool::new(2, 1);
        let mut slow = Box::pin(in_time(never(), (&turns, peer(1))));
        assert!(futures::poll!(&mut slow).is_pending());
        assert_eq!(code(in_time(never(), (&turns, peer(1))).await), "14", "UNAVAILABLE: its address has half of them");
        assert_eq!(code(in_time(never(), (&turns, peer(2))).await), "4", "DEADLINE_EXCEEDED: it had a turn");
        assert_eq!(code(slow.await), "4");
        assert_eq!(code(in_time(never(), (&turns, peer(1))).await), "4", "it has one again");
    }

    #[test]
    fn the_address_that_the_proxy_states_once_is_the_clients() {
        let address = |http: &HttpRequest| stated_source(http, &SOURCE).map(|it| it.to_string());
        let mapped = |value: &str| HttpRequest {
            headers: [(SOURCE.as_str().to_owned(), value.to_owned())].into(),
            ..HttpRequest::default()
        };
        for one in [apart(&["192.0.2.7"]), mapped("192.0.2.7"), mapped("192.0.2.7:4711")] {
            assert_eq!(address(&one).as_deref(), Some("192.0.2.7"));
        }
        for none in [apart(&[]), apart(&["192.0.2.7", "192.0.2.8"]), mapped("192.0.2.7,192.0.2.8"), mapped("me")] {
            assert_eq!(address(&none), None);
        }
    }
}
