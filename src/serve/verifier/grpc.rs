//! `envoy.service.auth.v3.Authorization/Check`.

use std::{net::SocketAddr, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption, address, header_value_option::HeaderAppendAction},
        service::auth::v3::{
            CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
            attribute_context::HttpRequest,
            authorization_server::{Authorization, AuthorizationServer},
            check_response::HttpResponse,
        },
        r#type::v3::HttpStatus,
    },
    google::rpc,
};
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

/// Serves until the process stops; `listens` opens when it can be asked.
///
/// # Errors
/// When the address can't be bound.
pub async fn serve(address: SocketAddr, desk: Desk, listens: Gate, stopped: CancellationToken) -> anyhow::Result<()> {
    let service = AuthorizationServer::new(desk).max_decoding_message_size(MAX_QUESTION);
    let mut server =
        Server::builder().http2_keepalive_interval(Some(Duration::from_secs(30))).max_concurrent_streams(1000);
    let listener = TcpIncoming::bind(address)?.with_nodelay(Some(true));
    listens.open();
    Ok(server.add_service(service).serve_with_incoming_shutdown(listener, stopped.cancelled()).await?)
}

#[tonic::async_trait]
impl Authorization for Desk {
    async fn check(&self, question: tonic::Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let attributes = question.into_inner().attributes.unwrap_or_default();
        let http = attributes.request.and_then(|request| request.http).unwrap_or_default();
        let stated =
            |name: &str| attributes.context_extensions.get(name).map(String::as_str).filter(|it| !it.is_empty());
        let source = attributes.source.and_then(|peer| peer.address).and_then(|address| address.address);
        let source = match &source {
            Some(address::Address::SocketAddress(socket)) => super::address(&socket.address),
            _ => None,
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
            source,
        };
        Ok(Response::new(self.answer(&request, Form::Plain, respond)))
    }
}

/// Envoy joins what came twice with a comma in the map, and leaves it apart in the list (`encode_raw_headers`).
fn credentials(http: &HttpRequest) -> Credentials<'_> {
    let mut found = Credentials::default();
    for header in http.header_map.iter().flat_map(|map| &map.headers) {
        let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        found.header(&header.key, value);
    }
    for name in REMOVED {
        if let Some(value) = http.headers.get(name) {
            found.header(name, value.as_bytes());
        }
    }
    found
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
