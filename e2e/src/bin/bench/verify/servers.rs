//! The verifier, and servers that answer what it answers without a look at what is asked.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use axum::{Router, http::HeaderName, routing::any};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption},
        service::auth::v3::{
            CheckRequest, CheckResponse, OkHttpResponse,
            authorization_server::{Authorization, AuthorizationServer},
            check_response::HttpResponse,
        },
    },
    google::rpc,
};
use rampart_e2e::{operator::binary, ports::Port};
use tokio::net::TcpListener;

/// The argument with which the bench is a server of constants.
pub(crate) const CONSTANT: &str = "constant-verifier";

const IDENTITY: [(&str, &str); 4] = [
    ("x-apikey-id", "00000001"),
    ("x-apikey-owner", "customer-1"),
    ("x-apikey-role", "Editor"),
    ("x-apikey-scopes", "read write"),
];
const CLIENT: [(&str, &str); 2] = [
    (
        "ratelimit-policy",
        "\"second\";q=1000000;w=1, \"burst\";q=10000000;w=10, \"minute\";q=60000000;w=60, \
         \"hour\";q=900000000;w=3600, \"day\";q=900000000;w=86400",
    ),
    ("ratelimit", "\"second\";r=999999;t=1"),
];

/// A server in a process of its own; dropping it ends the process.
pub(super) struct Server {
    child: Child,
    pub(super) grpc: Port,
    pub(super) http: Port,
    /// Nobody else gets it meanwhile.
    _admin: Option<Port>,
}

impl Server {
    pub(super) fn verifier(records: &Path) -> Result<Self> {
        let [grpc, http, admin] = [Port::claim()?, Port::claim()?, Port::claim()?];
        let mut command = Command::new(binary()?);
        command
            .args(["verifier", "--shutdown-delay=0s", "--log=error"])
            .arg(format!("--index={}", records.display()))
            .arg(format!("--grpc-address=127.0.0.1:{}", grpc.number()))
            .arg(format!("--http-address=127.0.0.1:{}", http.number()))
            .arg(format!("--admin-address=127.0.0.1:{}", admin.number()));
        Ok(Self { child: quiet(command)?, grpc, http, _admin: Some(admin) })
    }

    pub(super) fn constant() -> Result<Self> {
        let [grpc, http] = [Port::claim()?, Port::claim()?];
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CONSTANT).args([&grpc, &http].map(|port| port.number().to_string()));
        Ok(Self { child: quiet(command)?, grpc, http, _admin: None })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until both ports are open.
    pub(super) fn answers(&self, deadline: Instant) -> Result<()> {
        for port in [&self.grpc, &self.http] {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).is_err() {
                ensure!(Instant::now() < deadline, "nobody listens");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }
}

fn quiet(mut command: Command) -> Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("starting a server")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Constant(CheckResponse);

#[tonic::async_trait]
impl Authorization for Constant {
    async fn check(&self, _: tonic::Request<CheckRequest>) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        Ok(tonic::Response::new(self.0.clone()))
    }
}

/// Serves constants: gRPC on one port, HTTP on the other.
pub(crate) async fn constant(ports: &[&str]) -> Result<bool> {
    let [grpc, http] = ports else { anyhow::bail!("two ports") };
    let [grpc, http] = [grpc, http].map(|port| port.parse().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    let option = |(key, value): (&str, &str)| HeaderValueOption {
        header: Some(HeaderValue { key: key.into(), value: value.into(), ..HeaderValue::default() }),
        ..HeaderValueOption::default()
    };
    let answer = CheckResponse {
        status: Some(rpc::Status::default()),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: IDENTITY.map(option).into(),
            headers_to_remove: vec!["authorization".into(), "x-api-key".into()],
            response_headers_to_add: CLIENT.map(option).into(),
            ..OkHttpResponse::default()
        })),
        ..CheckResponse::default()
    };
    let headers = || IDENTITY.into_iter().chain(CLIENT).map(|(key, value)| (HeaderName::from_static(key), value));
    let router =
        Router::new().fallback(any(async move || axum::response::AppendHeaders(headers().collect::<Vec<_>>())));
    let listener = TcpListener::bind(http?).await?;
    let serving = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(AuthorizationServer::new(Constant(answer)))
        .serve(grpc?);
    tokio::try_join!(async { Ok(serving.await?) }, async { anyhow::Ok(axum::serve(listener, router).await?) })?;
    Ok(true)
}
