//! The verifier, as a process beside the control plane, with the rights of its own pod.

use std::{
    path::PathBuf,
    process::Child,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use http::{Request, header::HeaderMap};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, api::PostParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{ControlPlane, control_plane, operator::binary, ports::Port, wait};

/// How long it may take to end: who is killed before it has said that it ends is waited for by rotations.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// How long it may take to answer.
const ANSWERS: Duration = Duration::from_secs(10);

/// A running verifier; dropping it ends the process.
pub struct Verifier {
    child: Child,
    name: String,
    log: PathBuf,
    http: Port,
    grpc: Port,
    admin: Port,
    client: Http<HttpConnector, Empty<Bytes>>,
}

impl Verifier {
    /// Starts one as the pod `name` of the install namespace; it is ready when this returns. `server` is the API server,
    /// or a proxy before it.
    ///
    /// # Errors
    /// When something is refused, or it is not ready in time.
    pub async fn start(plane: &ControlPlane, server: &str, name: &str) -> Result<Self> {
        let token = token(plane, name).await?;
        let kubeconfig = plane.token_kubeconfig(name, server, &token)?;
        let [http, grpc, admin] = [Port::claim()?, Port::claim()?, Port::claim()?];
        let mut command = std::process::Command::new(binary()?);
        command
            .arg("verifier")
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .env("RAMPART_IDENTITY", name)
            .arg("--shutdown-delay=0s")
            .arg(format!("--http-address=127.0.0.1:{}", http.number()))
            .arg(format!("--grpc-address=127.0.0.1:{}", grpc.number()))
            .arg(format!("--admin-address=127.0.0.1:{}", admin.number()));
        let child = control_plane::spawn(plane.dir(), name, command)?;
        let client = Http::builder(TokioExecutor::new()).build_http();
        let log = plane.dir().join(format!("{name}.log"));
        let verifier = Self { child, name: name.into(), log, http, grpc, admin, client };
        wait::until("the verifier to be ready", wait::SOON, || async {
            let (code, body) = verifier.get(verifier.admin.number(), "/readyz", HeaderMap::new()).await?;
            if code == 200 { Ok(()) } else { bail!("{body}") }
        })
        .await
        .with_context(|| control_plane::log_tail(plane.dir(), name))?;
        Ok(verifier)
    }

    /// Asks about a GET with a key: the status that the proxy is told.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn ask(&self, key: &str) -> Result<u16> {
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", key.parse()?);
        headers.insert("x-rampart-audience", "orders-api".parse()?);
        Ok(self.get(self.http.number(), "/check/orders", headers).await?.0)
    }

    /// What it logged.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// A page of the admin port.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn admin(&self, path: &str) -> Result<(u16, String)> {
        self.get(self.admin.number(), path, HeaderMap::new()).await
    }

    async fn get(&self, port: u16, path: &str, headers: HeaderMap) -> Result<(u16, String)> {
        let mut request = Request::get(format!("http://127.0.0.1:{port}{path}")).body(Empty::new())?;
        *request.headers_mut() = headers;
        let answer = async {
            let answer = self.client.request(request).await?;
            let code = answer.status().as_u16();
            let body = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
            anyhow::Ok((code, String::from_utf8(body.to_vec())?))
        };
        let late = || format!("{} has not answered {path} in {ANSWERS:?}", self.name);
        tokio::time::timeout(ANSWERS, answer).await.with_context(late)?
    }

    /// Where other proxies ask.
    #[must_use]
    pub fn http_port(&self) -> u16 {
        self.http.number()
    }

    /// Where Envoy asks.
    #[must_use]
    pub fn grpc_port(&self) -> u16 {
        self.grpc.number()
    }

    /// Name of its pod, and of its report.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Verifier {
    /// Asks it to end, so that it says so: for a minute rotations wait for one that fell silent.
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + LAST_WORDS;
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A token of the verifier's account that is bound to a pod, as kubelet asks for it. The pod is made, and never runs.
///
/// # Errors
/// When the API server refuses something.
pub async fn token(plane: &ControlPlane, pod: &str) -> Result<String> {
    let client = plane.client();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "rampart-system");
    let made: Pod = serde_json::from_value(json!({
        "metadata": {"name": pod},
        "spec": {"serviceAccountName": "rampart-verifier", "schedulerName": "none",
                 "containers": [{"name": "verifier", "image": "rampart"}]},
    }))?;
    let uid = match pods.create(&PostParams::default(), &made).await {
        Err(kube::Error::Api(status)) if status.code == 409 => pods.get(pod).await?.metadata.uid,
        made => made?.metadata.uid,
    };
    let bound =
        BoundObjectReference { api_version: Some("v1".into()), kind: Some("Pod".into()), name: Some(pod.into()), uid };
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            bound_object_ref: Some(bound),
            expiration_seconds: Some(24 * 3600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client, "rampart-system");
    let token = accounts.create_token_request("rampart-verifier", &PostParams::default(), &request).await?;
    token.status.and_then(|status| status.token).context("a token request without a token")
}
