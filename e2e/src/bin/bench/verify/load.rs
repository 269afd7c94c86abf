//! Proxies that ask: Envoy over gRPC, many streams on few connections; and others over HTTP.

use std::{collections::HashMap, fmt, net::Ipv4Addr, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use envoy_types::pb::envoy::{
    config::core::v3::{Address, SocketAddress, address},
    service::auth::v3::{
        AttributeContext, CheckRequest,
        attribute_context::{HttpRequest, Peer, Request},
    },
};
use h2::client::SendRequest;
use hyper::body::Bytes;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    super::{load, webhook::is_whole},
    servers::Server,
};

/// Connections that carry all gRPC streams.
const CONNECTIONS: usize = 4;

#[derive(Clone, Copy)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "gRPC",
            Self::Http => "HTTP",
        })
    }
}

/// A server, and what it is asked, a key each.
pub(super) struct Target {
    protocol: Protocol,
    pid: u32,
    port: u16,
    requests: Arc<[Bytes]>,
}

impl Target {
    pub(super) fn new(protocol: Protocol, server: &Server, keys: &[String]) -> Self {
        let (port, request): (_, fn(&str) -> Bytes) = match protocol {
            Protocol::Grpc => (&server.grpc, grpc),
            Protocol::Http => (&server.http, http),
        };
        let requests = keys.iter().map(|key| request(key)).collect();
        Self { protocol, pid: server.pid(), port: port.number(), requests }
    }
}

/// What Envoy asks about a request of a browser's size.
fn grpc(key: &str) -> Bytes {
    let headers: HashMap<String, String> = [
        (":authority", "orders.example.com"),
        (":method", "GET"),
        (":path", "/orders?page=3"),
        (":scheme", "https"),
        ("accept", "application/json"),
        ("user-agent", "bench/1.0"),
        ("x-request-id", "5b1f6a52-2a5f-4a9e-9e3d-5b1f6a522a5f"),
        ("authorization", &format!("Bearer {key}")),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let peer = Peer {
        address: Some(Address {
            address: Some(address::Address::SocketAddress(SocketAddress {
                address: "192.0.2.1".into(),
                ..SocketAddress::default()
            })),
        }),
        ..Peer::default()
    };
    let http = HttpRequest { method: "GET".into(), path: "/orders?page=3".into(), headers, ..HttpRequest::default() };
    let message = CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer),
            request: Some(Request { http: Some(http), ..Request::default() }),
            context_extensions: [("audience".to_owned(), "orders-api".to_owned())].into(),
            ..AttributeContext::default()
        }),
    }
    .encode_to_vec();
    let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    [&[0], length.as_slice(), &message].concat().into()
}

fn http(key: &str) -> Bytes {
    format!(
        "GET /check/orders HTTP/1.1\r\nHost: verifier\r\nX-Rampart-Audience: orders-api\r\n\
         X-Rampart-Source: 192.0.2.1\r\nAuthorization: Bearer {key}\r\n\r\n"
    )
    .into()
}

/// One that asks about one key after the other.
pub(super) struct Asker {
    way: Way,
    requests: Arc<[Bytes]>,
    next: usize,
}

enum Way {
    Grpc(SendRequest<Bytes>),
    Http(TcpStream, Vec<u8>),
}

impl load::Target for Target {
    type Asker = Asker;

    fn pid(&self) -> u32 {
        self.pid
    }

    async fn askers(&self, count: usize) -> Result<Vec<Asker>> {
        let mut streams: Vec<SendRequest<Bytes>> = vec![];
        let mut askers = vec![];
        for nth in 0..count {
            let way = match self.protocol {
                Protocol::Http => Way::Http(self.connect().await?, Vec::with_capacity(1024)),
                Protocol::Grpc if streams.len() < CONNECTIONS => {
                    let (send, connection) = h2::client::handshake(self.connect().await?).await?;
                    tokio::spawn(connection);
                    streams.push(send.clone());
                    Way::Grpc(send)
                }
                Protocol::Grpc => Way::Grpc(streams[nth % CONNECTIONS].clone()),
            };
            let next = nth * self.requests.len() / count;
            askers.push(Asker { way, requests: self.requests.clone(), next });
        }
        Ok(askers)
    }
}

impl Target {
    async fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl load::Ask for Asker {
    async fn ask(&mut self) -> Result<()> {
        let request = self.requests[self.next % self.requests.len()].clone();
        self.next += 1;
        match &mut self.way {
            Way::Grpc(send) => ask_grpc(send, request).await,
            Way::Http(stream, answer) => {
                stream.write_all(&request).await?;
                answer.clear();
                while !is_whole(answer) {
                    ensure!(stream.read_buf(answer).await? > 0, "the server closed the connection");
                }
                ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(answer));
                Ok(())
            }
        }
    }
}

async fn ask_grpc(send: &mut SendRequest<Bytes>, message: Bytes) -> Result<()> {
    let head = ::http::Request::post("http://verifier/envoy.service.auth.v3.Authorization/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let mut ready = send.clone().ready().await?;
    let (answer, mut body) = ready.send_request(head, false)?;
    body.send_data(message, true)?;
    let mut answer = answer.await?.into_body();
    // The field of an answer that admits (`ok_response`, number 3) comes after the status.
    let mut admitted = false;
    while let Some(data) = answer.data().await {
        let data = data?;
        answer.flow_control().release_capacity(data.len())?;
        admitted |= data.contains(&0x1a);
    }
    let status = answer.trailers().await?.context("no trailers")?;
    ensure!(status.get("grpc-status").is_some_and(|status| status == "0") && admitted, "{status:?}");
    Ok(())
}
