//! Legal hold.

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use rampart::api::LegalHold;
use serde_json::json;

use super::{REPORTS, checked, indented, ready, title};
use crate::{fixtures, wait};

const HOLD: &str = "case-17";
const EVIDENCE: &str = "evidence";

/// What is held can't be deleted, nor taken out of the hold, by whoever may do everything.
///
/// # Errors
/// When a step does not go as it must.
pub async fn tell(client: &Client) -> Result<()> {
    title("Legal hold: what must stay, stays, whoever deletes it");
    fixtures::namespace(client, REPORTS, json!({"rampart.dev/retention": "allowed"})).await?;
    fixtures::apply(
        client,
        &json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"ledger": "17"},
            "metadata": {"name": EVIDENCE, "namespace": REPORTS, "labels": {"case": "17"}},
        }),
    )
    .await?;
    fixtures::apply(
        client,
        &json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "LegalHold", "metadata": {"name": HOLD, "namespace": REPORTS},
            "spec": {"resources": [{"resource": "configmaps"}], "selector": {"matchLabels": {"case": "17"}},
                     "indefinite": true, "ground": "Litigation hold of the legal department", "caseRef": "C-17"},
        }),
    )
    .await?;
    ready::<LegalHold>(client, REPORTS, HOLD).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), REPORTS);
    // A dry run: the API server takes a moment to learn of a policy.
    let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
    let refusal = wait::until("the evidence to be kept", wait::SOON, || async {
        match maps.delete(EVIDENCE, &dry_run).await {
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(status.message),
            Err(other) => Err(other.into()),
            Ok(_) => bail!("it could be deleted"),
        }
    })
    .await?;
    println!("{}", indented(&refusal));
    ensure!(refusal.contains(HOLD), "the refusal does not name the hold");
    ensure!(maps.delete(EVIDENCE, &DeleteParams::default()).await.is_err(), "the evidence was deleted");
    checked("the administrator of the cluster was refused to delete a ConfigMap that is held");
    let unlabelled = Patch::Merge(json!({"metadata": {"labels": {"case": null}}}));
    let answer = maps.patch(EVIDENCE, &PatchParams::default(), &unlabelled).await;
    ensure!(answer.is_err(), "the evidence was taken out of the hold");
    checked("nor could its label be taken away");
    Ok(())
}

/// The hold is released, and what it held is as any other object.
///
/// # Errors
/// When a step does not go as it must.
pub async fn released(client: &Client) -> Result<()> {
    let holds: Api<LegalHold> = Api::namespaced(client.clone(), REPORTS);
    holds.delete(HOLD, &DeleteParams::default()).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), REPORTS);
    let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
    wait::until("the evidence to be free", wait::SOON, || async {
        Ok(maps.delete(EVIDENCE, &dry_run).await.map(drop)?)
    })
    .await?;
    checked("released by who has the verb, it can be deleted");
    Ok(())
}
