//! A real node beside the control plane: containerd, kubelet and kube-proxy as plain processes, and Calico, which
//! enforces NetworkPolicies. It needs root and some of Debian's packages, and no registry.
//!
//! - [`machine`] says what is needed; [`network`] makes the interfaces; [`remains`] clears it all from the kernel;
//! - `containerd`, `kubelet`, `proxy` and `calico` start a program each; [`image`] is what runs in pods;
//! - [`startups`] measures how fast what runs in pods is ready;
//! - [`agents`] dial from inside of pods, and from outside of the cluster.

pub mod agents;
mod calico;
mod containerd;
pub mod image;
mod kubelet;
pub mod machine;
pub mod network;
mod proxy;
pub mod remains;
pub mod startups;

use std::{
    cell::RefCell,
    fs,
    future::Future,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    ControlPlane, Options,
    binaries::{self, DEFAULT_KUBERNETES, NodeBinaries},
    control_plane::{self, log_tail},
    leftovers,
    ports::Port,
    wait,
};
use agents::Agent;

/// Name of the node.
pub const NAME: &str = "node";
/// What the agent outside of the cluster answers on, at each of its addresses.
pub const OUTSIDE_PORTS: [(u16, &str); 3] = [(80, "TCP"), (443, "TCP"), (53, "UDP")];

/// A control plane with one real node; dropping it ends every process, and leaves nothing in the kernel.
pub struct Node {
    parts: Parts,
    plane: ControlPlane,
    programs: NodeBinaries,
    _claim: machine::Claim,
}

impl Node {
    /// Starts both, and waits until pods can be made and policies are enforced.
    ///
    /// # Errors
    /// When this is not root, something is missing (the text names Debian's package), or a program ends or is not
    /// ready in time (the text holds the end of its log).
    pub async fn start() -> Result<Self> {
        let claim = machine::claim()?;
        let node = || binaries::ensure_node(DEFAULT_KUBERNETES);
        let programs = tokio::task::spawn_blocking(node).await??;
        let mut parts = Parts::new()?;
        network::create(parts.dir())?;
        let options = Options { node: Some(network::ADDRESS), ..Options::default() }.newest();
        let plane = ControlPlane::start(&options).await?;
        calico::configure(parts.dir(), &plane, &programs.calico)?;
        containerd::start(&mut parts, &programs.agent).await?;
        kubelet::start(&mut parts, &plane, &programs.kubelet).await?;
        calico::start(&mut parts, &plane, &programs.felix).await?;
        proxy::start(&mut parts, &plane, &programs.proxy).await?;
        let node = Self { parts, plane, programs, _claim: claim };
        node.start_outside().await
    }

    /// Ends kubelet, containerd and every container, as a machine does that loses its power; the control plane goes on, and
    /// so do kube-proxy and Calico.
    ///
    /// # Errors
    /// When one of the two does not run.
    pub fn lose_power(&mut self) -> Result<()> {
        self.parts.end("kubelet")?;
        self.parts.end("containerd")?;
        remains::end_containers(&self.parts.dir);
        Ok(())
    }

    /// Starts containerd and kubelet again, with what is on the disk.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn regain_power(&mut self) -> Result<()> {
        containerd::start(&mut self.parts, &self.programs.agent).await?;
        kubelet::start(&mut self.parts, &self.plane, &self.programs.kubelet).await
    }

    async fn start_outside(mut self) -> Result<Self> {
        let agent = self.programs.agent.clone();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", network::OUTSIDE_NAMESPACE]).arg(agent).arg("serve");
        command.arg(self.socket("outside"));
        for address in network::OUTSIDE {
            command.args(OUTSIDE_PORTS.map(|(port, protocol)| format!("{address}:{port}/{protocol}")));
        }
        self.parts.spawn("outside", command)?;
        self.outside().ready().await?;
        Ok(self)
    }

    /// The control plane.
    #[must_use]
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// Takes an image from an archive: pods may name it.
    ///
    /// # Errors
    /// When containerd refuses it.
    pub fn import(&self, archive: &Path) -> Result<()> {
        containerd::import(&self.parts.dir, archive)
    }

    /// Where pods find the directory of the agents' sockets, on the node.
    #[must_use]
    pub fn agents_dir(&self) -> PathBuf {
        self.parts.dir.join("agents")
    }

    /// The agent of this name.
    #[must_use]
    pub fn agent(&self, name: &str) -> Agent {
        Agent::at(&self.socket(name))
    }

    /// The agent outside of the cluster.
    #[must_use]
    pub fn outside(&self) -> Agent {
        self.agent("outside")
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.agents_dir().join(name)
    }

    /// The end of a program's log: `kubelet`, `felix`, `containerd` or `kube-proxy`.
    #[must_use]
    pub fn log_tail(&self, program: &str) -> String {
        log_tail(&self.parts.dir, program)
    }
}

/// The programs of a node, while they are started and ended.
pub(crate) struct Parts {
    dir: PathBuf,
    children: Vec<(&'static str, Child)>,
    ports: Vec<Port>,
}

impl Parts {
    fn new() -> Result<Self> {
        let dir = leftovers::new_state_dir()?;
        remains::mark(&dir)?;
        fs::create_dir(dir.join("agents"))?;
        Ok(Self { dir, children: vec![], ports: vec![] })
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn claim_port(&mut self) -> Result<u16> {
        let port = Port::claim()?;
        let number = port.number();
        self.ports.push(port);
        Ok(number)
    }

    /// Kills a program.
    fn end(&mut self, name: &str) -> Result<()> {
        let at =
            self.children.iter().position(|(it, _)| *it == name).with_context(|| format!("{name} does not run"))?;
        let (_, mut child) = self.children.remove(at);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn spawn(&mut self, name: &'static str, command: Command) -> Result<()> {
        self.children.push((name, control_plane::spawn(&self.dir, name, command)?));
        Ok(())
    }

    /// Waits for what a program shall do; the error holds the end of its log.
    async fn until<F, Fut>(&mut self, what: &str, name: &str, probe: F) -> Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let children = RefCell::new(&mut self.children);
        let ended = || {
            let mut children = children.borrow_mut();
            children.iter_mut().find(|(it, _)| *it == name).and_then(|(_, child)| child.try_wait().ok().flatten())
        };
        let waited = wait::until(what, Duration::from_mins(3), || {
            let (ended, probe) = (ended(), probe());
            async move {
                match ended {
                    Some(status) => Ok(Err(anyhow::anyhow!("{name} ended with {status}"))),
                    None => probe.await.map(Ok),
                }
            }
        });
        match waited.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) | Err(error) => bail!("{error:#}: {}", log_tail(&self.dir, name)),
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for (_, child) in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::env::var_os("RAMPART_E2E_KEEP").is_some() {
            remains::clear(&self.dir, &[]);
        } else {
            leftovers::remove(&self.dir);
        }
    }
}
