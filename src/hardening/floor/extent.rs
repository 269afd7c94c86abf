//! Where an admission policy that is there holds.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::admissionregistration::v1::ValidatingAdmissionPolicy, apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use crate::{
    api::selector,
    hardening::{ClusterWide, SYSTEM_NAMESPACES, is_system_namespace},
};

/// What [`extent`] begins with for a policy that selects its namespaces: no name holds a space.
pub const SELECTOR: &str = "selector ";
/// Name of the match condition that leaves system namespaces out.
pub(super) const NOT_SYSTEM: &str = "not-system";
/// Name of the match condition that names the namespaces.
pub(super) const NAMESPACE: &str = "namespace";

/// Where a policy of ours holds, for a comparison with where it shall hold: the namespaces that it names,
/// or its selector, with the system namespaces that it leaves in.
#[must_use]
pub fn extent(policy: &ValidatingAdmissionPolicy) -> BTreeSet<String> {
    if let Some(included) = included(policy) {
        let selector = selected(selector_of(policy));
        return included.map(|name| format!("{selector} {name}")).chain([selector.clone()]).collect();
    }
    named(policy, NAMESPACE).into_iter().flatten().map(ToOwned::to_owned).collect()
}

/// Whether a policy of ours holds in a namespace, by its name and labels.
pub fn holds_in(policy: &ValidatingAdmissionPolicy) -> impl Fn(&str, &BTreeMap<String, String>) -> bool {
    let included: Option<BTreeSet<&str>> = included(policy).map(Iterator::collect);
    let selector = selector::parse(&selector_of(policy).cloned().unwrap_or_default(), "spec.namespaceSelector").ok();
    let names = named(policy, NAMESPACE).unwrap_or_default();
    move |namespace, labels| match &included {
        Some(included) => {
            (!is_system_namespace(namespace) || included.contains(namespace))
                && selector.as_ref().is_some_and(|selector| selector.matches_namespace(namespace, labels))
        }
        None => names.contains(namespace),
    }
}

/// The names in a match condition.
fn named<'p>(policy: &'p ValidatingAdmissionPolicy, condition: &str) -> Option<BTreeSet<&'p str>> {
    let mut conditions = policy.spec.as_ref()?.match_conditions.iter().flatten();
    let condition = conditions.find(|it| it.name == condition)?;
    // Every second part between quotes; a namespace's name holds none.
    Some(condition.expression.split('\'').skip(1).step_by(2).collect())
}

/// The system namespaces that a policy leaves in, if it selects its namespaces.
fn included(policy: &ValidatingAdmissionPolicy) -> Option<impl Iterator<Item = &'static str>> {
    let out = named(policy, NOT_SYSTEM)?;
    Some(SYSTEM_NAMESPACES.into_iter().filter(move |name| !out.contains(*name)))
}

fn selector_of(policy: &ValidatingAdmissionPolicy) -> Option<&LabelSelector> {
    policy.spec.as_ref()?.match_constraints.as_ref()?.namespace_selector.as_ref()
}

fn selected(selector: Option<&LabelSelector>) -> String {
    format!("{SELECTOR}{}", serde_json::to_string(&selector).unwrap_or_default())
}

impl ClusterWide {
    /// Where its admission policy holds, or would, as [`extent`] has it.
    #[must_use]
    pub fn place(&self) -> String {
        selected(Some(&self.selector))
    }
}
