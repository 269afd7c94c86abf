//! One instance of the control plane.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use kube::{
    Client, Config,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::{
    audit::{self, AuditLog},
    binaries::{self, Binaries, DEFAULT_KUBERNETES},
    leftovers,
    pki::{Authority, ClientCertificate},
    ports::Port,
    wait, witness,
};

/// What an instance consists of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Kubernetes version; `e2e/controlplane/kubernetes` lists what can be chosen.
    pub kubernetes: String,
    /// Whether controllers, scheduler and simulated nodes run: Jobs, Deployments, namespace
    /// deletion and garbage collection need them.
    pub controllers: bool,
    /// A directory of admission policies that the API server loads at its start (KEP-5793, from 1.37).
    pub static_admission: Option<PathBuf>,
    /// Address of this machine as a real node: the API server listens there, and no nodes are simulated.
    pub node: Option<Ipv4Addr>,
}

impl Default for Options {
    fn default() -> Self {
        let kubernetes = std::env::var("RAMPART_E2E_KUBERNETES").unwrap_or_else(|_| DEFAULT_KUBERNETES.into());
        Self { kubernetes, controllers: true, static_admission: None, node: None }
    }
}

impl Options {
    /// On the newest version, whichever the tests are run on.
    #[must_use]
    pub fn newest(self) -> Self {
        Self { kubernetes: DEFAULT_KUBERNETES.into(), ..self }
    }
}

/// A running control plane; dropping it ends every process and removes its directory.
pub struct ControlPlane {
    dir: PathBuf,
    children: Vec<(&'static str, Child)>,
    _ports: [Port; 3],
    server: String,
    authority: Authority,
    admin: ClientCertificate,
    client: Client,
}

const STAGES: &str = include_str!("../controlplane/kwok/stages.yaml");

impl ControlPlane {
    /// Starts an instance on free ports and waits until it is ready.
    ///
    /// # Errors
    /// When a program can't be built or ends early (the text holds the end of its log), or the
    /// instance is not ready in a minute.
    pub async fn start(options: &Options) -> Result<Self> {
        let kubernetes = options.kubernetes.clone();
        let binaries = tokio::task::spawn_blocking(move || binaries::ensure(&kubernetes)).await??;
        let dir = leftovers::new_state_dir()?;
        let ports = [Port::claim()?, Port::claim()?, Port::claim()?];
        let [etcd, peer, api] = [ports[0].number(), ports[1].number(), ports[2].number()];
        let authority = Authority::create(&dir)?;
        authority.serving(options.node)?;
        authority.service_accounts()?;
        authority.client("front-proxy", "front-proxy-client", None)?;
        let admin = authority.client("admin", "rampart-e2e", Some("system:masters"))?;
        let address = options.node.unwrap_or(Ipv4Addr::LOCALHOST);
        let server = format!("https://{address}:{api}");
        let client = client_for(&kubeconfig(&server, &authority.ca_pem, &certificate_user(&admin))).await?;

        let mut plane = Self { dir, children: vec![], _ports: ports, server, authority, admin, client };
        plane.start_etcd(&binaries, etcd, peer)?;
        plane.start_apiserver(&binaries, etcd, (address, api), options)?;
        plane.wait_ready().await?;
        if options.controllers {
            plane.start_controllers(&binaries, options.node.is_some())?;
        }
        if options.controllers && options.node.is_none() {
            plane.simulate_nodes(&binaries)?;
            plane.create_nodes().await?;
        }
        Ok(plane)
    }

    /// A client with every right.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Address of the API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The CA that signed the API server's certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.authority.ca_pem
    }

