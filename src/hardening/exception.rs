//! Exceptions: the one matcher of webhook, floor and command line. The time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rampart_pss::{CHECKS, ContainerKind, Excepted, Values};
use rampart_reach::Selector;

use super::{
    ClusterWide, Origin, RULES, RulesPod, rule_of_check,
    rules::{Pattern, normal},
    value::Value,
};
use crate::api::{self, Invalid, PolicyException, selector};

/// A PolicyException, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Exception {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub policies: BTreeSet<Origin>,
    /// Ids of rules that may be violated: by anything, or by some values alone.
    pub(super) rules: BTreeMap<String, Option<Vec<Value>>>,
    /// Images that it covers.
    pub(super) images: Vec<Pattern>,
    /// Containers that it covers; none: all.
    pub(super) containers: BTreeSet<String>,
    /// Labels of pods that it covers, as the API server is told them.
    pub(super) labels: LabelSelector,
    pods: Selector,
    created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

impl TryFrom<&PolicyException> for Exception {
    type Error = Invalid;

    fn try_from(exception: &PolicyException) -> Result<Self, Invalid> {
        let spec = &exception.spec;
        let pattern = |(index, text): (usize, &String)| {
            Pattern::parse(text).map_err(|problem| Invalid::at(format!("spec.images[{index}]"), problem))
        };
        let labels = spec.pod_selector.clone().unwrap_or_default();
        let origin = |policy: &api::PolicyReference| match policy.kind {
            api::PolicyKind::SecurityPolicy => Origin::SecurityPolicy(policy.name.clone()),
            api::PolicyKind::ClusterSecurityPolicy => Origin::ClusterSecurityPolicy(policy.name.clone()),
        };
        Ok(Self {
            name: exception.metadata.name.clone().unwrap_or_default(),
            policies: spec.policies.iter().map(origin).collect(),
            rules: lifted(spec)?,
            images: spec.images.iter().enumerate().map(pattern).collect::<Result<_, _>>()?,
            containers: spec.containers.iter().cloned().collect(),
            pods: selector::parse(&labels, "spec.podSelector")?,
            labels,
            // One that is being created is as old as it can be without breaking its bound.
            created: exception.metadata.creation_timestamp.as_ref().map_or(spec.expires_at.0, |time| time.0),
            expires: spec.expires_at.0,
        })
    }
}

/// The rules that may be violated, and by which values alone.
fn lifted(spec: &api::PolicyExceptionSpec) -> Result<BTreeMap<String, Option<Vec<Value>>>, Invalid> {
    let checks = CHECKS.iter().map(|check| (rule_of_check(check.id), check.values));
    let all: BTreeMap<String, Option<Values>> =
        checks.chain(RULES.iter().map(|about| (about.rule(), about.values))).collect();
    let mut lifted = BTreeMap::new();
    for (index, rule) in spec.rules.iter().enumerate() {
        if !all.contains_key(rule) {
            let problem =
                format!("{rule:?} is no rule: use an id that `rampart check` names, such as \"pss/privileged\"");
            return Err(Invalid::at(format!("spec.rules[{index}]"), problem));
        }
        lifted.insert(rule.clone(), None);
    }
    for (rule, texts) in &spec.values {
        let at = format!("spec.values[{rule:?}]");
        let Some(narrowed) = lifted.get_mut(rule) else {
            return Err(Invalid::at(at, "narrows a rule that spec.rules does not name: add it there"));
        };
        let Some(Some(kind)) = all.get(rule) else {
            let those: Vec<&str> = all.iter().filter(|(_, kind)| kind.is_some()).map(|(id, _)| id.as_str()).collect();
            let problem =
                format!("it refuses no values one by one: remove it here; those that do: {}", those.join(", "));
            return Err(Invalid::at(at, problem));
        };
        let value = |(index, text): (usize, &String)| {
            Value::parse(*kind, text).map_err(|problem| Invalid::at(format!("{at}[{index}]"), problem))
        };
        *narrowed = Some(texts.0.iter().enumerate().map(value).collect::<Result<_, _>>()?);
    }
    Ok(lifted)
}

