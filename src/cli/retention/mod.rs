//! `rampart retention`.

mod approve;
mod plan;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use kube::{Api, Client};

use super::connection::Connection;
use crate::{
    api::RetentionPolicy,
    cluster::error::{call, found},
};

/// Commands about RetentionPolicies.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Plan(plan::PlanCommand),
    Approve(approve::Approve),
    Verify(verify::Verify),
}

impl Command {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Plan(command) => command.run(),
            Self::Approve(command) => command.run(),
            Self::Verify(command) => command.run(),
        }
    }
}

/// Which RetentionPolicy of which cluster.
#[derive(Debug, Args)]
struct Place {
    /// Name of the RetentionPolicy.
    name: String,
    /// Its namespace; without it, that of the kubeconfig's context.
    #[arg(long, short)]
    namespace: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl Place {
    /// A client, and the namespace.
    async fn client(&self) -> Result<(Client, String)> {
        let (client, own) = self.connection.client().await?;
        Ok((client, self.namespace.clone().unwrap_or(own)))
    }

    /// The RetentionPolicy as it is now; `None` where there is none.
    async fn policy(&self, client: &Client, namespace: &str) -> Result<Option<RetentionPolicy>> {
        let api: Api<RetentionPolicy> = Api::namespaced(client.clone(), namespace);
        let doing = || format!("reading RetentionPolicy {namespace}/{}", self.name);
        Ok(found(call(doing, api.get(&self.name)).await)?)
    }

    fn says_there_is_none(&self, namespace: &str) {
        eprintln!("rampart: there is no RetentionPolicy {} in namespace {namespace}", self.name);
    }
}
