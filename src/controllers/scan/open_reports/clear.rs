//! Reports of a time when they were asked for.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, api::ListParams, core::PartialObjectMeta};

use crate::{
    cluster::{
        Result,
        error::call,
        leader::Leadership,
        open_reports::{CRD, ours, remove_all},
    },
    controllers::{Backoff, Context},
};

/// Removes them once this process leads. Where it may not, it says who can.
pub(in crate::controllers::scan) async fn clear(context: Context, mut leadership: Leadership) -> anyhow::Result<()> {
    let clearing = async {
        leadership.acquired().await;
        let (backoff, key) = (Backoff::default(), (String::new(), CRD.to_owned()));
        loop {
            let error = match remove_any(&context.client).await {
                Ok(0) => return,
                Ok(reports) => return tracing::info!(reports, "Reports that are no longer asked for were removed"),
                Err(error) if error.code() == Some(403) => {
                    let selector = ours();
                    return tracing::info!(
                        "Reports are off, and so is the right to remove those of before, if there are any: \
                         kubectl delete {CRD} -A -l {selector}"
                    );
                }
                Err(error) => error,
            };
            tracing::warn!(%error, "Reports that are no longer asked for could not be removed");
            tokio::time::sleep(backoff.failed(&key)).await;
        }
    };
    context.stopped.run_until_cancelled(clearing).await;
    context.stopped.cancelled().await;
    Ok(())
}

/// How many there were. Most clusters have no such kind, and are not asked for its objects.
async fn remove_any(client: &Client) -> Result<usize> {
    let crds: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(client.clone());
    let named = ListParams::default().fields(&format!("metadata.name={CRD}"));
    let is_there = !call(|| format!("looking for {CRD}"), crds.list(&named)).await?.items.is_empty();
    if is_there { remove_all(client).await } else { Ok(0) }
}
