//! `rampart pause` and `rampart resume`: break-glass.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use jiff::SignedDuration;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::{
    BAD_INPUT,
    connection::{Cluster, block_on},
};
use crate::{
    admission::ENFORCE_CONFIGURATION,
    api::{
        GoDuration,
        labels::{FLOOR, PART},
    },
    cluster::{
        error::{call, found},
        pause::{Pause, remove, set},
    },
    runtime::clock,
};

/// Longer is no emergency but a change of policy.
const LONGEST: Duration = Duration::from_hours(24);

/// Suspends what refuses pods, for a while: hardening is audited only. Webhook and admission policies
/// go back to refusing by themselves when the time is over and the operator runs. Works without the
/// operator, too. Retention holds, NetworkPolicies and keys are not touched.
#[derive(Debug, Args)]
pub(super) struct PauseCommand {
    /// How long, at most 24h.
    #[arg(long = "for", value_name = "DURATION")]
    length: GoDuration,
    /// Why; kept beside the end time, where everybody can read it.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    cluster: Cluster,
}

/// Ends a pause now.
#[derive(Debug, Args)]
pub(super) struct ResumeCommand {
    #[command(flatten)]
    cluster: Cluster,
}

impl PauseCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        let length = self.length.get();
        if length.is_zero() || length > LONGEST || self.reason.trim().is_empty() {
            eprintln!("rampart: --for must be more than 0s and at most 24h, and --reason must say why");
            return Ok(ExitCode::from(BAD_INPUT));
        }
        let until = clock::now().saturating_add(SignedDuration::try_from(length)?)?;
        let pause = Pause { until, reason: self.reason.clone() };
        block_on(async {
            let client = self.cluster.client().await?;
            set(&client, self.cluster.namespace(), &pause).await?;
            let bindings = set_actions(&client, "Audit").await?;
            stop_waiting(&client).await?;
            eprintln!("hardening is audited only until {until}, by {bindings} admission policies and the webhook");
            eprintln!("`rampart resume` ends it now; without the operator running, nothing else does");
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl ResumeCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        block_on(async {
            let client = self.cluster.client().await?;
            remove(&client, self.cluster.namespace(), None).await?;
            let bindings = set_actions(&client, "Deny").await?;
            eprintln!("hardening is enforced again, by {bindings} admission policies and the webhook");
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Takes away what makes pods wait for the webhook; the operator makes it anew when the pause is over.
async fn stop_waiting(client: &Client) -> Result<()> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let doing = || format!("deleting the webhook configuration {ENFORCE_CONFIGURATION}");
    found(call(doing, api.delete(ENFORCE_CONFIGURATION, &DeleteParams::default())).await)?;
    Ok(())
}

/// Sets what every binding of the floor does; the operator, where it runs, does the same.
async fn set_actions(client: &Client, action: &str) -> Result<usize> {
    let api: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let ours = ListParams::default().labels(&format!("{PART}={FLOOR}"));
    let bindings = call(|| "listing the bindings of admission policies".into(), api.list(&ours)).await?.items;
    let patch = Patch::Merge(json!({"spec": {"validationActions": [action]}}));
    let (mut changed, mut failed) = (0_usize, None);
    for binding in &bindings {
        let name = binding.name_any();
        let doing = || format!("changing the binding {name}");
        match found(call(doing, api.patch(&name, &PatchParams::default(), &patch)).await) {
            Ok(found) => changed = changed.saturating_add(usize::from(found.is_some())),
            // All are tried: half a pause helps nobody.
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(changed), |error| Err(error.into()))
}
