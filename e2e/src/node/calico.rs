//! Calico: the CNI plugin gives pods their network, Felix enforces NetworkPolicies in it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{
    NAME, Parts,
    machine::{CNI_PLUGINS, run, run_with},
    network::PODS,
};
use crate::{ControlPlane, binaries, fixtures, wait};

const VERSION: &str = "v3.28.5";
/// Name of the network of pods.
pub(super) const NETWORK: &str = "rampart-e2e";
const TABLES: [&str; 4] = ["raw", "mangle", "nat", "filter"];

/// Where containerd finds the plugins.
pub(super) fn plugins(dir: &Path) -> PathBuf {
    dir.join("cni/bin")
}

/// Lets containerd find the plugins and their configuration; kubelet is not ready before.
///
/// # Errors
/// When a file can't be written.
pub(super) fn configure(dir: &Path, plane: &ControlPlane, plugin: &Path) -> Result<()> {
    let (plugins, networks) = (plugins(dir), dir.join("cni/conf"));
    fs::create_dir_all(&plugins)?;
    fs::create_dir_all(&networks)?;
    // containerd takes one directory, so that the stock plugins and Calico's meet in it.
    for stock in ["loopback", "host-local"] {
        symlink(Path::new(CNI_PLUGINS).join(stock), plugins.join(stock))?;
    }
    symlink(plugin, plugins.join("calico"))?;
    let network = json!({
        "name": NETWORK, "cniVersion": "0.3.1",
        "plugins": [{
            "type": "calico", "datastore_type": "kubernetes", "nodename": NAME, "nodename_file_optional": true,
            "log_level": "info", "log_file_path": dir.join("calico-cni.log"),
            "ipam": {"type": "host-local", "dataDir": dir.join("cni/addresses"), "ranges": [[{"subnet": PODS}]]},
            "policy": {"type": "k8s"},
            "kubernetes": {"kubeconfig": plane.admin_kubeconfig()?},
        }],
    });
    fs::write(networks.join("10-calico.conflist"), network.to_string()).context("configuring the network of pods")
}

/// Installs what Calico keeps in the cluster, starts Felix, and waits until it enforces.
///
/// # Errors
/// When it does not in time; the text holds the end of its log.
pub(super) async fn start(parts: &mut Parts, plane: &ControlPlane, felix: &Path) -> Result<()> {
    install(plane).await?;
    let port = parts.claim_port()?.to_string();
    let mut command = Command::new(felix);
    command.env("KUBECONFIG", plane.admin_kubeconfig()?).env("FELIX_HEALTHPORT", &port).envs([
        ("FELIX_DATASTORETYPE", "kubernetes"),
        ("FELIX_FELIXHOSTNAME", NAME),
        ("FELIX_IPTABLESBACKEND", "NFT"),
        ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "ACCEPT"),
        ("FELIX_HEALTHENABLED", "true"),
        ("FELIX_HEALTHHOST", "127.0.0.1"),
        ("FELIX_LOGSEVERITYSCREEN", "info"),
    ]);
    let absent = ["LOGFILEPATH", "LOGSEVERITYFILE", "LOGSEVERITYSYS"];
    command.envs(absent.map(|name| (format!("FELIX_{name}"), "none")));
    let off = ["USAGEREPORTING", "IPV6SUPPORT", "BPF", "XDP", "IPINIP", "VXLAN", "WIREGUARD"];
    for feature in off {
        let ending = if feature == "IPV6SUPPORT" { "" } else { "ENABLED" };
        command.env(format!("FELIX_{feature}{ending}"), "false");
    }
    parts.spawn("felix", command)?;
    let ready = || async {
        let url = format!("http://127.0.0.1:{port}/readiness");
        let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
            .build_http::<http_body_util::Empty<hyper::body::Bytes>>();
        let status = client.get(url.parse()?).await?.status();
        Ok(ensure!(status.is_success(), "it answers {status}"))
    };
    parts.until("Felix to be ready", "felix", ready).await
}

async fn install(plane: &ControlPlane) -> Result<()> {
    let client = plane.client();
    let crds = tokio::task::spawn_blocking(|| binaries::calico_file("manifests/crds.yaml")).await??;
    for crd in fixtures::parse(&crds)? {
        fixtures::apply(&client, &crd).await?;
    }
    let information = json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "ClusterInformation", "metadata": {"name": "default"},
        "spec": {"datastoreReady": true, "clusterType": "k8s", "calicoVersion": VERSION,
                 "clusterGUID": "0123456789abcdef0123456789abcdef"},
    });
    let created = || async { fixtures::apply(&client, &information).await.map(drop) };
    wait::until("Calico's kinds to be served", wait::SOON, created).await
}

/// Removes the rules and sets of the kernel, which outlive Felix.
pub(super) fn remove() {
    for table in TABLES {
        let Ok(rules) = run("iptables-nft-save", &["-t", table]) else { continue };
        if !rules.contains("cali") {
            continue;
        }
        let is_other = |line: &&str| !line.contains("cali-") && !line.contains("cali:");
        let others = rules.lines().filter(is_other).fold(String::new(), |all, line| all + line + "\n");
        let _ = run_with("iptables-nft-restore", &["-T", table], &others);
    }
    let sets = run("ipset", &["list", "-n"]).unwrap_or_default();
    for set in sets.lines().filter(|name| name.starts_with("cali")) {
        let _ = run("ipset", &["destroy", set]);
    }
    // Where Felix tells the plugin how large packets may be.
    let _ = fs::remove_file("/var/lib/calico/mtu");
    let _ = fs::remove_dir("/var/lib/calico");
}
