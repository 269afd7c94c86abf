//! kube-proxy: addresses of Services.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    NAME, Parts,
    machine::run,
    network::{PODS, SERVICES},
};
use crate::ControlPlane;

/// Starts it, and waits until the Service of the API server is known to the kernel.
///
/// # Errors
/// When it is not in time; the text holds the end of its log.
pub(super) async fn start(parts: &mut Parts, plane: &ControlPlane, program: &Path) -> Result<()> {
    let kubeconfig = plane.certificate_kubeconfig("kube-proxy", "system:kube-proxy", None)?;
    let (health, metrics) = (parts.claim_port()?, parts.claim_port()?);
    let configuration = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables", "conntrack": {"maxPerCore": 0}, "clusterCIDR": PODS, "hostnameOverride": NAME,
        "clientConnection": {"kubeconfig": kubeconfig},
        "healthzBindAddress": format!("127.0.0.1:{health}"), "metricsBindAddress": format!("127.0.0.1:{metrics}"),
    });
    let path = parts.dir().join("kube-proxy.json");
    fs::write(&path, configuration.to_string())?;
    let mut command = Command::new(program);
    command.arg(format!("--config={}", path.display()));
    parts.spawn("kube-proxy", command)?;
    let first = SERVICES.replace(".0.0/16", ".0.1");
    let known = || async {
        let rules = run("nft", &["list", "table", "ip", "kube-proxy"])?;
        Ok(ensure!(rules.contains(&first), "it knows no Service yet"))
    };
    parts.until("kube-proxy to know the API server", "kube-proxy", known).await
}

/// Removes its rules, which outlive it.
pub(super) fn remove() {
    for family in ["ip", "ip6"] {
        let _ = run("nft", &["delete", "table", family, "kube-proxy"]);
    }
}
