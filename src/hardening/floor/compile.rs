//! From what namespaces enforce to ValidatingAdmissionPolicies and their bindings.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use sha2::{Digest as _, Sha256};

use super::content::{Content, short};
use crate::{
    api::labels::{FLOOR, MANAGED_BY, MANAGER, PART},
    hardening::{ClusterWide, Demand, SYSTEM_NAMESPACES, Standard, cel::strings},
};

/// Longest list of namespaces in one expression, in characters; the API server admits 100,000.
const SHARD: usize = 60_000;

/// An admission policy and its binding, which has the same name.
#[derive(Debug, Clone, PartialEq)]
pub struct Floor {
    /// What is refused, and where.
    pub policy: ValidatingAdmissionPolicy,
    /// Puts it into force.
    pub binding: ValidatingAdmissionPolicyBinding,
    /// What is enforced.
    pub standard: Standard,
    /// Where.
    pub place: Place,
}

/// Where an admission policy holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// In namespaces by name: what SecurityPolicies ask.
    Named(Vec<String>),
    /// In namespaces by label: what the ClusterSecurityPolicies of these names ask.
    Selected(Vec<String>),
}

impl Floor {
    /// The same in more namespaces, where it names them: so that none is without while others change.
    #[must_use]
    pub fn widened(mut self, more: &BTreeSet<String>) -> Self {
        let Place::Named(namespaces) = &self.place else { return self };
        let all: BTreeSet<String> = namespaces.iter().chain(more).cloned().collect();
        let conditions = self.policy.spec.iter_mut().flat_map(|spec| spec.match_conditions.iter_mut().flatten());
        for condition in conditions.filter(|condition| condition.name == NAMESPACE) {
            condition.expression = in_namespaces(&all);
        }
        self
    }
}

/// Where a policy of ours holds, for a comparison with where it shall hold: the namespaces that it names,
/// or its selector.
#[must_use]
pub fn extent(policy: &ValidatingAdmissionPolicy) -> BTreeSet<String> {
    let spec = policy.spec.as_ref();
    let conditions = || spec.iter().flat_map(|spec| spec.match_conditions.iter().flatten());
    if conditions().any(|condition| condition.name == NOT_SYSTEM) {
        let selector = spec.and_then(|spec| spec.match_constraints.as_ref()?.namespace_selector.as_ref());
        return [format!("{SELECTOR} {}", serde_json::to_string(&selector).unwrap_or_default())].into();
    }
    let named = conditions().filter(|condition| condition.name == NAMESPACE);
    // Every second part between quotes; a namespace's name holds none.
    named.flat_map(|condition| condition.expression.split('\'').skip(1).step_by(2)).map(ToOwned::to_owned).collect()
}

/// What [`extent`] begins with for a policy that selects its namespaces: no name holds a space.
pub const SELECTOR: &str = "selector";
/// Name of the match condition that leaves system namespaces out.
const NOT_SYSTEM: &str = "not-system";
/// Name of the match condition that names the namespaces.
const NAMESPACE: &str = "namespace";

/// Compiles what shall be enforced.
///
/// Deterministic: the same input gives the same names and the same text. A standard that needs a check
/// that has no form here gives nothing: it would be a floor with a hole.
#[must_use]
pub fn compile(demand: &Demand) -> Vec<Floor> {
    let mut namespaces: BTreeMap<&Standard, Vec<&str>> = BTreeMap::new();
    for (namespace, standards) in &demand.namespaces {
        for standard in standards {
            namespaces.entry(standard).or_default().push(namespace);
        }
    }
    let wide = demand.clusters.iter().map(|(name, policy)| (name, policy, policy.requirement.standard()));
    let wide: Vec<_> = wide.collect();
    // Made once for each standard: there may be thousands of policies, and a handful of these.
    let standards: BTreeSet<&Standard> = namespaces.keys().copied().chain(wide.iter().map(|(.., it)| it)).collect();
    let contents: BTreeMap<&Standard, Content> =
        standards.into_iter().filter_map(|standard| Some((standard, Content::of(standard)?))).collect();
    let mut floors = vec![];
    for (standard, namespaces) in namespaces {
        let Some(content) = contents.get(standard) else { continue };
        let shards = shards(&namespaces).into_iter().enumerate();
        floors.extend(shards.map(|(shard, namespaces)| content.named(shard, namespaces)));
    }
    for (name, policy, standard) in &wide {
        let Some(content) = contents.get(standard) else { continue };
        let floor = content.selected(name, policy);
        match floors.iter_mut().find(|other| other.policy == floor.policy) {
            // Equal policies share one.
            Some(Floor { place: Place::Selected(names), .. }) => names.push((*name).clone()),
            _ => floors.push(floor),
        }
    }
    floors
}

