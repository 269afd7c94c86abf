//! Kinds that [`super::kinds`] does not list, found by what the API server says that it has: policies of retention and
//! holds may be about any of them.

use anyhow::Context as _;
use kube::{
    Client,
    api::ApiResource,
    discovery::{ApiCapabilities, ApiGroup, Discovery, Scope},
};

use super::kinds::{Kind, Written};

/// Finds the kind that is called so; or says why there is none.
///
/// # Errors
/// When the API server does not tell.
pub(super) async fn find(client: &Client, written: &Written) -> anyhow::Result<Result<Kind, String>> {
    let discovery =
        Discovery::new(client.clone()).run_aggregated().await.context("asking for the kinds that there are")?;
    let all = discovery.groups().flat_map(ApiGroup::recommended_resources);
    let named: Vec<_> = all.filter(|(resource, _)| is_called(resource, written)).collect();
    Ok(only(&named, written))
}

/// The one of the core group, or the only one; of a namespace.
fn only(named: &[(ApiResource, ApiCapabilities)], written: &Written) -> Result<Kind, String> {
    let of_core = named.iter().find(|(resource, _)| resource.group.is_empty());
    let (resource, capabilities) = match (of_core, named) {
        (Some(one), _) | (None, [one]) => one,
        (None, []) => {
            let known = super::kinds::listed();
            return Err(format!(
                "the API server has no kind {written}, by its name or its plural (short names are known of these alone: {known})"
            ));
        }
        (None, several) => {
            let choice: Vec<String> =
                several.iter().map(|(resource, _)| format!("{}.{}", resource.plural, resource.group)).collect();
            return Err(format!("{written} is more than one kind: write {}", choice.join(" or ")));
        }
    };
    if capabilities.scope == Scope::Cluster {
        return Err(format!(
            "{} stands in no namespace: no policy of retention and no hold is about it",
            resource.kind
        ));
    }
    Ok(Kind::other(resource))
}

fn is_called(resource: &ApiResource, Written { called, group }: &Written) -> bool {
    let named = resource.plural == *called || resource.kind.to_lowercase() == *called;
    named && group.as_ref().is_none_or(|group| resource.group == *group)
}

#[cfg(test)]
mod tests {
    use kube::core::GroupVersionKind;
    use rstest::rstest;

    use super::*;

    fn resource(group: &str, kind: &str, scope: Scope) -> (ApiResource, ApiCapabilities) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        (resource, ApiCapabilities { scope, subresources: vec![], operations: vec![] })
    }

    #[rstest]
    #[case("workflows", "Workflow")]
    #[case("workflow.argoproj.io", "Workflow")]
    #[case("event", "Event")]
    #[case("node", "Node stands in no namespace: no policy of retention and no hold is about it")]
    #[case("ingress", "ingress is more than one kind: write ingresses.a.example or ingresses.b.example")]
    #[case(
        "flow",
        "the API server has no kind flow, by its name or its plural (short names are known of these alone: pod (po)"
    )]
    fn a_kind_is_found_or_it_is_said_why_not(#[case] written: &str, #[case] wanted: &str) {
        let all = [
            resource("argoproj.io", "Workflow", Scope::Namespaced),
            resource("events.k8s.io", "Event", Scope::Namespaced),
            resource("", "Event", Scope::Namespaced),
            resource("", "Node", Scope::Cluster),
            resource("a.example", "Ingress", Scope::Namespaced),
            resource("b.example", "Ingress", Scope::Namespaced),
        ];
        let written = super::super::kinds::parse(&format!("{written}/a")).unwrap().kind;
        let named: Vec<_> = all.into_iter().filter(|(resource, _)| is_called(resource, &written)).collect();
        let told = only(&named, &written).map_or_else(|why| why, |kind| kind.name.into_owned());
        assert!(told.starts_with(wanted), "{told}");
    }
}
