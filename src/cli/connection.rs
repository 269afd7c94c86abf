//! How a command reaches a cluster.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use kube::{Client, Config};

use crate::{
    cluster::{self, Error, client, error},
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

/// `None` where the API server says that there is no such object. That it does not know the kind is an error.
pub(super) fn found<T>(read: cluster::Result<T>) -> cluster::Result<Option<T>> {
    match read {
        Err(error) if error.is_of_unknown_kind() => Err(error),
        read => error::found(read),
    }
}

/// The API server's own words about objects of a kind, where it has some.
pub(super) fn shortly(error: Error, kinds: &str) -> anyhow::Error {
    match error.refusal() {
        Some(_) if error.is_of_unknown_kind() => anyhow!("the API server does not know {kinds}: is Rampart installed?"),
        Some(said) => anyhow!("{said}"),
        None => error.into(),
    }
}

/// Carries out what asks a cluster.
pub(super) fn block_on<T>(task: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kind_that_is_not_known_is_no_object_that_is_missing() {
        let told = |status: serde_json::Value| {
            let status: Status = serde_json::from_value(status).unwrap();
            let source = Box::new(kube::Error::Api(Box::new(status)));
            let read: cluster::Result<()> = Err(Error::Api { doing: "reading ApiKey a".into(), source });
            found(read).map_err(|error| shortly(error, "ApiKeys").to_string())
        };
        let unknown = Err("the API server does not know ApiKeys: is Rampart installed?".to_owned());
        // As it is made of an answer that is no Status, and of a group that has other kinds.
        assert_eq!(told(json!({"code": 404, "message": "404 page not found"})), unknown);
        assert_eq!(told(json!({"code": 404, "reason": "NotFound", "details": {}})), unknown);
        assert_eq!(
            told(json!({"code": 404, "reason": "NotFound", "details": {"name": "a", "kind": "apikeys"}})),
            Ok(None)
        );
        assert_eq!(told(json!({"code": 403, "message": "no", "details": {}})), Err("no".into()));
    }
}
