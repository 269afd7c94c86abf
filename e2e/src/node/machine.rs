//! What a real node asks of the machine: root, Debian's programs, and settings of the kernel.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::leftovers;

/// Where Debian keeps the stock CNI plugins.
pub(super) const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Programs that must be installed, with Debian's package of each.
const PROGRAMS: [(&str, &str); 10] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables-nft-save", "iptables"),
    ("ipset", "ipset"),
    ("conntrack", "conntrack"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("mount", "util-linux"),
];

/// Whether this process may run a node.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The only node of this machine, for as long as it lives: its names and addresses are fixed.
pub(super) struct Claim {
    _file: File,
}

/// Claims the machine, once it has what a node needs.
///
/// # Errors
/// When this is not root, a program is missing, or the machine is a node already.
pub(super) fn claim() -> Result<Claim> {
    ensure!(is_root(), "a real node needs root");
    let mut missing: Vec<&str> = PROGRAMS.iter().filter(|(it, _)| found(it).is_none()).map(|(_, of)| *of).collect();
    if !Path::new(CNI_PLUGINS).join("host-local").exists() {
        missing.push("containernetworking-plugins");
    }
    missing.dedup();
    ensure!(missing.is_empty(), "a real node needs more Debian packages: apt-get install {}", missing.join(" "));
    leftovers::clear();
    fs::create_dir_all(leftovers::root())?;
    let file = File::create(leftovers::root().join("node.lock"))?;
    file.try_lock().context("another harness runs a real node on this machine")?;
    let calico = super::network::interfaces("cali")?;
    ensure!(calico.is_empty(), "this machine is a node with Calico already: it has {}", calico.join(", "));
    Ok(Claim { _file: file })
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    all.map(|dir| dir.join(program)).find(|path| path.exists())
}

/// Runs a program to its end, and returns what it wrote.
///
/// # Errors
/// When it is missing or fails; the text holds its words.
pub(super) fn run(program: &str, args: &[&str]) -> Result<String> {
    run_with(program, args, "")
}

/// As [`run`], with something on its standard input.
///
/// # Errors
/// As [`run`].
pub(super) fn run_with(program: &str, args: &[&str], input: &str) -> Result<String> {
    let path = found(program).with_context(|| format!("{program} is not installed"))?;
    let mut command = Command::new(path);
    let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("standard input")?.write_all(input.as_bytes())?;
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Lets the kernel forward packets, and writes down what it did before.
///
/// # Errors
/// When the setting can't be read or written.
pub(super) fn forward(dir: &Path) -> Result<()> {
    fs::write(dir.join("ip_forward"), fs::read(FORWARDING)?)?;
    fs::write(FORWARDING, "1").context("letting the kernel forward packets")
}

/// Puts the setting back.
pub(super) fn forward_as_before(dir: &Path) {
    if let Ok(before) = fs::read(dir.join("ip_forward")) {
        let _ = fs::write(FORWARDING, before);
    }
}

/// The parent of the cgroups of all pods, in each mounted hierarchy.
///
/// # Errors
/// When the mounts can't be read.
pub(super) fn cgroups() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let fields = mounts.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let dirs = fields.filter_map(|fields| match fields.as_slice() {
        [_, dir, "cgroup" | "cgroup2", ..] => Some(Path::new(dir).join(CGROUP)),
        _ => None,
    });
    Ok(dirs.collect())
}

/// Name of that parent.
pub(super) const CGROUP: &str = "rampart-e2e";
