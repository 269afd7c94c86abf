//! Which namespaces a policy covers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rampart_reach::Selector;

use super::{Exception, Permission, Requirement, Standard};
use crate::{
    api::{
        AdmissionPolicy, ClusterSecurityPolicy, ClusterSecurityPolicySpec, HardeningMode, Invalid, NetworkMode,
        selector,
    },
    keys::PolicyCaps,
    network::{Intent, meets},
};

/// Namespaces whose pods are never judged by the webhook: judging them could keep a cluster from
/// starting.
pub const SYSTEM_NAMESPACES: [&str; 5] =
    ["kube-system", "kube-public", "kube-node-lease", "rampart-system", "rampart-keys"];

/// Whether a namespace is the cluster's or Rampart's own.
#[must_use]
pub fn is_system_namespace(name: &str) -> bool {
    SYSTEM_NAMESPACES.contains(&name)
}

/// A ClusterSecurityPolicy, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterWide {
    /// What it asks of pods.
    pub requirement: Requirement,
    /// How it isolates them, unless that is disabled.
    pub network: Option<Arc<Intent>>,
    /// Whether it does, or only tells what would change.
    pub network_mode: NetworkMode,
    /// The namespaces, as the API server is told them.
    pub selector: LabelSelector,
    /// System namespaces that are left in.
    pub included: BTreeSet<String>,
    /// What it allows ApiKeys.
    pub key_caps: Option<Arc<PolicyCaps>>,
    /// Where it permits exceptions.
    pub exceptions: Option<Permission>,
    parsed: Selector,
}

impl TryFrom<&ClusterSecurityPolicy> for ClusterWide {
    type Error = Invalid;

    fn try_from(policy: &ClusterSecurityPolicy) -> Result<Self, Invalid> {
        match Self::hardening_of(policy, None)? {
            (policy, None) => Ok(policy),
            (_, Some(invalid)) => Err(invalid),
        }
    }
}

impl ClusterWide {
    /// What it asks of pods; and what is wrong with its other parts, which must not take that away. One that can't be read
    /// says what it said `before`.
    ///
    /// # Errors
    /// When it can't be read what it asks of pods, or of which.
    pub fn hardening_of(
        policy: &ClusterSecurityPolicy,
        before: Option<&Self>,
    ) -> Result<(Self, Option<Invalid>), Invalid> {
        let spec = &policy.spec;
        let requirement = spec.hardening.as_ref().map_or_else(|| Ok(Requirement::none()), Requirement::try_from)?;
        refuses_where_included(policy, &requirement)?;
        let mut asked = Self {
            requirement,
            network: before.and_then(|before| before.network.clone()),
            network_mode: before.map_or(NetworkMode::Disabled, |before| before.network_mode),
            key_caps: before.and_then(|before| before.key_caps.clone()),
            parsed: selector::parse(&spec.namespace_selector, "spec.namespaceSelector")?,
            selector: normal(&spec.namespace_selector),
            exceptions: spec.exceptions.as_ref().map(|exceptions| Permission {
                namespaces: exceptions.namespaces.iter().cloned().collect(),
                max_duration: exceptions.max_duration.get(),
            }),
            included: spec.include_system_namespaces.iter().map(|name| name.as_str().to_owned()).collect(),
        };
        let network = isolation(spec).map(|(network, mode)| (asked.network, asked.network_mode) = (network, mode));
        let key_caps = spec.api_keys.as_ref().map(PolicyCaps::try_from).transpose();
        let key_caps = key_caps.map(|key_caps| asked.key_caps = key_caps.map(Arc::new));
        Ok((asked, network.and(key_caps).err()))
    }
}

/// How a policy isolates pods, unless that is disabled.
fn isolation(spec: &ClusterSecurityPolicySpec) -> Result<(Option<Arc<Intent>>, NetworkMode), Invalid> {
    let mode = spec.network.as_ref().map_or(NetworkMode::Disabled, |network| network.mode);
    let network = spec.network.as_ref().map(Intent::try_from).transpose()?;
    let network = network.filter(|_| mode != NetworkMode::Disabled);
    meets(spec.data_class, network.as_ref())?;
    Ok((network.map(Arc::new), mode))
}

/// System namespaces are left in for the admission policy alone: without one, nothing would be refused there.
fn refuses_where_included(policy: &ClusterSecurityPolicy, requirement: &Requirement) -> Result<(), Invalid> {
    let alone = requirement.mode == HardeningMode::Enforce && requirement.admission_policy == AdmissionPolicy::None;
    if !alone || policy.spec.include_system_namespaces.is_empty() {
        return Ok(());
    }
    let problem = "nothing would be refused there with hardening.admissionPolicy: None, for no webhook is asked about system namespaces: set Generate, or leave them out";
    Err(Invalid::at("spec.includeSystemNamespaces", problem))
}

