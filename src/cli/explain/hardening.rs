//! What policies of hardening decide about a pod.

use std::{slice, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;

use super::known::{Extent, Known};
use crate::{
    api::{Enforcer, HardeningMode, HardeningStatus, PolicyException},
    cluster::pause,
    hardening::{
        Covering, Enforcement, Exception, Finding, Kept, Origin, Owners, Policies, Scan, Seen, Subject, ask_rules,
        findings, is_system_namespace, judge, rule_of_check,
    },
};

/// What is said of a pod, or of the pods that a template makes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hardening {
    /// Whether it would be admitted, if it were made now.
    pub(super) admitted: bool,
    /// Whether all that decides could be read.
    pub(super) complete: bool,
    /// Until when nothing is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) paused_until: Option<Timestamp>,
    /// What to know beside it.
    pub(super) notes: Vec<String>,
    /// Policies that cover it.
    pub(super) policies: Vec<Decided>,
    /// Exceptions from them.
    pub(super) exceptions: Vec<Excepted>,
}

/// What one policy decides.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Decided {
    /// Kind and name.
    pub(super) policy: String,
    pub(super) mode: HardeningMode,
    /// Level and version of the standard: `restricted:latest`.
    pub(super) standard: String,
    pub(super) decision: Decision,
    pub(super) violations: Vec<Violated>,
    /// What refuses, as the policy's status says.
    pub(super) enforced_by: Vec<Enforcer>,
}

impl Decided {
    /// Whether another policy says the same, but for its name.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        (self.mode, &self.standard, self.decision) == (other.mode, &other.standard, other.decision)
            && (&self.violations, &self.enforced_by) == (&other.violations, &other.enforced_by)
    }
}

/// How a policy finds a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Decision {
    /// As it asks.
    Met,
    /// Not so, and covered by exceptions.
    Excepted,
    /// Not so.
    Violated,
}

/// One violated rule.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Violated {
    /// Its id, as a PolicyException names it.
    pub(super) rule: String,
    pub(super) detail: String,
}

/// An exception from a policy that covers the pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Excepted {
    pub(super) exception: String,
    pub(super) policies: Vec<String>,
    pub(super) rules: Vec<String>,
    pub(super) until: Timestamp,
    /// Whether the pod needs it.
    pub(super) relied_on: bool,
    /// Why it is not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why_not: Option<String>,
}

/// What policies say of a pod of a namespace at a time; `None` where it can't be read.
pub(super) fn hardening(
    known: &Known,
    (namespace, name): (&str, &str),
    kept: &Kept,
    now: Timestamp,
) -> Result<Hardening, String> {
    let (policies, broken) = known.hardening();
    let covering = policies.covering(namespace, known.labels(namespace));
    let seen = kept.seen(ask_rules(&covering)).map_err(|error| error.to_string())?;
    let found = findings(&covering, &seen, now);
    let is_paused = pause::holds(known.pause.as_ref(), now);
    let enforcement = if is_paused { Enforcement::Paused } else { Enforcement::InForce };
    let paused_until = known.pause.as_ref().filter(|_| is_paused).map(|pause| pause.until);
    let decided = |covering: &Covering| {
        let finding = found.iter().find(|finding| std::ptr::eq(finding.covering, covering));
        decided(known, namespace, covering, (finding, &seen), now)
    };
    let (broken, told) = (broken.len(), broken);
    let mut notes: Vec<String> = told.into_iter().map(|why| format!("says nothing: {why}")).collect();
    let asks_in_vain = |known: &Known| known.policies_of(namespace).any(|policy| policy.spec.hardening.is_some());
    if is_system_namespace(namespace) && asks_in_vain(known) {
        notes.push(format!("SecurityPolicies harden no pods of {namespace}: it is a system namespace"));
    }
    Ok(Hardening {
        admitted: judge(&found, Subject::Pod, enforcement).admitted,
        complete: known.seen.hardening == Extent::Whole && broken == 0,
        paused_until,
        notes,
        policies: covering.iter().map(decided).collect(),
        exceptions: exceptions(known, (namespace, name), kept, (&policies, &covering), now),
    })
}