    /// Directory of the instance: certificates, logs, and room for those of tests.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a kubeconfig with every right, and tells where.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn admin_kubeconfig(&self) -> Result<PathBuf> {
        self.write_kubeconfig("admin", &self.server, &certificate_user(&self.admin))
    }

    /// Writes a kubeconfig that authenticates with a bearer token against `server`, which is the API
    /// server itself or a proxy before it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn token_kubeconfig(&self, name: &str, server: &str, token: &str) -> Result<PathBuf> {
        self.write_kubeconfig(name, server, &json!({"token": token}))
    }

    /// Writes a kubeconfig that authenticates as somebody with a certificate, and tells where.
    ///
    /// # Errors
    /// When a key can't be made or a file can't be written.
    pub fn certificate_kubeconfig(&self, name: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let certificate = self.authority.client(name, user, group)?;
        self.write_kubeconfig(name, &self.server, &certificate_user(&certificate))
    }

    /// Every write that reached the API server.
    #[must_use]
    pub fn audit(&self) -> AuditLog {
        AuditLog::at(self.dir.join("audit.log"))
    }

    fn write_kubeconfig(&self, name: &str, server: &str, user: &serde_json::Value) -> Result<PathBuf> {
        let path = self.dir.join(format!("{name}.kubeconfig"));
        let text = kubeconfig(server, &self.authority.ca_pem, user).to_string();
        // Whoever reads it meanwhile reads the old one or the new one.
        let mut new = tempfile::NamedTempFile::new_in(&self.dir)?;
        new.write_all(text.as_bytes())?;
        new.persist(&path).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    fn start_etcd(&mut self, binaries: &Binaries, port: u16, peer: u16) -> Result<()> {
        let (url, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let data = self.dir.join("etcd");
        let mut command = Command::new(&binaries.etcd);
        command
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            .args(["--unsafe-no-fsync", "--log-level=warn"]);
        self.spawn("etcd", command)
    }

    fn start_apiserver(
        &mut self,
        binaries: &Binaries,
        etcd: u16,
        (address, port): (Ipv4Addr, u16),
        options: &Options,
    ) -> Result<()> {
        let policy = self.dir.join("audit-policy.json");
        fs::write(&policy, audit::policy().to_string())?;
        let file = |name: &str| self.dir.join(name).display().to_string();
        let mut command = Command::new(&binaries.apiserver);
        command
            .arg(format!("--etcd-servers=http://127.0.0.1:{etcd}"))
            .args([format!("--bind-address={address}"), format!("--secure-port={port}")])
            .arg(format!("--tls-cert-file={}", file("apiserver.crt")))
            .arg(format!("--tls-private-key-file={}", file("apiserver.key")))
            .arg(format!("--client-ca-file={}", file("ca.crt")))
            .args(["--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC"])
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-account-key-file={}", file("sa.pub")))
            .arg(format!("--service-account-signing-key-file={}", file("sa.key")))
            .args(["--enable-admission-plugins=NodeRestriction", "--anonymous-auth=false"])
            .arg("--allow-privileged=true")
            .arg(format!("--requestheader-client-ca-file={}", file("ca.crt")))
            .arg("--requestheader-allowed-names=front-proxy-client")
            .arg(format!("--proxy-client-cert-file={}", file("front-proxy.crt")))
            .arg(format!("--proxy-client-key-file={}", file("front-proxy.key")))
            .arg(format!("--audit-policy-file={}", policy.display()))
            .arg(format!("--audit-log-path={}", file("audit.log")))
            .args(["--audit-log-maxsize=1000", "--audit-log-maxbackup=1"]);
        if options.node.is_some() {
            self.authority.client("kubelet-client", "rampart-e2e-kubelet-client", Some("system:masters"))?;
            command
                .arg(format!("--advertise-address={address}"))
                .arg("--kubelet-preferred-address-types=InternalIP")
                .arg(format!("--kubelet-client-certificate={}", file("kubelet-client.crt")))
                .arg(format!("--kubelet-client-key={}", file("kubelet-client.key")));
        }
        if let Some(dir) = &options.static_admission {
            let plugin = json!({
                "apiVersion": "apiserver.config.k8s.io/v1", "kind": "ValidatingAdmissionPolicyConfiguration",
                "staticManifestsDir": dir,
            });
            let configuration = json!({
                "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
                "plugins": [{"name": "ValidatingAdmissionPolicy", "configuration": plugin}],
            });
            fs::write(self.dir.join("admission.json"), configuration.to_string())?;
            command.arg(format!("--admission-control-config-file={}", file("admission.json")));
            command.arg("--feature-gates=ManifestBasedAdmissionControlConfig=true");
        }
        self.spawn("kube-apiserver", command)
    }

    fn start_controllers(&mut self, binaries: &Binaries, has_real_node: bool) -> Result<()> {
        let ca = self.dir.join("ca.crt").display().to_string();
        let key = |name: &str| self.dir.join(name).display().to_string();

        let config = self.component_kubeconfig("kube-controller-manager")?;
        let mut command = Command::new(&binaries.controller_manager);
        command
            .args(component_flags(&config))
            .arg(format!("--root-ca-file={ca}"))
            .arg(format!("--service-account-private-key-file={}", key("sa.key")))
            .arg("--use-service-account-credentials=true")
            .arg(format!("--cluster-signing-cert-file={ca}"))
            .arg(format!("--cluster-signing-key-file={}", key("ca.key")))
            .args(["--concurrent-job-syncs=5", "--secure-port=0"]);
        if !has_real_node {
            // The simulated nodes send no heartbeats, so that a cluster at rest writes nothing.
            command.arg("--controllers=*,-node-lifecycle-controller");
        }
        self.spawn("kube-controller-manager", command)?;

        let config = self.component_kubeconfig("kube-scheduler")?;
        let mut command = Command::new(&binaries.scheduler);
        command.args(component_flags(&config)).arg("--secure-port=0");
        self.spawn("kube-scheduler", command)
    }

    fn simulate_nodes(&mut self, binaries: &Binaries) -> Result<()> {
        let config = self.admin_kubeconfig()?;
        let stages = self.dir.join("stages.yaml");
        fs::write(&stages, STAGES)?;
        let mut command = Command::new(&binaries.kwok);
        command.arg(format!("--kubeconfig={}", config.display())).arg(format!("--config={}", stages.display())).args([
            "--manage-all-nodes=true",
            "--node-lease-duration-seconds=0",
            "--server-address=",
        ]);
        self.spawn("kwok", command)
    }

    fn component_kubeconfig(&self, name: &str) -> Result<PathBuf> {
        self.certificate_kubeconfig(name, &format!("system:{name}"), None)
    }

    /// Makes the simulated nodes; to make them again is what a restart of machines looks like to the API.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn create_nodes(&self) -> Result<()> {
        for name in ["node-a", "node-b"] {
            let node = serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
                "spec": {"podCIDR": if name == "node-a" { "10.244.0.0/24" } else { "10.244.1.0/24" }},
            }))?;
            let api = kube::Api::<k8s_openapi::api::core::v1::Node>::all(self.client());
            api.create(&PostParams::default(), &node).await?;
            // The API server taints a new node, and the controller that would untaint it does not run.
            let untainted = Patch::Merge(json!({"spec": {"taints": null}}));
            api.patch(name, &PatchParams::default(), &untainted).await?;
        }
        Ok(())
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let client = self.client();
        let children = std::cell::RefCell::new(&mut self.children);
        let dir = self.dir.clone();
        wait::until("the control plane to be ready", Duration::from_mins(3), || {
            let ended = children
                .borrow_mut()
                .iter_mut()
                .find_map(|(name, child)| child.try_wait().ok().flatten().map(|status| (*name, status)));
            let client = client.clone();
            let dir = &dir;
            async move {
                if let Some((name, status)) = ended {
                    bail!("{name} ended with {status}: {}", log_tail(dir, name));
                }
                let ready = http::Request::get("/readyz").body(vec![])?;
                client.request_text(ready).await?;
                // Service accounts and ConfigMaps of a namespace come right after.
                let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(client);
                namespaces.get("default").await?;
                Ok(())
            }
        })
        .await
    }

    fn spawn(&mut self, name: &'static str, mut command: Command) -> Result<()> {
        // Go's collector spends a sixth of the API server's time; instances are short-lived, and memory is there.
        command.env("GOGC", "off").env("GOMEMLIMIT", "768MiB");
        let child = spawn(&self.dir, name, command)?;
        self.children.push((name, child));
        Ok(())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for (_, child) in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        witness::take(&self.dir);
        if std::env::var_os("RAMPART_E2E_KEEP").is_none() {
            leftovers::remove(&self.dir);
        }
    }
}

