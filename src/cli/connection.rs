//! How a command reaches a cluster.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use kube::{Client, Config};

use crate::{cluster::client, runtime::metrics::Metrics};

/// How to reach a cluster.
#[derive(Debug, Clone, Args)]
pub(super) struct Connection {
    /// Kubeconfig; without it, the files that KUBECONFIG lists, `~/.kube/config`, or the pod's service account.
    #[arg(long, env = "RAMPART_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, env = "RAMPART_CONTEXT")]
    context: Option<String>,
}

/// Which cluster.
#[derive(Debug, Args)]
pub(super) struct Cluster {
    #[command(flatten)]
    connection: Connection,
    /// Namespace that Rampart is installed in.
    #[arg(long, env = "RAMPART_NAMESPACE", default_value = "rampart-system")]
    namespace: String,
}

impl Connection {
    pub(super) async fn config(&self) -> Result<Config> {
        client::config(self.kubeconfig.as_deref(), self.context.as_deref()).await
    }

    /// A client, and the namespace that the kubeconfig's context names.
    pub(super) async fn client(&self) -> Result<(Client, String)> {
        let config = self.config().await?;
        let namespace = config.default_namespace.clone();
        Ok((client::client(config, &Metrics::default())?, namespace))
    }
}

impl Cluster {
    pub(super) async fn client(&self) -> Result<Client> {
        Ok(self.connection.client().await?.0)
    }

    /// Where Rampart is installed.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// Carries out what asks a cluster.
pub(super) fn block_on<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}
