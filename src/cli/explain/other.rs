//! Kinds that [`super::kinds`] does not list, found by what the API server says that it has: policies of retention and
//! holds may be about any of them.

use anyhow::{Context as _, Result, bail};
use kube::{
    Client,
    api::ApiResource,
    discovery::{ApiGroup, Discovery, Scope},
};

use super::kinds::{Kind, Written};

/// Finds the kind that is called so.
///
/// # Errors
/// When there is none, more than one, or it stands in no namespace.
pub(super) async fn find(client: &Client, written: &Written) -> Result<Kind> {
    let discovery =
        Discovery::new(client.clone()).run_aggregated().await.context("asking for the kinds that there are")?;
    let all = discovery.groups().flat_map(ApiGroup::recommended_resources);
    let named: Vec<_> = all.filter(|(resource, _)| is_called(resource, written)).collect();
    let of_core = named.iter().find(|(resource, _)| resource.group.is_empty());
    let (resource, capabilities) = match (of_core, named.as_slice()) {
        (Some(one), _) | (None, [one]) => one,
        (None, []) => bail!(
            "the API server has no kind {written}, by its name or its plural (short names are known of these alone: {})",
            super::kinds::listed()
        ),
        (None, several) => {
            let choice: Vec<String> =
                several.iter().map(|(resource, _)| format!("{}.{}", resource.plural, resource.group)).collect();
            bail!("{written} is more than one kind: write {}", choice.join(" or "))
        }
    };
    if capabilities.scope == Scope::Cluster {
        bail!("{} stands in no namespace: no policy of retention and no hold is about it", resource.kind);
    }
    Ok(Kind::other(resource))
}

fn is_called(resource: &ApiResource, Written { called, group }: &Written) -> bool {
    let named = resource.plural == *called || resource.kind.to_lowercase() == *called;
    named && group.as_ref().is_none_or(|group| resource.group == *group)
}
