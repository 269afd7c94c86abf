//! Exceptions: the one matcher of webhook, floor and command line. The time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rampart_pss::{CHECKS, ContainerKind};
use rampart_reach::Selector;

use super::{
    ClusterWide, Origin, RULES, RulesPod, rule_of_check,
    rules::{Pattern, normal},
};
use crate::api::{self, Invalid, PolicyException, selector};

/// A PolicyException, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Exception {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub policies: BTreeSet<Origin>,
    /// Ids of rules that may be violated.
    pub rules: BTreeSet<String>,
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
        for (index, rule) in spec.rules.iter().enumerate() {
            if !is_rule(rule) {
                let problem =
                    format!("{rule:?} is no rule: use an id that `rampart check` names, such as \"pss/privileged\"");
                return Err(Invalid::at(format!("spec.rules[{index}]"), problem));
            }
        }
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
            rules: spec.rules.iter().cloned().collect(),
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

fn is_rule(id: &str) -> bool {
    CHECKS.iter().any(|check| rule_of_check(check.id) == id) || RULES.iter().any(|about| about.rule() == id)
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

    /// Whether it is about a container.
    fn is_about(&self, container: &str, normal_image: &str) -> bool {
        (self.containers.is_empty() || self.containers.contains(container))
            && self.images.iter().any(|pattern| pattern.matches(normal_image))
    }
}

/// What exceptions cover of one pod.
#[derive(Debug)]
pub struct Covered<'e> {
    /// Rules by container.
    containers: BTreeMap<(ContainerKind, usize), BTreeSet<&'e str>>,
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
        let rules = |name: &str, image: &str| -> BTreeSet<&'e str> {
            let image = normal(image);
            let about = exceptions.iter().filter(|exception| exception.is_about(name, &image));
            about.flat_map(|exception| exception.rules.iter().map(String::as_str)).collect()
        };
        Some(Self { containers: pod.named().map(|(place, name, image)| (place, rules(name, image))).collect() })
    }

    /// Whether a rule may be violated by a container.
    #[must_use]
    pub fn covers(&self, rule: &str, kind: ContainerKind, index: usize) -> bool {
        self.containers.get(&(kind, index)).is_some_and(|rules| rules.contains(rule))
    }

    /// Whether a rule may be violated by the pod as a whole: all its containers may.
    #[must_use]
    pub fn covers_pod(&self, rule: &str) -> bool {
        !self.containers.is_empty() && self.containers.values().all(|rules| rules.contains(rule))
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
