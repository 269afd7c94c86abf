//! How a command reaches a cluster.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use kube::{Client, Config};

use crate::{
    cluster::{Error, client},
    runtime::metrics::Metrics,
};

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

    /// A client, and the namespace that is named; without one, that of the kubeconfig's context.
    pub(super) async fn client(&self, named: Option<&str>) -> Result<(Client, String)> {
        let config = self.config().await?;
        let namespace = named.unwrap_or(&config.default_namespace).to_owned();
        Ok((client::client(config, &Metrics::default())?, namespace))
    }
}

impl Cluster {
    pub(super) async fn client(&self) -> Result<Client> {
        Ok(self.connection.client(None).await?.0)
    }

    /// Where Rampart is installed.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// The API server's own words, where it has some.
pub(super) fn shortly(error: Error) -> anyhow::Error {
    match error.refusal() {
        Some(said) => anyhow!("{said}"),
        None => error.into(),
    }
}

/// Carries out what asks a cluster.
pub(super) fn block_on<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}
