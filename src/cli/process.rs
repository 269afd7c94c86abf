//! Flags that every server has; each also reads an environment variable.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;

use super::connection::Connection;
use crate::{
    api::GoDuration,
    runtime::{
        logs,
        metrics::Metrics,
        open_files,
        readiness::{Gate, Readiness},
        tasks::Tasks,
    },
    serve::admin,
};

/// Flags that every server has.
#[derive(Debug, Clone, Args)]
pub(super) struct Process {
    #[command(flatten)]
    pub(super) connection: Connection,
    /// Namespace of KeyRecords.
    #[arg(long, env = "RAMPART_KEYS_NAMESPACE", default_value = "rampart-keys")]
    pub(super) keys_namespace: String,
    /// Name of this process in leader election, and of a verifier's report: the pod's name in a cluster.
    #[arg(long, env = "RAMPART_IDENTITY")]
    identity: Option<String>,
    /// Address of metrics and health.
    #[arg(long, env = "RAMPART_ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    admin_address: SocketAddr,
    /// How long the process still serves after it was asked to stop, so that endpoints are withdrawn.
    #[arg(long, env = "RAMPART_SHUTDOWN_DELAY", default_value = "5s")]
    shutdown_delay: GoDuration,
    /// Form of the logs.
    #[arg(long, env = "RAMPART_LOG_FORMAT", value_enum, default_value_t)]
    log_format: logs::Format,
    /// What is logged, in the form of RUST_LOG.
    #[arg(long, env = "RAMPART_LOG", default_value = "info")]
    log: String,
}

impl Process {
    /// Starts logging.
    pub(super) fn log(&self) -> Result<()> {
        logs::init(self.log_format, &self.log)
    }

    /// The tasks of the process: metrics and health are the first. The gate is to be opened when the others are known:
    /// until then nobody can tell what is missing.
    pub(super) fn tasks(&self, readiness: &Readiness, metrics: &Metrics) -> (Tasks, Gate) {
        open_files::allow_all();
        let started = readiness.gate("started");
        let mut tasks = Tasks::new(readiness.clone(), self.shutdown_delay.get());
        let admin = admin::serve(self.admin_address, readiness.clone(), metrics.clone(), tasks.stopped());
        tasks.spawn("admin", admin);
        (tasks, started)
    }

    /// A pod's host name is its own; elsewhere the process id tells processes of a machine apart. `between` parts them.
    pub(super) fn identity(&self, between: char) -> String {
        self.identity.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            format!("{}{between}{}", host.trim(), std::process::id())
        })
    }
}
