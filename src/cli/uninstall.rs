//! `rampart uninstall`: takes away what the operator made for itself.

use std::{fmt::Debug, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    coordination::v1::Lease,
    core::v1::Secret,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde::de::DeserializeOwned;

use super::{
    BAD_INPUT,
    connection::{Cluster, block_on},
    lead,
    terminal::fit,
};
use crate::{
    api::labels::{FLOOR, PART},
    cluster::{
        error::{call, found, secret_call},
        leader::LEASE,
        open_reports, pause,
    },
    serve::tls,
};

/// The last step of uninstalling, once the operator is gone: takes away the admission policies by which pods are
/// refused, Reports (openreports.io), the Lease, the pause and the webhook's CA. Rampart's kinds and what they stand for stay: policies, keys
/// and their Secrets, NetworkPolicies. Exits 2, and takes nothing away, while a controller runs: it would make all of it anew.
#[derive(Debug, Args)]
pub(super) struct UninstallCommand {
    /// Take it away although a controller may still run.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    cluster: Cluster,
}

impl UninstallCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        block_on(async {
            let (client, namespace) = (self.cluster.client().await?, self.cluster.namespace());
            if !self.yes && is_led(&client, namespace).await? {
                return Ok(ExitCode::from(BAD_INPUT));
            }
            // Bindings first: a policy without one refuses nothing.
            let bindings = remove_floor::<ValidatingAdmissionPolicyBinding>(&client).await?;
            let policies = remove_floor::<ValidatingAdmissionPolicy>(&client).await?;
            let reports = match open_reports::remove_all(&client).await {
                // No such kind; or no such right, which the chart's Job has where the feature is on.
                Err(error) if matches!(error.code(), Some(403 | 404)) => 0,
                other => other?,
            };
            remove::<Lease>(Api::namespaced(client.clone(), namespace), LEASE).await?;
            pause::remove(&client, namespace, None).await?;
            let secrets: Api<Secret> = Api::namespaced(client, namespace);
            let params = DeleteParams::default();
            let doing = || format!("deleting Secret {}", tls::SECRET);
            found(secret_call(doing, secrets.delete(tls::SECRET, &params)).await)?;
            eprintln!("{policies} admission policies and {bindings} bindings removed: they refuse no pods any more");
            if self.yes {
                eprintln!("a controller that still runs makes them anew");
            }
            if reports > 0 {
                eprintln!("{reports} Reports removed");
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Whether a controller runs, which is told.
async fn is_led(client: &Client, namespace: &str) -> Result<bool> {
    let holder =
        lead::holder(client, namespace).await.context("nothing was removed: say --yes if no controller runs")?;
    if let Some(holder) = &holder {
        eprintln!(
            "rampart: nothing was removed: the controller {} holds the Lease {LEASE} in {namespace}, and would make all of it anew. \
             `helm uninstall`, or scale rampart-controller to 0, first; one that was killed counts for four durations of its Lease (a \
             minute, as shipped), unless you say --yes",
            fit(holder)
        );
    }
    Ok(holder.is_some())
}

/// Removes what refuses pods of this kind; how many.
async fn remove_floor<K>(client: &Client) -> Result<usize>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + Clone + Debug + DeserializeOwned,
{
    let (api, kind): (Api<K>, _) = (Api::all(client.clone()), K::kind(&()));
    let ours = ListParams::default().labels(&format!("{PART}={FLOOR}"));
    let all = call(|| format!("listing {kind}s"), api.list_metadata(&ours)).await?.items;
    for object in &all {
        remove(api.clone(), &object.name_any()).await?;
    }
    Ok(all.len())
}

async fn remove<K>(api: Api<K>, name: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let doing = || format!("deleting {} {name}", K::kind(&()));
    found(call(doing, api.delete(name, &DeleteParams::default())).await)?;
    Ok(())
}