/// Cuts a list of names so that each part fits an expression.
fn shards(namespaces: &[&str]) -> Vec<Vec<String>> {
    let mut shards: Vec<Vec<String>> = vec![];
    let mut length = SHARD;
    for namespace in namespaces {
        let more = namespace.len().saturating_add(4);
        length = length.saturating_add(more);
        if length > SHARD {
            shards.push(vec![]);
            length = more;
        }
        if let Some(shard) = shards.last_mut() {
            shard.push((*namespace).to_owned());
        }
    }
    shards
}

impl Content {
    fn named(&self, shard: usize, namespaces: Vec<String>) -> Floor {
        let here = condition(NAMESPACE, in_namespaces(&namespaces));
        self.floor(format!("{}-{shard}", self.base), here, LabelSelector::default(), Place::Named(namespaces))
    }

    fn selected(&self, name: &str, policy: &ClusterWide) -> Floor {
        let out = SYSTEM_NAMESPACES.iter().filter(|name| !policy.included.contains(**name));
        let here = condition(NOT_SYSTEM, format!("!(request.namespace in {})", strings(out)));
        let mut digest = Sha256::new();
        digest.update(serde_json::to_string(&policy.selector).unwrap_or_default());
        digest.update(&here.expression);
        let place = Place::Selected(vec![name.to_owned()]);
        self.floor(format!("{}-{}", self.base, short(digest)), here, policy.selector.clone(), place)
    }

    fn floor(&self, name: String, here: MatchCondition, selector: LabelSelector, place: Place) -> Floor {
        let labels = [(MANAGED_BY, MANAGER), (PART, FLOOR)].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let metadata = ObjectMeta { name: Some(name.clone()), labels: Some(labels.into()), ..ObjectMeta::default() };
        let spec = ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".into()),
            match_constraints: Some(pods(selector)),
            match_conditions: Some(vec![here, condition("significant", SIGNIFICANT.into())]),
            variables: Some(self.variables.clone()),
            validations: Some(vec![self.validation.clone()]),
            ..ValidatingAdmissionPolicySpec::default()
        };
        let binding = ValidatingAdmissionPolicyBindingSpec {
            policy_name: name,
            validation_actions: vec!["Deny".into()],
            ..ValidatingAdmissionPolicyBindingSpec::default()
        };
        Floor {
            policy: ValidatingAdmissionPolicy {
                metadata: metadata.clone(),
                spec: Some(spec),
                ..ValidatingAdmissionPolicy::default()
            },
            binding: ValidatingAdmissionPolicyBinding { metadata, spec: binding },
            standard: self.standard.clone(),
            place,
        }
    }
}

fn in_namespaces<'a>(namespaces: impl IntoIterator<Item = &'a String>) -> String {
    format!("request.namespace in {}", strings(namespaces))
}

fn condition(name: &str, expression: String) -> MatchCondition {
    MatchCondition { name: name.into(), expression }
}

/// The reference's `isSignificantPodUpdate`: an update that changes neither number nor image of
/// containers, and adds no ephemeral one, is not judged.
const SIGNIFICANT: &str = "request.operation == 'CREATE' || !(\
    object.spec.containers.map(c, c.?image.orValue('')) == oldObject.spec.containers.map(c, c.?image.orValue('')) && \
    object.spec.?initContainers.orValue([]).map(c, c.?image.orValue('')) == \
    oldObject.spec.?initContainers.orValue([]).map(c, c.?image.orValue('')) && \
    object.spec.?ephemeralContainers.orValue([]).all(c, oldObject.spec.?ephemeralContainers.orValue([]).exists(o, \
    o.name == c.name && o.?image.orValue('') == c.?image.orValue(''))))";

/// Pods and the two subresources that change what runs in them: never `pods/*`, which breaks scheduling.
fn pods(namespaces: LabelSelector) -> MatchResources {
    let rule = |operations: &[&str], resources: &[&str]| {
        let owned = |items: &[&str]| Some(items.iter().map(|item| (*item).to_owned()).collect());
        NamedRuleWithOperations {
            api_groups: owned(&[""]),
            api_versions: owned(&["v1"]),
            operations: owned(operations),
            resources: owned(resources),
            resource_names: None,
            scope: Some("Namespaced".into()),
        }
    };
    MatchResources {
        match_policy: Some("Equivalent".into()),
        namespace_selector: Some(namespaces),
        object_selector: Some(LabelSelector::default()),
        resource_rules: Some(vec![
            rule(&["CREATE", "UPDATE"], &["pods"]),
            rule(&["UPDATE"], &["pods/ephemeralcontainers", "pods/resize"]),
        ]),
        exclude_resource_rules: None,
    }
}

