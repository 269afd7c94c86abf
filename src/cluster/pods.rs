//! Pods that are there, listed once.

use kube::{Api, Client, ResourceExt as _, api::ListParams};
use tokio::time::Instant;

use super::{Error, Result, client::PAGE, error::call, slim::Pod};
use crate::hardening::Kept;

/// Pods that are read at the most (`k8s.io/pod-security-admission`, `defaultNamespaceMaxPodsToCheck`).
const MOST: usize = 3000;

/// Lists the pods of a namespace, or of all, that have not finished, until a deadline; `each` is told namespace and
/// name. Returns how many pods were read, and how many there are.
///
/// # Errors
/// When not even the first page can be read in time.
pub async fn list(
    client: &Client,
    namespace: Option<&str>,
    deadline: Instant,
    mut each: impl FnMut(&str, &str, &Kept),
) -> Result<(usize, usize)> {
    let api: Api<Pod> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let (mut read, mut params) = (0_usize, ListParams::default().limit(PAGE));
    loop {
        let page = tokio::time::timeout_at(deadline, call(|| "listing pods".into(), api.list(&params))).await;
        let page = match page {
            Ok(Ok(page)) => page,
            // There is at least one more.
            _ if read > 0 => return Ok((read, read.saturating_add(1))),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(Error::Unexpected("the API server did not list them in time".into())),
        };
        read = read.saturating_add(page.items.len());
        for pod in page.items {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            let (metadata, data) = pod.read();
            if let Some(kept) = Kept::of(&metadata, data) {
                each(&namespace, &name, &kept);
            }
        }
        let left = page.metadata.remaining_item_count.and_then(|left| usize::try_from(left).ok()).unwrap_or_default();
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            None => return Ok((read, read)),
            Some(_) if read >= MOST => return Ok((read, read.saturating_add(left.max(1)))),
            Some(more) => params = params.continue_token(&more),
        }
    }
}