impl Exception {
    /// Whether it has not ended.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        now < self.expires
    }

    /// Whether ClusterSecurityPolicies permit it in a namespace.
    ///
    /// # Errors
    /// Why they do not.
    pub fn permitted(&self, namespace: &str, wide: &BTreeMap<String, ClusterWide>) -> Result<(), String> {
        self.policies.iter().try_for_each(|policy| match policy {
            Origin::ClusterSecurityPolicy(name) => match wide.get(name) {
                Some(policy) => self.permitted_by(name, policy, namespace),
                None => Err(format!("there is no ClusterSecurityPolicy {name}")),
            },
            _ => self.permitted_by_any(namespace, wide),
        })
    }

    /// Of a SecurityPolicy: by one that names the namespace.
    fn permitted_by_any(&self, namespace: &str, wide: &BTreeMap<String, ClusterWide>) -> Result<(), String> {
        let mut why = format!("no ClusterSecurityPolicy permits exceptions in {namespace}");
        for (name, policy) in wide.iter().filter(|(_, policy)| policy.permission(namespace).is_some()) {
            match self.permitted_by(name, policy, namespace) {
                Ok(()) => return Ok(()),
                Err(refused) => why = refused,
            }
        }
        Err(why)
    }

    fn permitted_by(&self, name: &str, policy: &ClusterWide, namespace: &str) -> Result<(), String> {
        let Some(permission) = policy.permission(namespace) else {
            return Err(format!("ClusterSecurityPolicy {name} permits no exceptions in {namespace}"));
        };
        let longest = self.created.saturating_add(permission.max_duration).unwrap_or(Timestamp::MAX);
        if self.expires > longest {
            return Err(format!("ClusterSecurityPolicy {name} permits exceptions until {longest} at the latest"));
        }
        Ok(())
    }

    /// Ids of rules that may be violated: by anything, or by some values alone.
    pub fn rules(&self) -> impl Iterator<Item = &String> {
        self.rules.keys()
    }

    /// Whether a rule may be violated by anything.
    fn lifts(&self, rule: &str) -> bool {
        matches!(self.rules.get(rule), Some(None))
    }

    /// Whether a rule may be violated by what was found.
    fn lifts_for(&self, rule: &str, found: &str) -> bool {
        match self.rules.get(rule) {
            Some(Some(values)) => values.iter().any(|value| value.covers(found)),
            Some(None) => true,
            None => false,
        }
    }

    /// Whether it is about a container.
    fn is_about(&self, container: &str, normal_image: &str) -> bool {
        (self.containers.is_empty() || self.containers.contains(container))
            && self.images.iter().any(|pattern| pattern.matches(normal_image))
    }
}

/// What exceptions cover of one pod.
#[derive(Debug)]
pub struct Covered<'e> {
    /// Those that are about a container.
    containers: BTreeMap<(ContainerKind, usize), Vec<&'e Exception>>,
}

impl<'e> Covered<'e> {
    /// `None` where no exception holds, or where it is not known which images the pod runs.
    #[must_use]
    pub fn of(exceptions: &'e [Exception], pod: Option<&RulesPod>, now: Timestamp) -> Option<Self> {
        let (pod, labels) = pod.map(|pod| (pod, pod.labels()))?;
        let holds = |exception: &&Exception| exception.holds(now) && exception.pods.matches(&labels);
        let exceptions: Vec<&Exception> = exceptions.iter().filter(holds).collect();
        if exceptions.is_empty() {
            return None;
        }
        let about = |name: &str, image: &str| {
            let image = normal(image);
            exceptions.iter().copied().filter(|exception| exception.is_about(name, &image)).collect()
        };
        Some(Self { containers: pod.named().map(|(place, name, image)| (place, about(name, image))).collect() })
    }

    /// Whether a rule may be violated: by a container, by a value of one, or by a value of the pod as a
    /// whole, which all its containers must be excepted for.
    #[must_use]
    pub fn covers(&self, rule: &str, what: Excepted<'_>) -> bool {
        match what {
            Excepted::Container(kind, index) => self.any(kind, index, |it| it.lifts(rule)),
            Excepted::ValueOf(kind, index, found) => self.any(kind, index, |it| it.lifts_for(rule, found)),
            Excepted::Value(found) => self.all(|it| it.lifts_for(rule, found)),
        }
    }