impl ClusterWide {
    /// How it permits exceptions in a namespace.
    pub(super) fn permission(&self, namespace: &str) -> Option<&Permission> {
        self.exceptions.as_ref().filter(|permission| permission.namespaces.contains(namespace))
    }

    /// Whether its network part is about a namespace; never about a system namespace, whatever is included.
    #[must_use]
    pub fn isolates(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.network.is_some() && !is_system_namespace(namespace) && self.parsed.matches_namespace(namespace, labels)
    }

    /// Whether it may cover a namespace of this name: it is no system namespace, or is left in.
    #[must_use]
    pub fn leaves_in(&self, namespace: &str) -> bool {
        !is_system_namespace(namespace) || self.included.contains(namespace)
    }

    /// Whether it covers a namespace.
    #[must_use]
    pub fn covers(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.leaves_in(namespace) && self.parsed.matches_namespace(namespace, labels)
    }
}

/// As the API server stores it: without what is empty.
fn normal(selector: &LabelSelector) -> LabelSelector {
    let mut selector = selector.clone();
    selector.match_labels = selector.match_labels.filter(|labels| !labels.is_empty());
    selector.match_expressions = selector.match_expressions.filter(|expressions| !expressions.is_empty());
    for expression in selector.match_expressions.iter_mut().flatten() {
        expression.values = expression.values.take().filter(|values| !values.is_empty());
    }
    selector
}

/// Exceptions that are permitted and have not ended.
pub type Exceptions = Vec<Exception>;

impl Demand {
    /// When the first exception ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        let own = self.namespaces.values().flat_map(BTreeMap::values);
        let wide = self.clusters.values().flat_map(|(_, exceptions)| exceptions.values());
        own.chain(wide).flatten().map(|exception| exception.expires).min()
    }

    /// Its exceptions, each once: namespace, name, and when it ends.
    #[must_use]
    pub fn exceptions(&self) -> BTreeSet<(&str, &str, Timestamp)> {
        let own = self.namespaces.iter();
        let own = own.flat_map(|(namespace, standards)| standards.values().map(move |it| (namespace, it)));
        let wide = self.clusters.values().flat_map(|(_, exceptions)| exceptions);
        let named = own.chain(wide).flat_map(|(namespace, exceptions)| {
            exceptions.iter().map(move |it| (namespace.as_str(), it.name.as_str(), it.expires))
        });
        named.collect()
    }
}

/// The oldest of the policies that ask for something: when it was made, its namespace and its name. No edit of it changes
/// that, and of two the older is the smaller.
pub type Eldest = (Option<Timestamp>, String, String);

/// What shall be enforced by admission policies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Demand {
    /// Standards by namespace, of SecurityPolicies, with the exceptions that name every policy that asks them
    /// there.
    pub namespaces: BTreeMap<String, BTreeMap<Standard, Exceptions>>,
    /// The oldest of the policies that ask for each of these standards.
    pub eldest: BTreeMap<Standard, Eldest>,
    /// Of ClusterSecurityPolicies, by name, with the exceptions of each namespace.
    pub clusters: BTreeMap<String, (ClusterWide, BTreeMap<String, Exceptions>)>,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::nothing_would_refuse("Enforce", "None", json!(["kube-system"]), false)]
    #[case::the_admission_policy_does("Enforce", "Generate", json!(["kube-system"]), true)]
    #[case::none_is_included("Enforce", "None", json!([]), true)]
    #[case::nothing_is_to_be_refused("Warn", "None", json!(["kube-system"]), true)]
    fn system_namespaces_are_included_for_the_admission_policy_alone(
        #[case] mode: &str,
        #[case] admission_policy: &str,
        #[case] included: serde_json::Value,
        #[case] is_valid: bool,
    ) {
        let policy = json!({"metadata": {"name": "a"}, "spec": {
            "namespaceSelector": {}, "includeSystemNamespaces": included,
            "hardening": {"mode": mode, "podSecurity": {"level": "baseline"}, "admissionPolicy": admission_policy}}});
        let policy: ClusterSecurityPolicy = serde_json::from_value(policy).unwrap();
        let refused = ClusterWide::try_from(&policy).err();
        assert_eq!(refused.is_none(), is_valid, "{refused:?}");
        assert!(refused.is_none_or(|invalid| invalid.field == "spec.includeSystemNamespaces"));
        // The API server says the same.
        let said = policy.validate_cel().err().map(|errors| errors.to_string()).unwrap_or_default();
        assert_eq!(!said.contains("includeSystemNamespaces"), is_valid, "{said}");
    }

    #[test]
    fn a_selector_is_kept_as_the_api_server_stores_it() {
        let selector = serde_json::json!({
            "matchLabels": {}, "matchExpressions": [{"key": "a", "operator": "Exists", "values": []}],
        });
        let normal = normal(&serde_json::from_value(selector).unwrap());
        let stored = serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
        assert_eq!(serde_json::to_value(normal).unwrap(), stored);
    }
}
