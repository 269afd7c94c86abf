//! Rules that pods violate, as statuses of policies name them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::policies::Read;

/// A rule, and who violates it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// The rule's id, as PolicyExceptions name it.
    pub rule: String,
    /// Pods of the workloads that are named.
    pub pods: u32,
    /// Workloads, by namespace, kind and name. Statuses name 20 a policy at the most, so there may be more.
    pub workloads: Vec<Workload>,
    /// Policies that ask for the rule there.
    pub policies: Vec<String>,
}

/// Pods of one workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its kind; Pod, where nothing that is known owns the pod.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// How many pods there are.
    pub pods: u32,
    /// Everything that is wrong with them, of this rule and of others.
    pub message: String,
}

#[derive(Default)]
struct Found {
    /// The same workload may violate several policies: it counts once.
    workloads: BTreeMap<(String, String, String), (u32, String)>,
    policies: BTreeSet<String>,
}

/// Every rule, that with the most pods first; and what statuses count and do not name. Of one namespace, or of all.
pub(super) fn by_rule(policies: &[Read], only: Option<&str>) -> (Vec<Violation>, Vec<String>) {
    let (mut rules, mut notes): (BTreeMap<&str, Found>, _) = (BTreeMap::new(), vec![]);
    for policy in policies {
        let Some(status) = &policy.hardening else { continue };
        let policy_name = format!("{} {}", policy.kind, policy.full_name());
        for sample in &status.samples {
            let namespace = sample.namespace.clone().or_else(|| policy.namespace.clone()).unwrap_or_default();
            if only.is_some_and(|only| only != namespace) {
                continue;
            }
            for rule in &sample.rules {
                let found = rules.entry(rule).or_default();
                found.policies.insert(policy_name.clone());
                let key = (namespace.clone(), sample.kind.clone(), sample.name.clone());
                let (pods, message) = found.workloads.entry(key).or_default();
                if sample.pods >= *pods {
                    (*pods, *message) = (sample.pods, sample.message.clone());
                }
            }
        }
        if let Some(more) = status.more_samples.filter(|more| *more > 0) {
            notes.push(format!("{policy_name}: {more} more workloads violate it, which its status does not name"));
        }
    }
    let mut told: Vec<Violation> = rules.into_iter().map(|(rule, found)| found.told(rule)).collect();
    told.sort_by(|one, other| other.pods.cmp(&one.pods).then_with(|| one.rule.cmp(&other.rule)));
    (told, notes)
}

impl Found {
    fn told(self, rule: &str) -> Violation {
        let workload = |((namespace, kind, name), (pods, message))| Workload { namespace, kind, name, pods, message };
        let workloads: Vec<Workload> = self.workloads.into_iter().map(workload).collect();
        Violation {
            rule: rule.into(),
            pods: workloads.iter().fold(0, |pods, it| pods.saturating_add(it.pods)),
            workloads,
            policies: self.policies.into_iter().collect(),
        }
    }
}
