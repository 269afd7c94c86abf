//! What stands beside Rampart's webhook: one that does nothing, and the reference.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command},
};

use anyhow::{Context as _, Result};
use rampart_e2e::{ControlPlane, control_plane, judges, null_webhook, ports::Port};
use tokio::net::TcpListener;

/// The argument with which the bench is a null webhook.
pub(crate) const NULL: &str = "null-webhook";

/// The reference judges as Rampart's policy asks, and nothing else.
const CONFIGURATION: &str = r#"{"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
 "defaults": {"enforce": "restricted", "enforce-version": "latest", "audit": "privileged", "audit-version": "latest",
              "warn": "privileged", "warn-version": "latest"}}"#;

/// A server in a process of its own; dropping it ends the process.
pub(crate) struct Server {
    child: Child,
    port: Port,
}

impl Server {
    /// A null webhook.
    pub(crate) fn null(plane: &ControlPlane) -> Result<Self> {
        let port = Port::claim()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(NULL).arg(port.number().to_string()).args([certificate(plane), key(plane)]);
        Ok(Self { child: control_plane::spawn(plane.dir(), NULL, command)?, port })
    }

    /// The reference webhook.
    pub(crate) fn reference(plane: &ControlPlane) -> Result<Self> {
        let (port, configuration) = (Port::claim()?, plane.dir().join("pod-security.json"));
        std::fs::write(&configuration, CONFIGURATION)?;
        let mut command = Command::new(judges::webhook()?);
        command
            .env("GOMAXPROCS", "1")
            .arg(format!("--kubeconfig={}", plane.admin_kubeconfig()?.display()))
            .arg(format!("--config={}", configuration.display()))
            .arg(format!("--tls-cert-file={}", certificate(plane).display()))
            .arg(format!("--tls-private-key-file={}", key(plane).display()))
            .args(["--bind-address=127.0.0.1", &format!("--secure-port={}", port.number())]);
        Ok(Self { child: control_plane::spawn(plane.dir(), "reference-webhook", command)?, port })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The API server's own: it is for the loopback address.
pub(crate) fn certificate(plane: &ControlPlane) -> std::path::PathBuf {
    plane.dir().join("apiserver.crt")
}

pub(crate) fn key(plane: &ControlPlane) -> std::path::PathBuf {
    plane.dir().join("apiserver.key")
}

/// Is a null webhook: arguments are port, certificate and key.
pub(crate) async fn null(arguments: &[&str]) -> Result<bool> {
    let [port, certificate, key] = arguments else { anyhow::bail!("{NULL} PORT CERTIFICATE KEY") };
    let port: u16 = port.parse().context("a port")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    null_webhook::serve(listener, Path::new(certificate), Path::new(key), None).await?;
    Ok(true)
}
