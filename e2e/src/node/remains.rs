//! What a node leaves in the kernel, and how it goes: at the end, and at the next start should the harness be killed.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::mount::{UnmountFlags, unmount};

use super::{
    calico, containerd,
    machine::{self, run},
    network, proxy,
};
use crate::leftovers::{self, Identity};

const MARK: &str = "node";
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes down that what lives in this state directory is a node, and what CNI remembered before it.
///
/// # Errors
/// When it can't be written.
pub(super) fn mark(dir: &Path) -> Result<()> {
    Ok(fs::write(dir.join(MARK), cni_results().fold(String::new(), |all, it| all + &it + "\n"))?)
}

/// Clears the kernel of the node of a state directory, whose programs have been killed; nothing where it was none.
/// Whether the directory can be removed then.
pub(crate) fn clear(dir: &Path, killed: &[Identity]) -> bool {
    if !dir.join(MARK).exists() {
        return true;
    }
    until(|| !killed.iter().any(|it| it.alive()));
    end_containers(dir);
    remove_outside(dir);
    until(|| {
        for mount in mounts(dir).iter().rev() {
            let _ = unmount(mount, UnmountFlags::DETACH);
        }
        mounts(dir).is_empty()
    });
    // Their last ends go with the network namespaces of the pods, a moment later.
    until(|| network::interfaces("cali").is_ok_and(|left| left.is_empty()));
    network::remove();
    calico::remove();
    proxy::remove();
    for cgroup in machine::cgroups().into_iter().flatten() {
        remove_cgroup(&cgroup);
    }
    machine::forward_as_before(dir);
    mounts(dir).is_empty()
}

/// Ends all that containerd started, once it has been killed itself.
pub(super) fn end_containers(dir: &Path) {
    let containers = containers(dir);
    for process in &containers {
        process.kill();
    }
    until(|| !containers.iter().any(|it| it.alive()));
}

/// Whether the node left nothing behind; says what it did, or why that can't be told.
#[must_use]
pub fn are_none() -> bool {
    match found() {
        Ok(found) if found.is_empty() => true,
        found => {
            println!("the node left something behind: {found:?}");
            false
        }
    }
}

/// What there is of a node on this machine: links, mounts, cgroups, rules and sets of the kernel. Nothing, where none
/// runs.
///
/// # Errors
/// When something can't be listed.
pub fn found() -> Result<Vec<String>> {
    let links = network::interfaces("cali")?.into_iter().chain(network::interfaces("rampart-")?);
    let mut found: Vec<String> = links.map(|it| format!("link {it}")).collect();
    found.extend(mounts(&leftovers::root()).iter().map(|it| format!("mount {}", it.display())));
    let cgroups = machine::cgroups()?.into_iter().filter(|it| it.exists());
    found.extend(cgroups.map(|it| format!("cgroup {}", it.display())));
    let namespaces = run("ip", &["netns", "list"])?;
    let listed = [
        ("network namespace", namespaces),
        ("rule", run("iptables-nft-save", &[])?),
        ("set", run("ipset", &["list", "-n"])?),
        ("table", run("nft", &["list", "tables"])?),
    ];
    for (what, text) in listed {
        let ours = ["cali", "KUBE", "kube-proxy", "rampart-"];
        let told = text.lines().filter(|line| ours.iter().any(|it| line.contains(it)));
        found.extend(told.map(|line| format!("{what} {line}")));
    }
    Ok(found)
}

fn until(done: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
}

/// The shims and CNI plugins that containerd started for this directory, and all that runs below them.
fn containers(dir: &Path) -> Vec<Identity> {
    let socket = containerd::socket(dir).display().to_string();
    let plugins = calico::plugins(dir).display().to_string();
    let pids = || fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids: Vec<i32> = pids().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let is_one = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        let program = words.split('\0').next().unwrap_or_default();
        program.starts_with(&plugins) || program.ends_with("containerd-shim-runc-v2") && words.contains(&socket)
    };
    let parents: Vec<(i32, i32)> = pids.iter().filter_map(|pid| Some((*pid, parent(*pid)?))).collect();
    let mut found: Vec<i32> = pids.into_iter().filter(is_one).collect();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        next += 1;
    }
    found.into_iter().filter_map(Identity::of).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Files outside of the state directory: the sockets of shims, and what CNI remembers of networks.
fn remove_outside(dir: &Path) {
    for task in files(&dir.join("run/io.containerd.runtime.v2.task/k8s.io")) {
        let address = fs::read_to_string(task.join("address")).unwrap_or_default();
        if let Some(socket) = address.strip_prefix("unix://") {
            let _ = fs::remove_file(socket);
        }
    }
    // A file for each interface of a sandbox, named by its network.
    let before = fs::read_to_string(dir.join(MARK)).unwrap_or_default();
    for result in cni_results().filter(|it| !before.lines().any(|known| known == it)) {
        let _ = fs::remove_file(result);
    }
}

fn cni_results() -> impl Iterator<Item = String> {
    let ours = ["cni-loopback", calico::NETWORK].map(|network| format!("/var/lib/cni/results/{network}-"));
    let all = files(Path::new("/var/lib/cni/results")).map(|path| path.display().to_string());
    all.filter(move |path| ours.iter().any(|it| path.starts_with(it)))
}

fn files(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// What is mounted below a directory, the outermost first.
fn mounts(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = all.lines().filter_map(|line| Some(PathBuf::from(line.split_whitespace().nth(1)?)));
    mounts.filter(|mount| mount.starts_with(dir)).collect()
}

/// A cgroup goes when those below it have.
fn remove_cgroup(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
