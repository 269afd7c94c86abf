//! containerd, as a process with a root, a state and a socket of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{Parts, calico, image, machine::run};
use crate::wait;

/// Its socket.
pub(super) fn socket(dir: &Path) -> PathBuf {
    dir.join("containerd.sock")
}

/// Starts it with the one image there is.
///
/// # Errors
/// When it does not answer in time; the text holds the end of its log.
pub(super) async fn start(parts: &mut Parts, agent: &Path) -> Result<()> {
    let dir = parts.dir().to_owned();
    let config = dir.join("containerd.toml");
    fs::write(&config, configuration(&dir))?;
    let archive = dir.join("agent.tar");
    image::pack(agent, &archive)?;
    let mut command = Command::new("containerd");
    command.arg("--config").arg(&config);
    parts.spawn("containerd", command)?;

    parts.until("containerd to answer", "containerd", || async { ctr(&dir, &["version"]) }).await?;
    // The plugin that keeps images for kubelet starts a moment after the socket.
    wait::until("the image to be imported", wait::SOON, || async { import(&dir, &archive) }).await
}

/// Takes an image from an archive.
///
/// # Errors
/// When containerd refuses it.
pub(super) fn import(dir: &Path, archive: &Path) -> Result<()> {
    ctr(dir, &["images", "import", &archive.display().to_string()])
}

fn ctr(dir: &Path, args: &[&str]) -> Result<()> {
    let socket = socket(dir).display().to_string();
    run("ctr", &[&["--address", &socket, "--namespace", "k8s.io"], args].concat()).map(drop)
}

fn configuration(dir: &Path) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    // restrict_oom_score_adj: without it every sandbox dies where the harness itself may not be spared by the kernel.
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{networks}"
"#,
        root = path("containerd"),
        state = path("run"),
        socket = socket(dir).display(),
        opt = path("opt"),
        image = image::NAME,
        plugins = calico::plugins(dir).display(),
        networks = path("cni/conf"),
    )
}
