//! Rampart, as a process beside the control plane, with the rights of its own service account.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{ControlPlane, control_plane, fixtures, ports::Port, stories, wait};

/// User name under which the operator's writes stand in the audit log.
pub const USER: &str = "system:serviceaccount:rampart-system:rampart";

/// A running Rampart; dropping it kills the process.
pub struct Operator {
    child: Child,
    dir: PathBuf,
    ports: Ports,
}

/// The ports of an operator, which it keeps over restarts.
pub struct Ports {
    webhook: Port,
    admin: Port,
}

impl Ports {
    /// Claims them.
    ///
    /// # Errors
    /// When none is free.
    pub fn claim() -> Result<Self> {
        Ok(Self { webhook: Port::claim()?, admin: Port::claim()? })
    }

    /// Where the API server finds the webhook.
    #[must_use]
    pub fn webhook_url(&self) -> String {
        format!("https://127.0.0.1:{}/validate", self.webhook.number())
    }
}

/// The `rampart` binary, built now if it is out of date: with optimisation, for figures, the static one that ships.
///
/// `RAMPART_BIN` names another.
///
/// # Errors
/// When it can't be built.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RAMPART_BIN") {
        return Ok(path.into());
    }
    let root = fixtures::repository();
    let (mut build, path) = if cfg!(debug_assertions) {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--workspace", "--bin", "rampart"]);
        (build, "debug/rampart")
    } else {
        let mut build = Command::new(root.join("image/static"));
        build.arg("release").stdout(Stdio::null());
        (build, "release/rampart-static")
    };
    // What `cargo test` says of this package: build scripts that look at it would run again, and half of the
    // dependencies be built again, now and in the next `cargo test`.
    for (name, _) in std::env::vars_os() {
        let said = name.to_string_lossy();
        if said.starts_with("CARGO_PKG_") || said.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    if !build.current_dir(&root).status()?.success() {
        bail!("{path} could not be built");
    }
    Ok(std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join(path))
}

/// A kubeconfig of the service account that may do what controller and webhook may.
///
/// `server` is the API server, or a proxy before it.
///
/// # Errors
/// When the API server refuses something.
pub async fn kubeconfig(plane: &ControlPlane, server: &str) -> Result<PathBuf> {
    kubeconfig_of(plane, server, "rampart").await
}

/// A kubeconfig of a service account of the install namespace.
///
/// # Errors
/// When the API server refuses something.
pub async fn kubeconfig_of(plane: &ControlPlane, server: &str, account: &str) -> Result<PathBuf> {
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.client(), "rampart-system");
    let request = TokenRequest {
        spec: Some(TokenRequestSpec { expiration_seconds: Some(24 * 3600), ..TokenRequestSpec::default() }),
        ..TokenRequest::default()
    };
    let token = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let token = token.status.and_then(|status| status.token).context("a token request without a token")?;
    plane.token_kubeconfig(account, server, &token)
}

/// Waits until the API server has heard where the webhook is, and whose authority vouches for it.
///
/// # Errors
/// When it has not in time.
pub async fn webhook_answers(client: &Client) -> Result<()> {
    let policy = stories::hardening_policy("default", "Warn");
    let api = fixtures::api_of(client, &policy).await?;
    let params = PatchParams { dry_run: true, ..PatchParams::apply("test").force() };
    wait::until("the API server to reach the webhook", wait::SOON, || async {
        Ok(api.patch("hardened", &params, &Patch::Apply(&policy)).await.map(drop)?)
    })
    .await
}

impl Operator {
    /// Installs Rampart into a control plane and starts it; ready when this returns.
    ///
    /// # Errors
    /// When something is refused, or it is not ready in time.
    pub async fn install(plane: &ControlPlane, flags: &[&str]) -> Result<Self> {
        let ports = Ports::claim()?;
        fixtures::install(&plane.client(), &ports.webhook_url()).await?;
        let kubeconfig = kubeconfig(plane, plane.server()).await?;
        let operator = Self::start(plane.dir(), &kubeconfig, ports, flags)?;
        operator.ready().await?;
        webhook_answers(&plane.client()).await?;
        Ok(operator)
    }

    /// Starts a process. Its identity in leader election is always the same, as that of a restarted
    /// container is.
    ///
    /// # Errors
    /// When the binary can't be built or started.
    pub fn start(dir: &Path, kubeconfig: &Path, ports: Ports, flags: &[&str]) -> Result<Self> {
        Self::start_part("run", dir, kubeconfig, ports, flags)
    }

    /// As [`Operator::start`], with the subcommand `webhook` or `controller`.
    ///
    /// # Errors
    /// When the binary can't be built or started.
    pub fn start_part(part: &str, dir: &Path, kubeconfig: &Path, ports: Ports, flags: &[&str]) -> Result<Self> {
        Self::start_with(part, dir, kubeconfig, ports, flags, &[])
    }

    /// As [`Operator::start_part`], with an environment: that of a replica, or of a machine whose clock is wrong.
    ///
    /// # Errors
    /// When the binary can't be built or started.
    pub fn start_with(
        part: &str,
        dir: &Path,
        kubeconfig: &Path,
        ports: Ports,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command
            .arg(part)
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .env("RAMPART_IDENTITY", "e2e")
            .args(["--shutdown-delay=0s", "--webhook-names=127.0.0.1"])
            .arg(format!("--webhook-address=127.0.0.1:{}", ports.webhook.number()))
            .arg(format!("--admin-address=127.0.0.1:{}", ports.admin.number()))
            .args(flags)
            .envs(environment.iter().copied());
        let child = control_plane::spawn(dir, "rampart", command)?;
        Ok(Self { child, dir: dir.to_owned(), ports })
    }

    /// Waits until the process says that it is ready.
    ///
    /// # Errors
    /// When it ends, or is not ready in time; the text holds the end of its log.
    pub async fn ready(&self) -> Result<()> {
        wait::until("rampart to be ready", wait::SOON, || async {
            let (code, body) = self.admin("/readyz").await?;
            if code == 200 { Ok(()) } else { bail!("{}", body.trim()) }
        })
        .await
        .with_context(|| self.log_tail())
    }

    /// A page of the admin port: status code and body.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn admin(&self, path: &str) -> Result<(u16, String)> {
        let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
            .build_http::<http_body_util::Empty<hyper::body::Bytes>>();
        let uri = format!("http://127.0.0.1:{}{path}", self.ports.admin.number()).parse()?;
        let answer = tokio::time::timeout(Duration::from_secs(5), client.get(uri)).await??;
        let code = answer.status().as_u16();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
        Ok((code, String::from_utf8(body.to_vec())?))
    }

    /// Where the webhook listens.
    #[must_use]
    pub fn webhook_url(&self) -> String {
        self.ports.webhook_url()
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it logged, over restarts in the same directory.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.dir.join("rampart.log"))?)
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        control_plane::log_tail(&self.dir, "rampart")
    }

    /// Whether the process has ended, and how.
    ///
    /// # Errors
    /// When the system can't tell.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills the process at once, and gives its ports back for the next.
    ///
    /// # Errors
    /// When it can't be killed.
    pub fn kill(mut self) -> Result<Ports> {
        self.child.kill()?;
        self.child.wait()?;
        let ports = Ports { webhook: self.ports.webhook.share(), admin: self.ports.admin.share() };
        Ok(ports)
    }

    /// Asks the process to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(mut self) -> Result<std::process::ExitStatus> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process(pid, Signal::TERM)?;
        let child = std::cell::RefCell::new(&mut self.child);
        wait::until("rampart to end", wait::SOON, || async { child.borrow_mut().try_wait()?.context("it runs") }).await
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