fn decided(
    known: &Known,
    namespace: &str,
    covering: &Covering,
    (finding, seen): (Option<&Finding<'_>>, &Seen<'_>),
    now: Timestamp,
) -> Decided {
    let bare = Covering { exceptions: Arc::default(), ..covering.clone() };
    let decision = match finding {
        Some(_) => Decision::Violated,
        None if findings(slice::from_ref(&bare), seen, now).is_empty() => Decision::Met,
        None => Decision::Excepted,
    };
    let status = status(known, namespace, &covering.origin);
    Decided {
        policy: named(&covering.origin),
        mode: covering.requirement.mode,
        standard: format!("{}:{}", covering.requirement.level, covering.requirement.version),
        decision,
        violations: finding.map(violated).unwrap_or_default(),
        enforced_by: status.map(|status| status.enforced_by.clone()).unwrap_or_default(),
    }
}

fn violated(finding: &Finding<'_>) -> Vec<Violated> {
    let checks = finding.violations.iter().map(|it| {
        // A check whose reason says it all has no detail.
        let detail = if it.detail.is_empty() { it.reason.to_owned() } else { it.detail.clone() };
        Violated { rule: rule_of_check(it.check), detail }
    });
    let rules = finding.rules.iter().map(|it| Violated { rule: it.about.rule(), detail: it.detail() });
    checks.chain(rules).collect()
}

fn named(origin: &Origin) -> String {
    origin.named().map(|(kind, name)| format!("{kind} {name}")).unwrap_or_default()
}

fn status<'k>(known: &'k Known, namespace: &str, origin: &Origin) -> Option<&'k HardeningStatus> {
    match origin {
        Origin::SecurityPolicy(name) => {
            let policy = known.policies_of(namespace).find(|policy| policy.name_any() == *name)?;
            policy.status.as_ref()?.hardening.as_ref()
        }
        Origin::ClusterSecurityPolicy(name) => {
            let policy = known.cluster_policies.iter().find(|policy| policy.name_any() == *name)?;
            policy.status.as_ref()?.hardening.as_ref()
        }
        Origin::CommandLine => None,
    }
}

/// Exceptions from policies that cover a pod. Whether it needs them is told by the scan, as in their status.
fn exceptions(
    known: &Known,
    (namespace, name): (&str, &str),
    kept: &Kept,
    (policies, covering): (&Policies, &[Covering]),
    now: Timestamp,
) -> Vec<Excepted> {
    let mut scan = Scan::default();
    scan.cover(policies, now);
    scan.put(namespace, name, Some(kept.clone()), policies, now);
    let relying = scan.report(&Owners::default()).relying;
    let about = |exception: &&PolicyException| {
        let of_covering = |policy: &&Covering| {
            Exception::try_from(*exception).is_ok_and(|exception| exception.policies.contains(&policy.origin))
        };
        exception.namespace().as_deref() == Some(namespace) && covering.iter().any(|policy| of_covering(&policy))
    };
    let told = |exception: &PolicyException| {
        let name = exception.name_any();
        let count = relying.get(&(namespace.to_owned(), name.clone())).copied().unwrap_or_default();
        let understood = Exception::try_from(exception).ok()?;
        let why_not = match understood.permitted(namespace, &policies.wide) {
            Err(why) => Some(why),
            Ok(()) if !understood.holds(now) => Some("it has ended".into()),
            Ok(()) => None,
        };
        Some(Excepted {
            exception: name,
            policies: understood.policies.iter().map(named).collect(),
            rules: exception.spec.rules.clone(),
            until: understood.expires,
            relied_on: count > 0 && why_not.is_none(),
            why_not,
        })
    };
    known.exceptions.iter().filter(about).filter_map(told).collect()
}