#[cfg(test)]
mod tests {
    use rampart_pss::{Level, Version};

    use super::*;
    use crate::hardening::Rules;

    fn enforced(names: &[&str], level: Level, version: Version) -> Demand {
        let standard = Standard { level, version, rules: Rules::default() };
        let namespaces = names.iter().map(|name| ((*name).to_owned(), [standard.clone()].into())).collect();
        Demand { namespaces, clusters: BTreeMap::new() }
    }

    fn selecting(label: &str, included: &[&str]) -> ClusterWide {
        let policy = serde_json::json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "a"},
            "spec": {
                "namespaceSelector": {"matchLabels": {"tier": label}}, "includeSystemNamespaces": included,
                "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}},
            },
        });
        let policy: crate::api::ClusterSecurityPolicy = serde_json::from_value(policy).unwrap();
        ClusterWide::try_from(&policy).unwrap()
    }

    #[test]
    fn a_cluster_policy_keeps_its_selector_and_leaves_system_namespaces_out() {
        let clusters: BTreeMap<String, ClusterWide> = [
            ("one".to_owned(), selecting("web", &[])),
            ("same".to_owned(), selecting("web", &[])),
            ("other".to_owned(), selecting("db", &["kube-system"])),
        ]
        .into();
        let floors = compile(&Demand { clusters, namespaces: BTreeMap::new() });
        let places: Vec<&Place> = floors.iter().map(|floor| &floor.place).collect();
        assert_eq!(
            places,
            [&Place::Selected(vec!["one".into(), "same".into()]), &Place::Selected(vec!["other".into()])]
        );
        let spec = floors[0].policy.spec.as_ref().unwrap();
        let selector = spec.match_constraints.as_ref().unwrap().namespace_selector.as_ref().unwrap();
        assert_eq!(selector.match_labels.as_ref().unwrap()["tier"], "web");
        assert!(spec.match_conditions.as_ref().unwrap()[0].expression.contains("'kube-system'"));
        let other = floors[1].policy.spec.as_ref().unwrap();
        assert!(!other.match_conditions.as_ref().unwrap()[0].expression.contains("'kube-system'"));
        assert!(other.match_conditions.as_ref().unwrap()[0].expression.contains("'rampart-system'"));
        assert_ne!(extent(&floors[0].policy), extent(&floors[1].policy));
    }

    #[test]
    fn equal_requirements_share_a_policy_and_privileged_needs_none() {
        let floors = compile(&enforced(&["a", "b"], Level::Restricted, Version::LATEST));
        let [floor] = floors.as_slice() else { panic!("{} policies", floors.len()) };
        let conditions = floor.policy.spec.as_ref().unwrap().match_conditions.as_ref().unwrap();
        assert_eq!(conditions[0].expression, "request.namespace in ['a', 'b']");
        assert_eq!(extent(&floor.policy), ["a".to_owned(), "b".to_owned()].into());
        let wider = floor.clone().widened(&["b".to_owned(), "c".to_owned()].into());
        assert_eq!(extent(&wider.policy), ["a".to_owned(), "b".to_owned(), "c".to_owned()].into());
        assert!(compile(&enforced(&["a"], Level::Privileged, Version::LATEST)).is_empty());
    }

    #[test]
    fn every_version_has_a_floor_whose_expressions_fit() {
        for level in [Level::Baseline, Level::Restricted] {
            for minor in 0..=Version::NEWEST_MINOR {
                let floors = compile(&enforced(&["a"], level, Version::minor(minor)));
                assert_eq!(floors.len(), 1, "{level}:{minor}: a check has no form");
                let spec = floors[0].policy.spec.clone().unwrap();
                let variables = spec.variables.unwrap();
                let names: BTreeSet<&str> = variables.iter().map(|variable| variable.name.as_str()).collect();
                assert_eq!(names.len(), variables.len(), "a variable is there twice");
                let whole: usize = variables.iter().map(|variable| variable.expression.len()).sum();
                assert!(whole < 30_000, "{whole} characters");
            }
        }
    }

    #[test]
    fn many_namespaces_are_cut_into_shards_that_hold_each_once() {
        let names: Vec<String> = (0..5_000).map(|number| format!("namespace-with-a-long-name-{number:05}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let floors = compile(&enforced(&names, Level::Baseline, Version::LATEST));
        assert!(floors.len() > 1);
        let mut seen = 0;
        for floor in &floors {
            let expression = &floor.policy.spec.as_ref().unwrap().match_conditions.as_ref().unwrap()[0].expression;
            assert!(expression.chars().count() < 100_000);
            seen += expression.matches("namespace-with").count();
        }
        assert_eq!(seen, names.len());
    }
}