    /// Whether a rule may be violated by the pod as a whole: by anything in all its containers.
    #[must_use]
    pub fn covers_pod(&self, rule: &str) -> bool {
        self.all(|it| it.lifts(rule))
    }

    fn any(&self, kind: ContainerKind, index: usize, lifts: impl Fn(&Exception) -> bool) -> bool {
        self.containers.get(&(kind, index)).is_some_and(|about| about.iter().any(|it| lifts(it)))
    }

    fn all(&self, lifts: impl Fn(&Exception) -> bool) -> bool {
        !self.containers.is_empty() && self.containers.values().all(|about| about.iter().any(|it| lifts(it)))
    }
}

/// Where a ClusterSecurityPolicy permits exceptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// The namespaces.
    pub namespaces: BTreeSet<String>,
    /// How long an exception may last.
    pub max_duration: std::time::Duration,
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn wire(more: &Value) -> PolicyException {
        let mut spec = json!({"policies": [{"kind": "SecurityPolicy", "name": "p"}], "rules": [], "images": ["**"],
            "reason": "a test", "expiresAt": "2026-12-31T00:00:00Z"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    #[rstest]
    #[case(json!({"rules": ["pss/*"]}), "spec.rules[0]: \"pss/*\" is no rule")]
    #[case(json!({"rules": ["pss/privileged"], "values": {"pss/sysctls": ["a"]}}),
        "spec.values[\"pss/sysctls\"]: narrows a rule that spec.rules does not name: add it there")]
    #[case(json!({"rules": ["pss/privileged"], "values": {"pss/privileged": ["true"]}}),
        "spec.values[\"pss/privileged\"]: it refuses no values one by one: remove it here; those that do: hardening/cap")]
    #[case(json!({"rules": ["pss/hostPorts"], "values": {"pss/hostPorts": ["80", "http"]}}),
        "spec.values[\"pss/hostPorts\"][1]: \"http\" is no port")]
    fn what_is_wrong_is_told_with_its_field(#[case] spec: Value, #[case] said: &str) {
        let error = Exception::try_from(&wire(&spec)).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }

    /// What exceptions cover of a pod with containers `a` and `b`.
    #[track_caller]
    fn covers(exceptions: &[Value], rule: &str, what: Excepted<'_>) -> bool {
        let exceptions: Vec<Exception> = exceptions.iter().map(|it| Exception::try_from(&wire(it)).unwrap()).collect();
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "web"}, {"name": "b", "image": "agent"}]}});
        let pod: RulesPod = serde_json::from_value(pod).unwrap();
        Covered::of(&exceptions, Some(&pod), Timestamp::UNIX_EPOCH).unwrap().covers(rule, what)
    }

    #[test]
    fn a_value_of_a_container_is_covered_by_one_exception_that_lists_it() {
        let rule = "pss/hostPorts";
        let of = |index, value| Excepted::ValueOf(ContainerKind::Regular, index, value);
        let both = [json!({"rules": [rule], "values": {rule: ["80"]}, "containers": ["b"]}), json!({"rules": [rule]})];
        let agent = &both[..1];
        assert!(covers(agent, rule, of(1, "80")));
        assert!(!covers(agent, rule, of(1, "81")), "not listed");
        assert!(!covers(agent, rule, of(0, "80")), "of the other container");
        assert!(!covers(agent, "hardening/hostPorts", of(1, "80")), "of the other rule");
        assert!(!covers(agent, rule, Excepted::Container(ContainerKind::Regular, 1)), "not for anything");
        assert!(covers(&both, rule, of(0, "81")), "another is for anything");
    }

    #[test]
    fn a_value_of_the_pod_is_covered_where_all_its_containers_are() {
        let rule = "pss/sysctls";
        let for_one = |name: &str| json!({"rules": [rule], "values": {rule: ["kernel.msgmax"]}, "containers": [name]});
        let found = Excepted::Value("kernel.msgmax");
        assert!(!covers(&[for_one("a")], rule, found));
        assert!(covers(&[for_one("a"), for_one("b")], rule, found));
        assert!(covers(&[for_one("a"), json!({"rules": [rule], "containers": ["b"]})], rule, found));
        assert!(!covers(&[for_one("a"), for_one("b")], rule, Excepted::Value("kernel.msgmnb")));
    }
}