/// Starts a process whose output goes to `NAME.log` in the instance's directory, recorded so that it
/// does not outlive a killed harness.
///
/// # Errors
/// When it can't be started.
pub fn spawn(dir: &Path, name: &str, mut command: Command) -> Result<Child> {
    let log = File::options().create(true).append(true).open(dir.join(format!("{name}.log")))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A Ctrl-C on the terminal is for the harness, which then stops its children itself.
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    leftovers::record(dir, name, i32::try_from(child.id())?)?;
    Ok(child)
}

/// The end of a process' log.
#[must_use]
pub fn log_tail(dir: &Path, name: &str) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(dir.join(format!("{name}.log"))) {
        let _ = file.read_to_string(&mut text);
    }
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(15)).fold(String::new(), |all, line| all + "\n" + line)
}

fn component_flags(kubeconfig: &Path) -> Vec<String> {
    let config = kubeconfig.display();
    vec![
        format!("--kubeconfig={config}"),
        format!("--authentication-kubeconfig={config}"),
        format!("--authorization-kubeconfig={config}"),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
    ]
}

fn certificate_user(certificate: &ClientCertificate) -> serde_json::Value {
    json!({"client-certificate-data": base64(&certificate.certificate), "client-key-data": base64(&certificate.key)})
}

fn kubeconfig(server: &str, ca_pem: &str, user: &serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
        "clusters": [{"name": "e2e", "cluster": {"server": server, "certificate-authority-data": base64(ca_pem)}}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
        "users": [{"name": "e2e", "user": user}],
    })
}

/// Kubernetes' own encoding of bytes in JSON is base64, so its type does the work.
fn base64(text: &str) -> serde_json::Value {
    json!(k8s_openapi::ByteString(text.as_bytes().to_vec()))
}

/// A client of the given kubeconfig.
async fn client_for(kubeconfig: &serde_json::Value) -> Result<Client> {
    let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig.clone())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
