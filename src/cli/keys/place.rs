//! Which ApiKey is meant, and how it is read and changed.

use anyhow::Result;
use clap::Args;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::super::connection::{Connection, found, shortly};
use crate::{api::ApiKey, cluster::error::call};

/// Field manager of what the command line changes.
const MANAGER: &str = "rampart-cli";
/// How errors call what is asked for.
pub(super) const KINDS: &str = "ApiKeys";
/// Others may write at the same time: that often it is read anew.
const TRIES: usize = 5;

/// Which namespace of which cluster.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Namespace of the ApiKey; without it, that of the kubeconfig's context.
    #[arg(long, short)]
    namespace: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl Place {
    /// A client, and the namespace.
    pub(super) async fn client(&self) -> Result<(Client, String)> {
        self.connection.client(self.namespace.as_deref()).await
    }

    /// The ApiKey that is meant.
    pub(super) async fn key(&self, name: &str) -> Result<Key> {
        let (client, namespace) = self.client().await?;
        Ok(Key::of(client, namespace, name))
    }
}

/// An ApiKey of a cluster.
pub(super) struct Key {
    api: Api<ApiKey>,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    /// That of a name, there or not.
    pub(super) fn of(client: Client, namespace: String, name: &str) -> Self {
        Self { api: Api::namespaced(client, &namespace), namespace, name: name.to_owned() }
    }

    /// As it is now; `None` where there is none, which has been said.
    pub(super) async fn read(&self) -> Result<Option<ApiKey>> {
        let doing = || format!("reading ApiKey {}/{}", self.namespace, self.name);
        let read = found(call(doing, self.api.get(&self.name)).await).map_err(|error| shortly(error, KINDS))?;
        if read.is_none() {
            eprintln!("rampart: there is no ApiKey {} in namespace {}", self.name, self.namespace);
        }
        Ok(read)
    }

    /// Changes the spec of the very object that `change` has seen, which may refuse with `None`, after saying why.
    /// Returns the ApiKey before and after.
    pub(super) async fn change(&self, change: impl Fn(&ApiKey) -> Option<Value>) -> Result<Option<(ApiKey, ApiKey)>> {
        for left in (0..TRIES).rev() {
            let Some(before) = self.read().await? else { return Ok(None) };
            let Some(spec) = change(&before) else { return Ok(None) };
            let patch = json!({"metadata": {"resourceVersion": before.metadata.resource_version}, "spec": spec});
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            let doing = || format!("changing ApiKey {}/{}", self.namespace, self.name);
            match call(doing, self.api.patch(&self.name, &params, &Patch::Merge(&patch))).await {
                Ok(after) => return Ok(Some((before, after))),
                Err(error) if error.code() == Some(409) && left > 0 => {}
                Err(error) => return Err(shortly(error, KINDS)),
            }
        }
        Ok(None)
    }
}
