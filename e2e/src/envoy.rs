//! A real Envoy before verifiers and a service, configured as `docs/verifier/envoy-grpc.yaml` says.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{control_plane, fixtures, ports::Port, wait};

/// The line of the configuration that names the verifier.
const VERIFIER: &str = "address: rampart-verifier.rampart-system, port_value: 9001";
/// How long Envoy waits for the verifier.
const DOCUMENTED_WAIT: &str = "timeout: 0.5s";
/// How long it waits here: a machine that stands still for a second refuses nobody's key.
const WAIT: &str = "timeout: 10s";

/// A running Envoy and the service behind it; dropping it ends both.
pub struct Envoy {
    child: Child,
    port: Port,
    service: JoinHandle<()>,
    client: Http<HttpConnector, Empty<Bytes>>,
}

impl Envoy {
    /// The program that `RAMPART_ENVOY` names, if it names one.
    #[must_use]
    pub fn binary() -> Option<PathBuf> {
        std::env::var_os("RAMPART_ENVOY").map(PathBuf::from)
    }

    /// Starts one that asks the verifiers at these ports in turn; it serves when this returns. `dir` has room for its
    /// files.
    ///
    /// # Errors
    /// When the documented configuration is not as expected, or Envoy does not serve in time.
    pub async fn start(binary: &Path, dir: &Path, verifiers: &[u16]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let behind = listener.local_addr()?.port();
        let router = Router::new().fallback(async || StatusCode::OK);
        let service = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        let port = Port::claim()?;
        let text = std::fs::read_to_string(fixtures::repository().join("docs/verifier/envoy-grpc.yaml"))?;
        let config = dir.join("envoy.yaml");
        std::fs::write(&config, put_in(&text, port.number(), behind, verifiers)?)?;
        let mut command = Command::new(binary);
        command.arg("-c").arg(&config).args(["--log-level", "error", "--concurrency", "1", "--base-id"]);
        command.arg(port.number().to_string());
        let child = control_plane::spawn(dir, "envoy", command)?;
        let client = Http::builder(TokioExecutor::new()).build_http();
        let envoy = Self { child, port, service, client };
        // As long as it knows no verifier, the service is unavailable.
        wait::until("Envoy to serve", wait::SOON, || async {
            let status = envoy.ask("").await?;
            Ok(ensure!(status != 503, "it says {status}"))
        })
        .await
        .with_context(|| control_plane::log_tail(dir, "envoy"))?;
        Ok(envoy)
    }

    /// A GET of the service with a key: the status that its client gets.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn ask(&self, key: &str) -> Result<u16> {
        let mut request = Request::get(format!("http://127.0.0.1:{}/orders", self.port.number()));
        if !key.is_empty() {
            request = request.header("x-api-key", key);
        }
        let answer = self.client.request(request.body(Empty::new())?).await?;
        let code = answer.status().as_u16();
        http_body_util::BodyExt::collect(answer.into_body()).await?;
        Ok(code)
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.service.abort();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts true addresses in the place of the documented ones, has it wait for longer, and changes nothing else.
fn put_in(text: &str, port: u16, service: u16, verifiers: &[u16]) -> Result<String> {
    let line = text.lines().find(|line| line.contains(VERIFIER)).context("no line that names the verifier")?;
    let endpoint = |port: &u16| line.replace(VERIFIER, &format!("address: 127.0.0.1, port_value: {port}"));
    let endpoints: Vec<String> = verifiers.iter().map(endpoint).collect();
    let text = text
        .replace(line, &endpoints.join("\n"))
        .replace(DOCUMENTED_WAIT, WAIT)
        .replace("address: 0.0.0.0, port_value: 8080", &format!("address: 127.0.0.1, port_value: {port}"))
        .replace("address: orders.shop, port_value: 8000", &format!("address: 127.0.0.1, port_value: {service}"));
    ensure!(!text.contains("shop") && !text.contains("rampart-system"), "an address is left:\n{text}");
    ensure!(text.contains(WAIT), "not \"{DOCUMENTED_WAIT}\":\n{text}");
    Ok(text)
}
