//! `rampart retention`.

mod approve;
mod plan;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use kube::{Api, Client, ResourceExt as _};

use super::connection::{Connection, found, shortly};
use crate::{
    api::{RetentionPolicy, RetentionReport},
    cluster::{Error, error::call, retention_reports},
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
        self.connection.client(self.namespace.as_deref()).await
    }

    /// The RetentionPolicy as it is now; `None` where there is none.
    async fn policy(&self, client: &Client, namespace: &str) -> Result<Option<RetentionPolicy>> {
        let api: Api<RetentionPolicy> = Api::namespaced(client.clone(), namespace);
        let doing = || format!("reading RetentionPolicy {namespace}/{}", self.name);
        found(call(doing, api.get(&self.name)).await).map_err(|error| shortly(error, "RetentionPolicies"))
    }

    /// The report of the plan that the operator made last; `None` where there is none, or it is gone.
    async fn plan_report(&self, client: &Client, policy: &RetentionPolicy) -> Result<Option<RetentionReport>, Error> {
        let Some(name) = policy.status.as_ref().and_then(|status| status.plan.as_ref()?.report.as_ref()) else {
            return Ok(None);
        };
        let api: Api<RetentionReport> = Api::namespaced(client.clone(), &policy.namespace().unwrap_or_default());
        retention_reports::read(&api, name).await
    }

    fn says_there_is_none(&self, namespace: &str) {
        eprintln!("rampart: there is no RetentionPolicy {} in namespace {namespace}", self.name);
    }
}
