//! A proxy between the operator and the API server, which counts writes, kills in between, and refuses some.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Method, Request, Response, StatusCode},
};
use futures::FutureExt as _;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};

use crate::ControlPlane;

const MAX_BODY: usize = 32 << 20;

/// A running proxy; dropping it ends it.
pub struct Proxy {
    url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What is wrong with the lists of a resource, or with how it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFault {
    /// The body of a list ends in the middle.
    CutLists,
    /// Pages are short, and every one but the first fails.
    FailLaterPages,
    /// The API server does not say which resources there are.
    FailDiscovery,
}

impl ReadFault {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CutLists, Self::FailLaterPages, Self::FailDiscovery];
}

struct Shared {
    upstream: Client,
    faults: Mutex<Faults>,
    killed: Notify,
}

#[derive(Default)]
struct Faults {
    writes: Vec<String>,
    /// Kill this process after so many writes, or stop it.
    kill: Option<(usize, Pid, Signal)>,
    /// Refuse one of so many writes.
    refuse: Option<usize>,
    /// Writes that were asked for, made or not.
    asked: usize,
    refused: usize,
    reads: Option<(ReadFault, &'static str)>,
    failed_reads: usize,
}

impl Proxy {
    /// Starts a proxy before a control plane. Whoever talks to it authenticates by token.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(plane: &ControlPlane) -> Result<Self> {
        let kubeconfig = std::fs::read_to_string(plane.token_kubeconfig("proxy", plane.server(), "")?)?;
        let mut kubeconfig: Kubeconfig = serde_json::from_str(&kubeconfig)?;
        for user in &mut kubeconfig.auth_infos {
            user.auth_info = None;
        }
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        let upstream = Client::try_from(config)?;
        let shared = Arc::new(Shared { upstream, faults: Mutex::default(), killed: Notify::new() });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = Router::new().fallback(forward).with_state(shared.clone());
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, shared, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Forgets the writes so far, and kills `pid` once `after` more have reached the API server; the
    /// operator never hears of the last one.
    pub fn kill_after(&self, after: usize, pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let mut faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *faults = Faults { kill: pid.map(|pid| (after, pid, Signal::KILL)), ..Faults::default() };
        self.forget();
    }

    /// Forgets the writes so far, and stops `pid` (SIGSTOP) once `after` more have reached the API server; when it
    /// goes on, it hears of the last one.
    pub fn stop_after(&self, after: usize, pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let mut faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *faults = Faults { kill: pid.map(|pid| (after, pid, Signal::STOP)), ..Faults::default() };
        self.forget();
    }

    /// Nobody waits for a process any more that was killed before.
    fn forget(&self) {
        let _ = self.shared.killed.notified().now_or_never();
    }

    /// Forgets the writes so far, and from now on refuses every `nth`: it never reaches the API server.
    pub fn refuse_every(&self, nth: usize) {
        let mut faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *faults = Faults { refuse: Some(nth), ..Faults::default() };
    }

    /// Writes that were refused since the last reset.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).refused
    }

    /// Forgets the writes so far, kills nobody and refuses nothing.
    pub fn clear(&self) {
        *self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner) = Faults::default();
    }

    /// From now on, reading the objects of a resource by pages goes wrong in this way.
    pub fn fail_reads(&self, fault: Option<(ReadFault, &'static str)>) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).reads = fault;
    }

    /// Reads that went wrong.
    #[must_use]
    pub fn failed_reads(&self) -> usize {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).failed_reads
    }

    /// Waits until the process was killed, or stopped.
    pub async fn killed(&self) {
        self.shared.killed.notified().await;
    }

    /// The writes since the last reset: method and path.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).writes.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a request writes something that a story is about: the Lease is renewed by the clock.
fn is_write(request: &Request<Body>) -> bool {
    let method = request.method();
    let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
    writes && !request.uri().path().contains("/leases")
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let write = is_write(&request).then(|| format!("{} {}", request.method(), request.uri().path()));
    if let Some(answer) = write.as_ref().and_then(|_| refusal(&shared)) {
        return answer;
    }
    let (mut head, body) = request.into_parts();
    let fault = read_fault(&shared, &mut head);
    if fault.is_some_and(|fault| fault != ReadFault::CutLists) {
        return broken();
    }
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else { return broken() };
    let request = Request::from_parts(head, kube::client::Body::from(body.to_vec()));
    let Ok(answer) = shared.upstream.send(request).await else { return broken() };
    if let Some(write) = write.filter(|_| answer.status().is_success()) {
        let mut faults = shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.writes.push(write);
        if let Some((after, pid, signal)) = faults.kill
            && faults.writes.len() == after
        {
            let _ = kill_process(pid, signal);
            faults.kill = None;
            shared.killed.notify_one();
            if signal == Signal::KILL {
                return broken();
            }
        }
    }
    if fault == Some(ReadFault::CutLists) {
        let (head, body) = answer.into_parts();
        let Ok(body) = http_body_util::BodyExt::collect(body).await.map(http_body_util::Collected::to_bytes) else {
            return broken();
        };
        let mut cut = Response::new(Body::from(body.slice(..body.len() / 2)));
        if let Some(kind) = head.headers.get("content-type") {
            cut.headers_mut().insert("content-type", kind.clone());
        }
        return cut;
    }
    answer.map(Body::new)
}

/// What goes wrong with a read, if anything does. A first page that comes is made short.
fn read_fault(shared: &Shared, head: &mut axum::http::request::Parts) -> Option<ReadFault> {
    let mut faults = shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
    let (fault, resource) = faults.reads.filter(|_| head.method == Method::GET)?;
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
    let lists = path.ends_with(&format!("/{resource}")) && query.contains("limit=") && path.contains("/namespaces/");
    let fails = match fault {
        ReadFault::CutLists => lists,
        ReadFault::FailLaterPages => {
            if lists && let Some(at) = query.find("limit=") {
                let rest = query[at + 6..].trim_start_matches(|digit: char| digit.is_ascii_digit());
                let short = format!("{path}?{}limit=2{rest}", &query[..at]);
                head.uri = short.parse().unwrap_or_else(|_| head.uri.clone());
            }
            lists && query.contains("continue=")
        }
        ReadFault::FailDiscovery => path == "/api/v1",
    };
    faults.failed_reads += usize::from(fails);
    fails.then_some(fault)
}

/// The answer to a write whose turn it is to be refused: in turn one that clients repeat, and one that they don't.
fn refusal(shared: &Shared) -> Option<Response<Body>> {
    let mut faults = shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
    faults.asked += 1;
    if !faults.refuse.is_some_and(|nth| faults.asked.is_multiple_of(nth)) {
        return None;
    }
    faults.refused += 1;
    let code = if faults.refused.is_multiple_of(2) { 503 } else { 500 };
    let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": if code == 503 { "ServiceUnavailable" } else { "InternalError" }, "message": "refused by the test"});
    let answer = Response::builder().status(code).header("content-type", "application/json");
    answer.body(Body::from(status.to_string())).ok()
}

fn broken() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
