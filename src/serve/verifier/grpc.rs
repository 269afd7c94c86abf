//! `envoy.service.auth.v3.Authorization/Check`.

use std::{
    net::{IpAddr, SocketAddr},
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
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use super::{Desk, MAX_QUESTION};
use crate::{
    keys::verify::{Answer, Credentials, Form, Header, REMOVED, Request, Route},
    runtime::readiness::Gate,
};

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
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let service = AuthorizationServer::new(Shared { desk, source }).max_decoding_message_size(MAX_QUESTION);
    let mut server =
        Server::builder().http2_keepalive_interval(Some(Duration::from_secs(30))).max_concurrent_streams(1000);
    let listener = TcpIncoming::bind(address)?.with_nodelay(Some(true));
    listens.open();
    Ok(server.add_service(service).serve_with_incoming_shutdown(listener, stopped.cancelled()).await?)
}

#[tonic::async_trait]
impl Authorization for Shared {
    async fn check(&self, question: tonic::Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let peer = question.remote_addr().map(|peer| peer.ip());
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
