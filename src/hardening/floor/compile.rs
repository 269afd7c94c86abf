//! From what namespaces enforce to ValidatingAdmissionPolicies and their bindings.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use sha2::{Digest as _, Sha256};

use super::{
    content::{Content, short},
    exceptions::ByNamespace,
    extent::{NAMESPACE, NOT_SYSTEM},
    updates,
};
use crate::{
    api::labels::{FLOOR, MANAGED_BY, MANAGER, PART},
    hardening::{ClusterWide, Demand, Exceptions, SYSTEM_NAMESPACES, Standard, cel::strings},
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
    /// Exceptions that it has no room for, by namespace and name.
    pub left_out: BTreeSet<(String, String)>,
}

/// Where an admission policy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Compiles what shall be enforced.
///
/// Deterministic: the same input gives the same names and the same text. A standard that needs a check
/// that has no form here gives nothing: it would be a floor with a hole.
#[must_use]
pub fn compile(demand: &Demand) -> Vec<Floor> {
    let mut namespaces: BTreeMap<&Standard, Vec<(&str, &Exceptions)>> = BTreeMap::new();
    for (namespace, standards) in &demand.namespaces {
        for (standard, exceptions) in standards {
            namespaces.entry(standard).or_default().push((namespace, exceptions));
        }
    }
    let mut floors = vec![];
    for (standard, namespaces) in namespaces {
        let Some(content) = Content::of(standard) else { continue };
        for (shard, part) in shards(&namespaces).into_iter().enumerate() {
            let excepted = part.iter().filter(|(_, exceptions)| !exceptions.is_empty());
            let excepted: ByNamespace<'_> = excepted.map(|(name, exceptions)| (*name, exceptions.as_slice())).collect();
            let names = part.iter().map(|(name, _)| (*name).to_owned()).collect();
            floors.extend(content.lifted(&excepted).map(|content| content.named(shard, names)));
        }
    }
    floors.extend(compile_wide(demand));
    floors
}

/// Equal policies share one, with the exceptions that name all of them.
fn compile_wide(demand: &Demand) -> Vec<Floor> {
    let mut groups: Vec<(&ClusterWide, BTreeMap<String, Exceptions>, Vec<String>)> = vec![];
    for (name, (policy, exceptions)) in &demand.clusters {
        let same = |other: &ClusterWide| {
            other.requirement.standard() == policy.requirement.standard()
                && (&other.selector, &other.included) == (&policy.selector, &policy.included)
        };
        match groups.iter_mut().find(|(other, ..)| same(other)) {
            Some((_, shared, names)) => {
                for (namespace, shared) in shared.iter_mut() {
                    shared.retain(|exception| exceptions.get(namespace).is_some_and(|them| them.contains(exception)));
                }
                shared.retain(|_, exceptions| !exceptions.is_empty());
                names.push(name.clone());
            }
            None => groups.push((policy, exceptions.clone(), vec![name.clone()])),
        }
    }
    // Made once for each standard: there may be thousands of policies, and a handful of these.
    let standards: BTreeSet<Standard> = groups.iter().map(|(policy, ..)| policy.requirement.standard()).collect();
    let contents: BTreeMap<Standard, Content> = standards
        .into_iter()
        .filter_map(|standard| Content::of(&standard).map(|content| (standard, content)))
        .collect();
    let floor = |(policy, exceptions, names): (&ClusterWide, BTreeMap<String, Exceptions>, Vec<String>)| {
        let excepted = exceptions.iter().map(|(name, exceptions)| (name.as_str(), exceptions.as_slice())).collect();
        let content = contents.get(&policy.requirement.standard())?.lifted(&excepted)?;
        Some(content.selected(names, policy))
    };
    groups.into_iter().filter_map(floor).collect()
}

/// Cuts a list of names so that each part fits an expression.
fn shards<'d>(namespaces: &[(&'d str, &'d Exceptions)]) -> Vec<Vec<(&'d str, &'d Exceptions)>> {
    let mut shards: Vec<Vec<_>> = vec![];
    let mut length = SHARD;
    for place in namespaces {
        let more = place.0.len().saturating_add(4);
        length = length.saturating_add(more);
        if length > SHARD {
            shards.push(vec![]);
            length = more;
        }
        if let Some(shard) = shards.last_mut() {
            shard.push(*place);
        }
    }
    shards
}

impl Content {
    fn named(&self, shard: usize, namespaces: Vec<String>) -> Floor {
        let here = condition(NAMESPACE, in_namespaces(&namespaces));
        self.floor(self.shard_name(shard), here, LabelSelector::default(), Place::Named(namespaces))
    }

    /// With exceptions, where there are any.
    fn lifted(&self, excepted: &ByNamespace<'_>) -> Option<Cow<'_, Self>> {
        if excepted.is_empty() { Some(Cow::Borrowed(self)) } else { self.with(excepted).map(Cow::Owned) }
    }

    fn selected(&self, names: Vec<String>, policy: &ClusterWide) -> Floor {
        let out = SYSTEM_NAMESPACES.iter().filter(|name| !policy.included.contains(**name));
        let here = condition(NOT_SYSTEM, format!("!(request.namespace in {})", strings(out)));
        let mut digest = Sha256::new();
        digest.update(serde_json::to_string(&policy.selector).unwrap_or_default());
        digest.update(&here.expression);
        let name = format!("{}-{}", self.base, short(digest));
        self.floor(name, here, policy.selector.clone(), Place::Selected(names))
    }

    fn floor(&self, name: String, here: MatchCondition, selector: LabelSelector, place: Place) -> Floor {
        let labels = [(MANAGED_BY, MANAGER), (PART, FLOOR)].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let metadata = ObjectMeta { name: Some(name.clone()), labels: Some(labels.into()), ..ObjectMeta::default() };
        let spec = ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".into()),
            match_constraints: Some(pods(selector)),
            match_conditions: Some(vec![here, updates::condition(self.standard.rules.asked())]),
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
            left_out: self.left_out.clone(),
        }
    }
}

