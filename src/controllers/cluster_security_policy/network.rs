//! The network part of a policy: in each namespace that it selects, render, preview, guard, keep.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};

use super::{
    super::{
        Next,
        network::{
            Asked, Before, Kept, Looked, Part, REFUSED_AGAIN, Sight, WRITE_REFUSED, conditions_of, open_first,
            previewed, stalled, unacknowledged,
        },
    },
    ClusterSecurityPolicies,
};
use crate::{
    api::{
        ClusterNetwork, ClusterNetworkStatus, ClusterSecurityPolicy, Finding, Invalid, MOST_FINDINGS, MOST_NAMED,
        NetworkMode,
        condition::{Conditions, Type, is_true},
    },
    cluster::{Result, owner::Owner},
    hardening::ClusterWide,
    network::{Intent, Standing, Unrenderable},
};

/// Namespaces that are written at once.
const CONCURRENCY: usize = 8;

/// Why nothing is programmed where nothing was before.
const SUSPENDED: &str = "Suspended";
/// What the network part alone says.
const SEEN: [Type; 6] = [
    Type::Rendered,
    Type::Analyzed,
    Type::WidenedByOthers,
    Type::DnsReachable,
    Type::ApiServerReachable,
    Type::EnforcerDetected,
];

/// What there is to say about the network part of a policy.
pub(super) enum Network {
    /// The spec asks for none, or disables it.
    Absent,
    /// What was said stays.
    Suspended,
    /// Worked out; with why it is not in force, if it should be.
    Known(Box<Told>, Option<(&'static str, String)>),
    /// Can't be, and why.
    Refused(&'static str, String),
}

/// What is known.
pub(super) struct Told {
    mode: NetworkMode,
    status: ClusterNetworkStatus,
    standing: Standing,
    sight: Sight,
}

/// What is not in force somewhere.
#[derive(Default)]
struct Outcome {
    programmed: BTreeSet<String>,
    /// Ids of what would break.
    refused: Vec<String>,
    /// With the reason of each.
    conflicts: Vec<(&'static str, String)>,
}

impl Network {
    /// When to look again without being told of a change.
    pub(super) fn next(&self) -> Next {
        match self {
            Self::Known(_, Some((WRITE_REFUSED, _))) => Next::After(REFUSED_AGAIN),
            _ => Next::Change,
        }
    }
}

impl ClusterSecurityPolicies {
    pub(super) async fn network(
        &self,
        policy: &ClusterSecurityPolicy,
        asked: std::result::Result<&ClusterWide, &Invalid>,
    ) -> Result<Network> {
        let asked = match asked {
            Ok(asked) => asked,
            Err(invalid) => return Ok(Network::Refused("Invalid", invalid.to_string())),
        };
        if policy.spec.suspend == Some(true) {
            return Ok(Network::Suspended);
        }
        if !self.networks.is_on {
            return Ok(Network::Absent);
        }
        let owner = Owner::of(policy)?;
        let before = before(policy);
        let of = |namespace: String| Owner { namespace, ..owner.clone() };
        let there = self.networks.namespaces_of(&owner.kind, &owner.name).into_iter();
        let Some((intent, spec)) = asked.network.as_ref().zip(policy.spec.network.as_ref()) else {
            let remove = |namespace| {
                let part = self.networks.nothing(of(namespace));
                async move { self.networks.remove_stale(&part).await }
            };
            in_each(there, remove).await?;
            return Ok(Network::Absent);
        };
        let sight = self.networks.sight();
        self.networks.tell_of_api_server(policy, intent, &sight).await;
        let labels = self.networks.policies.known().labels.clone();
        let selected: BTreeSet<&String> =
            labels.iter().filter(|(name, labels)| asked.isolates(name, labels)).map(|(name, _)| name).collect();
        let mut parts = match self.parts(&selected, &of, intent, &sight) {
            Ok(parts) => parts,
            // What was rendered before stays: closing or opening anything by accident is worse.
            Err(error) => return Ok(Network::Refused(error.reason(), error.to_string())),
        };
        parts.extend(there.filter(|it| !selected.contains(it)).map(|it| self.networks.nothing(of(it))));
        let enforces = spec.mode == NetworkMode::Enforce;
        let question = Asked { allow_no_dns: spec.allow_no_dns == Some(true), only_open: true };
        let is_drift = |part: &Part| enforces && before.was_programmed() && self.networks.is_known(part);
        let looked = self.networks.look(&parts, &sight, question, is_drift);
        let outcome = if enforces { self.program(policy, &parts, (&looked, spec)).await? } else { Outcome::default() };
        let open: Vec<&str> = outcome.refused.iter().map(String::as_str).collect();
        let refusal = self.networks.refusal(policy, &before, &open).await;
        // By their reasons, the last are those that are tried again.
        let conflict = outcome.conflicts.last().cloned();
        let standing =
            self.networks.standing(&parts, &sight, |part| outcome.programmed.contains(&part.owner.namespace));
        let known = (selected.len(), &outcome, spec.acknowledge.as_slice());
        let status = status(&parts, looked, known, (enforces && refusal.is_none(), standing));
        let shown = (status.findings.as_slice(), status.widened_by.as_slice());
        self.networks.tell(policy, &before, status.preview.as_ref(), shown).await;
        let told = Box::new(Told { mode: spec.mode, status, standing, sight });
        Ok(Network::Known(told, conflict.or(refusal)))
    }

    fn parts(
        &self,
        selected: &BTreeSet<&String>,
        of: &impl Fn(String) -> Owner,
        intent: &Intent,
        sight: &Sight,
    ) -> std::result::Result<Vec<Part>, Unrenderable> {
        let part = |namespace: &&String| self.networks.part(of((*namespace).clone()), intent, &[], sight);
        selected.iter().map(part).collect()
    }

    /// Writes those parts that break nothing which was not acknowledged; one that can't be written keeps no other.
    async fn program(
        &self,
        policy: &ClusterSecurityPolicy,
        parts: &[Part],
        (looked, spec): (&Looked, &ClusterNetwork),
    ) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut writing = vec![];
        for (part, seen) in parts.iter().zip(&looked.parts) {
            let open = unacknowledged(&seen.breaks, &spec.acknowledge);
            if open.is_empty() {
                writing.push(part);
            } else {
                outcome.refused.extend(open.into_iter().map(str::to_owned));
            }
        }
        let write = async |part: &Part| {
            // What is drift was known before.
            let known = self.networks.is_known(part);
            (part.owner.namespace.clone(), self.networks.program(policy, part, known).await)
        };
        let written: Vec<(String, Result<Kept>)> =
            stream::iter(writing).map(write).buffer_unordered(CONCURRENCY).collect().await;
        for (namespace, kept) in written {
            match kept {
                Ok(Kept::Programmed(names)) if names.is_empty() => {}
                Ok(Kept::Programmed(_)) => drop(outcome.programmed.insert(namespace)),
                Ok(Kept::Conflicted(message)) => outcome.conflicts.push(("Conflicted", message)),
                Ok(Kept::Refused(message)) => outcome.conflicts.push((WRITE_REFUSED, message)),
                Err(error) if error.is_of_ending_namespace() => {}
                Err(error) => return Err(error),
            }
        }
        outcome.conflicts.sort();
        Ok(outcome)
    }
}

/// Acts in each namespace: one where that fails keeps no other, and the first error is returned in the end.
async fn in_each<F: Future<Output = Result<()>>>(
    namespaces: impl Iterator<Item = String>,
    act: impl Fn(String) -> F,
) -> Result<()> {
    let mut result = Ok(());
    for namespace in namespaces {
        match act(namespace).await {
            Err(error) if !error.is_of_ending_namespace() => result = result.and(Err(error)),
            _ => {}
        }
    }
    result
}

fn status(
    parts: &[Part],
    looked: Looked,
    (namespaces, outcome, acknowledged): (usize, &Outcome, &[String]),
    (is_in_force, standing): (bool, Standing),
) -> ClusterNetworkStatus {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let (mut findings, mut widened_by): (Vec<Finding>, Vec<String>) = (vec![], vec![]);
    for (part, seen) in parts.iter().zip(looked.parts) {
        findings.extend(seen.breaks);
        widened_by.extend(seen.widened_by.iter().map(|name| format!("{}/{name}", part.owner.namespace)));
    }
    findings = open_first(findings, acknowledged);
    // The same of each namespace: told once.
    let rendering: BTreeMap<String, Finding> =
        parts.iter().flat_map(|part| &part.findings).map(|it| (it.message.clone(), it.clone())).collect();
    findings.extend(rendering.into_values());
    widened_by.truncate(MOST_NAMED);
    findings.truncate(MOST_FINDINGS);
    ClusterNetworkStatus {
        namespaces: count(namespaces),
        programmed: count(outcome.programmed.len()),
        selected_pods: Some(count(parts.iter().map(Part::pods).sum())),
        isolated: Some(standing.isolated),
        preview: (!is_in_force).then(|| looked.preview.unwrap_or_default()),
        widened_by,
        not_expressible: parts.iter().flat_map(|part| part.not_expressible.iter().cloned()).take(MOST_NAMED).collect(),
        findings,
    }
}

fn before(policy: &ClusterSecurityPolicy) -> Before<'_> {
    let Some(status) = &policy.status else { return Before::default() };
    let network = status.network.as_ref();
    Before {
        conditions: &status.conditions,
        is_current: status.observed_generation == policy.metadata.generation,
        had_preview: network.is_some_and(|it| it.preview.is_some()),
        findings: network.map(|it| it.findings.as_slice()).unwrap_or_default(),
        widened_by: network.map(|it| it.widened_by.as_slice()).unwrap_or_default(),
    }
}

/// Sets the conditions that the network part decides; returns what status holds of it.
pub(super) fn tell_network(
    policy: &ClusterSecurityPolicy,
    network: Network,
    conditions: &mut Conditions,
) -> Option<ClusterNetworkStatus> {
    let accept = |conditions: &mut Conditions| {
        conditions.set(Type::Accepted, true, "Accepted", "");
        conditions.set(Type::Programmed, true, "Programmed", "");
        conditions.set(Type::Ready, true, "Ready", "");
    };
    let said = || policy.status.as_ref().and_then(|status| status.network.clone());
    let (told, problem) = match network {
        Network::Absent => {
            accept(conditions);
            return None;
        }
        Network::Suspended => {
            accept(conditions);
            keep_last(policy, conditions);
            return said();
        }
        Network::Refused(reason, message) => {
            stalled(conditions, reason != "Invalid", reason, &message);
            conditions.set(Type::Rendered, false, reason, "");
            conditions.set(Type::Analyzed, false, reason, "");
            return said();
        }
        Network::Known(told, problem) => (*told, problem),
    };
    accept(conditions);
    let Told { mode, status, standing, sight } = told;
    let all = format!("{} of {} namespaces", status.programmed, status.namespaces);
    match problem {
        Some((reason, message)) => {
            conditions.stall(reason, &format!("{all} are as rendered; {message}"));
        }
        None if mode == NetworkMode::Preview => previewed(conditions),
        None => {
            conditions.set(Type::Programmed, true, "Programmed", format!("{all} are as rendered"));
        }
    }
    conditions_of(&standing, &sight, &status.widened_by, conditions);
    Some(status)
}

/// Of a policy that is suspended, what its network part said last. What hardening waits for is told anew at each visit,
/// and may have taken the place of Programmed: whether all was as rendered is read off the rest.
fn keep_last(policy: &ClusterSecurityPolicy, conditions: &mut Conditions) {
    let Some(mode) = policy.spec.network.as_ref().map(|it| it.mode).filter(|mode| *mode != NetworkMode::Disabled)
    else {
        return;
    };
    let status = policy.status.as_ref();
    let last = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let find = |kind: Type| last.iter().find(|it| it.type_ == kind.as_str());
    for kept in SEEN.into_iter().filter_map(find) {
        conditions.keep(kept);
    }
    let is_whole = |it: &ClusterNetworkStatus| it.preview.is_none() && it.programmed == it.namespaces;
    let network = status.and_then(|status| status.network.as_ref());
    if is_true(last, Type::Rendered) && network.is_some_and(is_whole) {
        if let Some(programmed) = find(Type::Programmed).filter(|it| it.status == "True") {
            conditions.keep(programmed);
        }
        return;
    }
    let why = "it is suspended: what spec.network asks was not in force before, and nothing is written";
    conditions.set(Type::Programmed, false, SUSPENDED, why);
    if mode == NetworkMode::Enforce {
        conditions.set(Type::Ready, false, SUSPENDED, why);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use jiff::Timestamp;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Error;

    #[tokio::test]
    async fn one_namespace_that_fails_keeps_no_other() {
        let seen = RefCell::new(vec![]);
        let act = |namespace: String| {
            seen.borrow_mut().push(namespace.clone());
            let failed = namespace != "c";
            std::future::ready(if failed { Err(Error::Unexpected(namespace)) } else { Ok(()) })
        };
        let result = in_each(["a", "b", "c"].map(str::to_owned).into_iter(), act).await;
        assert!(result.is_err_and(|error| error.to_string().contains('a')), "the first is told");
        assert_eq!(*seen.borrow(), ["a", "b", "c"]);
    }

    /// A status whose conditions are of generation 1.
    fn status(conditions: &[(&str, &str)], network: &Value) -> Value {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status)| {
                json!({"type": kind, "status": status, "reason": "Before", "message": "", "observedGeneration": 1,
                       "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        json!({"observedGeneration": 1, "conditions": conditions, "network": network})
    }

    fn as_rendered() -> Value {
        json!({"namespaces": 2, "programmed": 2})
    }

    fn previewed() -> Value {
        json!({"namespaces": 2, "programmed": 0, "preview": {"newlyDenied": 1, "newlyAllowed": 0}})
    }

    const BEFORE: (&str, &str, Option<i64>) = ("True", "Before", Some(1));
    const NOT_BEFORE: (&str, &str, Option<i64>) = ("False", "Suspended", Some(2));
    const ANEW: (&str, &str, Option<i64>) = ("True", "Programmed", Some(2));

    #[rstest]
    #[case::never_visited("Enforce", status(&[("Ready", "Unknown")], &json!(null)), NOT_BEFORE, "False")]
    #[case::as_rendered("Enforce", status(&[("Programmed", "True"), ("Rendered", "True")], &as_rendered()), BEFORE, "True")]
    #[case::hardening_waits("Enforce", status(&[("Programmed", "False"), ("Rendered", "True")], &as_rendered()), ANEW, "True")]
    #[case::not_rendered("Enforce", status(&[("Programmed", "False"), ("Rendered", "False")], &as_rendered()), NOT_BEFORE, "False")]
    #[case::refused("Enforce", status(&[("Programmed", "False"), ("Rendered", "True")], &previewed()), NOT_BEFORE, "False")]
    #[case::asked_for_since("Enforce", status(&[("Programmed", "True")], &json!(null)), NOT_BEFORE, "False")]
    #[case::preview("Preview", status(&[("Programmed", "False"), ("Rendered", "True")], &previewed()), NOT_BEFORE, "True")]
    #[case::disabled("Disabled", status(&[], &json!(null)), ANEW, "True")]
    fn what_is_suspended_is_programmed_only_if_it_was(
        #[case] mode: &str,
        #[case] last: Value,
        #[case] programmed: (&str, &str, Option<i64>),
        #[case] ready: &str,
    ) {
        let mut policy: ClusterSecurityPolicy = serde_json::from_value(json!({
            "metadata": {"name": "least", "generation": 2}, "status": last,
            "spec": {"suspend": true, "namespaceSelector": {},
                     "network": {"mode": mode, "podSelector": {}, "isolate": ["Ingress"]}},
        }))
        .unwrap();
        // The second visit says what the first one said.
        for _ in 0..2 {
            let mut conditions = Conditions::of_generation(Some(2));
            let network = tell_network(&policy, Network::Suspended, &mut conditions);
            let status = policy.status.get_or_insert_default();
            assert_eq!(network, status.network);
            status.conditions = conditions.carried_from(&status.conditions, Timestamp::UNIX_EPOCH);
            let find = |kind: &str| status.conditions.iter().find(|it| it.type_ == kind).unwrap();
            let told = find("Programmed");
            assert_eq!((told.status.as_str(), told.reason.as_str(), told.observed_generation), programmed);
            assert_eq!((find("Ready").status.as_str(), find("Accepted").status.as_str()), (ready, "True"));
        }
    }
}
