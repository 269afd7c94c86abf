//! kubelet: this machine as a node of the cluster.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    NAME, Parts, containerd,
    machine::{self, CGROUP},
    network::{ADDRESS, PODS},
};
use crate::ControlPlane;

/// Starts it, and waits until the node is ready for pods.
///
/// # Errors
/// When it is not in time; the text holds the end of its log.
pub(super) async fn start(parts: &mut Parts, plane: &ControlPlane, program: &Path) -> Result<()> {
    let dir = parts.dir().to_owned();
    for cgroup in machine::cgroups()? {
        fs::create_dir_all(&cgroup).with_context(|| format!("creating the cgroup {}", cgroup.display()))?;
    }
    let kubeconfig = plane.certificate_kubeconfig("kubelet", &format!("system:node:{NAME}"), Some("system:nodes"))?;
    let port = parts.claim_port()?;
    let never = "0%";
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": ADDRESS, "port": port, "healthzPort": 0,
        "failCgroupV1": false, "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{CGROUP}"),
        // It would keep chains of its own, and leave them.
        "makeIPTablesUtilChains": false,
        "failSwapOn": false, "oomScoreAdj": 0, "enforceNodeAllocatable": [],
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": plane.dir().join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{}", containerd::socket(&dir).display()),
        "podLogsDir": dir.join("pod-logs"), "volumePluginDir": dir.join("volume-plugins"),
        "clusterDomain": "cluster.local",
        // A full disk of the machine is not what is tested.
        "evictionHard": {"memory.available": never, "nodefs.available": never, "imagefs.available": never,
                         "nodefs.inodesFree": never},
        "imageGCHighThresholdPercent": 100,
    });
    let path = dir.join("kubelet.json");
    fs::write(&path, configuration.to_string())?;
    let mut command = Command::new(program);
    command
        .arg(format!("--config={}", path.display()))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .args([format!("--hostname-override={NAME}"), format!("--node-ip={ADDRESS}")])
        .arg(format!("--root-dir={}", dir.join("kubelet").display()))
        .arg(format!("--cert-dir={}", dir.join("kubelet-certificates").display()));
    parts.spawn("kubelet", command)?;

    let nodes: Api<Node> = Api::all(plane.client());
    let ready = || async {
        let node = nodes.get(NAME).await?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready = conditions.into_iter().find(|it| it.type_ == "Ready").context("it has said nothing yet")?;
        ensure!(ready.status == "True", "Ready is {}: {}", ready.status, ready.message.unwrap_or_default());
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        ensure!(taints.is_empty(), "it is tainted: {taints:?}");
        Ok(())
    };
    parts.until("the node to be ready", "kubelet", ready).await?;
    // Rampart reads there what is inside the cluster.
    let range = Patch::Merge(json!({"spec": {"podCIDR": PODS, "podCIDRs": [PODS]}}));
    nodes.patch(NAME, &PatchParams::default(), &range).await?;
    Ok(())
}