fn in_namespaces<'a>(namespaces: impl IntoIterator<Item = &'a String>) -> String {
    format!("request.namespace in {}", strings(namespaces))
}

fn condition(name: &str, expression: String) -> MatchCondition {
    MatchCondition { name: name.into(), expression }
}

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
    use crate::hardening::{Rules, extent};

    fn enforced(names: &[&str], level: Level, version: Version) -> Demand {
        let standard = Standard { level, version, rules: Rules::default() };
        let namespaces = names.iter().map(|name| ((*name).to_owned(), [(standard.clone(), vec![])].into())).collect();
        Demand { namespaces, ..Demand::default() }
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
        let clusters = [
            ("one".to_owned(), selecting("web", &[])),
            ("same".to_owned(), selecting("web", &[])),
            ("other".to_owned(), selecting("db", &["kube-system"])),
        ];
        let clusters = clusters.into_iter().map(|(name, policy)| (name, (policy, BTreeMap::new()))).collect();
        let floors = compile(&Demand { clusters, ..Demand::default() });
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
        assert!(extent(&floors[0].policy).contains(&selecting("web", &[]).place()));
        assert!(extent(&floors[1].policy).contains(&selecting("db", &[]).place()));
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

    /// How long the variables are together; each is there once.
    fn length(floor: &Floor) -> usize {
        let variables = floor.policy.spec.clone().unwrap().variables.unwrap();
        let names: BTreeSet<&str> = variables.iter().map(|variable| variable.name.as_str()).collect();
        assert_eq!(names.len(), variables.len(), "a variable is there twice");
        variables.iter().map(|variable| variable.expression.len()).sum()
    }

    #[test]
    fn rules_and_exceptions_have_variables_of_their_own() {
        let wire = serde_json::json!({
            "readOnlyRootFilesystem": "Required", "hostPorts": {"allow": []}, "probes": ["liveness"],
            "capabilities": {"allowAdd": []}, "seccomp": {}, "images": {"forbidTags": ["latest"]},
        });
        let wire: crate::api::Rules = serde_json::from_value(wire).unwrap();
        let ids = rampart_pss::CHECKS.iter().map(|check| format!("pss/{}", check.id));
        let ids: Vec<String> =
            ids.chain(crate::hardening::RULES.iter().map(|about| format!("hardening/{}", about.id))).collect();
        let exception = serde_json::json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "PolicyException", "metadata": {"name": "e"},
            "spec": {"policies": [{"kind": "SecurityPolicy", "name": "p"}], "rules": ids, "images": ["**"],
                     "reason": "a test", "expiresAt": "2027-01-01T00:00:00Z"},
        });
        let exception: crate::api::PolicyException = serde_json::from_value(exception).unwrap();
        let exception = crate::hardening::Exception::try_from(&exception).unwrap();
        let rules = Rules::try_from(&wire).unwrap();
        let standard = Standard { level: Level::Restricted, version: Version::LATEST, rules };
        let demand = |exceptions: Exceptions| Demand {
            namespaces: [("a".to_owned(), [(standard.clone(), exceptions)].into())].into(),
            ..Demand::default()
        };
        let (plain, lifted) = (compile(&demand(vec![])), compile(&demand(vec![exception])));
        assert!(length(&plain[0]) < length(&lifted[0]));
        assert_eq!(plain[0].policy.metadata.name, lifted[0].policy.metadata.name, "it is changed in place");
    }

    #[test]
    fn what_is_spelt_differently_never_shares_a_name() {
        let standard = |rules: serde_json::Value| {
            let wire: crate::api::Rules = serde_json::from_value(rules).unwrap();
            Standard { level: Level::Restricted, version: Version::LATEST, rules: Rules::try_from(&wire).unwrap() }
        };
        let [plain, empty] = [standard(serde_json::json!({})), standard(serde_json::json!({"images": {}}))];
        let of = |standard: Standard| [(standard, vec![])].into();
        let namespaces = [("a".to_owned(), of(plain)), ("b".to_owned(), of(empty))].into();
        let floors = compile(&Demand { namespaces, ..Demand::default() });
        let names: BTreeSet<_> = floors.iter().map(|floor| floor.policy.metadata.name.clone()).collect();
        assert_eq!((floors.len(), names.len()), (2, 2));
    }

    #[test]
    fn every_version_has_a_floor_whose_expressions_fit() {
        for level in [Level::Baseline, Level::Restricted] {
            for minor in 0..=Version::NEWEST_MINOR {
                let floors = compile(&enforced(&["a"], level, Version::minor(minor)));
                assert_eq!(floors.len(), 1, "{level}:{minor}: a check has no form");
                assert!(length(&floors[0]) < 30_000);
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
