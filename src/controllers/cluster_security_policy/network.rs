//! The network part of a policy: in each namespace that it selects, render, preview, guard, keep.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use tokio::task::block_in_place;

use super::{
    super::{
        Next,
        network::{Asked, Before, Kept, Looked, Part, REFUSED_AGAIN, Sight, cut, open_first, unacknowledged},
    },
    ClusterSecurityPolicies,
};
use crate::{
    api::{
        ClusterNetwork, ClusterNetworkStatus, ClusterSecurityPolicy, Finding, Invalid, MOST_FINDINGS, MOST_NAMED,
        NetworkMode, condition::WRITE_REFUSED,
    },
    cluster::{Result, owner::Owner},
    hardening::ClusterWide,
    network::{Intent, Standing, Unrenderable, unmet},
};

/// Namespaces that are written at once.
const CONCURRENCY: usize = 8;
/// Namespaces that are looked at in passing.
const FEW: usize = 100;

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
    /// Failed again and again, and why; what was said stays.
    Failed(&'static str, String),
}

/// What is known.
pub(super) struct Told {
    pub(super) mode: NetworkMode,
    pub(super) status: ClusterNetworkStatus,
    pub(super) standing: Standing,
    pub(super) sight: Sight,
    /// Why it is as if every address lay outside, and not what is to be written.
    pub(super) unknown: Option<Unrenderable>,
    /// Rules of which less is rendered somewhere than they say.
    pub(super) unmet: BTreeSet<String>,
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
            Self::Known(_, Some((WRITE_REFUSED, _))) | Self::Refused(WRITE_REFUSED, _) => Next::After(REFUSED_AGAIN),
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
        let owner = Owner::of(policy)?;
        if asked.network_mode != NetworkMode::Enforce || policy.spec.suspend == Some(true) {
            self.networks.freeze(&owner.uid);
        }
        if policy.spec.suspend == Some(true) {
            return Ok(Network::Suspended);
        }
        if !self.networks.is_on {
            return Ok(Network::Absent);
        }
        let before = before(policy);
        let of = |namespace: String| Owner { namespace, ..owner.clone() };
        let there = self.networks.namespaces_of(&owner).into_iter();
        let Some((intent, spec)) = asked.network.as_ref().zip(policy.spec.network.as_ref()) else {
            let remove = |namespace| {
                let part = self.networks.nothing(of(namespace));
                async move { self.networks.remove_stale(&part).await }
            };
            let refused = in_each(there, remove).await?;
            return Ok(refused.map_or(Network::Absent, |message| Network::Refused(WRITE_REFUSED, message)));
        };
        let sight = self.networks.sight();
        self.networks.tell_of_api_server(policy, intent, &sight).await;
        let labels = self.networks.policies.known().labels.clone();
        let selected: BTreeSet<&String> =
            labels.iter().filter(|(name, labels)| asked.isolates(name, labels)).map(|(name, _)| name).collect();
        let (mut parts, unknown) = match aside(selected.len(), || self.parts(&selected, &of, intent, &sight)) {
            Ok(parts) => parts,
            // What was rendered before stays: closing or opening anything by accident is worse.
            Err(error) => return Ok(Network::Refused(error.reason(), error.to_string())),
        };
        parts.extend(there.filter(|it| !selected.contains(it)).map(|it| self.networks.nothing(of(it))));
        let enforces = spec.mode == NetworkMode::Enforce;
        let question = Asked { allow_no_dns: spec.allow_no_dns == Some(true), only_open: true };
        let looked = aside(parts.len(), || self.networks.look(&parts, &sight, question));
        let programs = enforces && unknown.is_none();
        let outcome = if programs { self.program(policy, &parts, (&looked, spec)).await? } else { Outcome::default() };
        let open: Vec<&str> = outcome.refused.iter().map(String::as_str).collect();
        let refusal = self.networks.refusal(policy, &before, &open).await;
        // By their reasons, the last are those that are tried again.
        let conflict = outcome.conflicts.last().cloned();
        let is_programmed = |part: &Part| outcome.programmed.contains(&part.owner.namespace);
        let standing = aside(parts.len(), || self.networks.standing(&parts, &sight, is_programmed));
        let unmet = unmet(parts.iter().flat_map(|part| &part.findings));
        let known = (selected.len(), &outcome, spec.acknowledge.as_slice());
        let status = status(&parts, looked, known, (programs && refusal.is_none(), standing));
        let shown = (status.findings.as_slice(), status.widened_by.as_slice());
        self.networks.tell(policy, &before, status.preview.as_ref(), shown).await;
        let told = Box::new(Told { mode: spec.mode, status, standing, sight, unknown, unmet });
        Ok(Network::Known(told, conflict.or(refusal)))
    }

    /// What an intent becomes in each namespace. Where that can't be known for want of the cluster's ranges, what it would
    /// be if all addresses that are asked for lay outside, to be told and not written.
    fn parts(
        &self,
        selected: &BTreeSet<&String>,
        of: &impl Fn(String) -> Owner,
        intent: &Intent,
        sight: &Sight,
    ) -> std::result::Result<(Vec<Part>, Option<Unrenderable>), Unrenderable> {
        let parts = |sight: &Sight| -> std::result::Result<Vec<Part>, Unrenderable> {
            let part = |namespace: &&String| self.networks.part(of((*namespace).clone()), intent, &[], sight);
            selected.iter().map(part).collect()
        };
        match parts(sight) {
            Err(error) if error.is_of_ranges() => Ok((parts(&sight.without_ranges())?, Some(error))),
            parts => Ok((parts?, None)),
        }
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
                self.networks.leave(part);
                outcome.refused.extend(open.into_iter().map(str::to_owned));
            }
        }
        let write = async |part: &Part| (part.owner.namespace.clone(), self.networks.program(policy, part).await);
        let written: Vec<(String, Result<Kept>)> =
            stream::iter(writing).map(write).buffer_unordered(CONCURRENCY).collect().await;
        for (namespace, kept) in written {
            match kept {
                Ok(Kept::Programmed(names)) if names.is_empty() => {}
                Ok(Kept::Programmed(_)) => drop(outcome.programmed.insert(namespace)),
                Ok(Kept::Conflicted(message)) => outcome.conflicts.push(("Conflicted", at(&namespace, &message))),
                Ok(Kept::Refused(message)) => outcome.conflicts.push((WRITE_REFUSED, at(&namespace, &message))),
                Err(error) if error.is_of_ending_namespace() => {}
                Err(error) => return Err(error),
            }
        }
        outcome.conflicts.sort();
        Ok(outcome)
    }
}

/// Works on some namespaces: where they are many, so that other tasks go on meanwhile. Threads of their own only for what
/// takes long: each that was needed once keeps memory.
fn aside<T>(namespaces: usize, work: impl FnOnce() -> T) -> T {
    if namespaces > FEW { block_in_place(work) } else { work() }
}

/// Acts in each namespace: one where that is refused or fails keeps no other. The first error is returned in the end, or
/// else the first refusal.
async fn in_each<F: Future<Output = Result<Kept>>>(
    namespaces: impl Iterator<Item = String>,
    act: impl Fn(String) -> F,
) -> Result<Option<String>> {
    let (mut failed, mut refused) = (None, None);
    for namespace in namespaces {
        match act(namespace.clone()).await {
            Ok(Kept::Refused(message)) => refused = refused.or_else(|| Some(at(&namespace, &message))),
            Err(error) if !error.is_of_ending_namespace() => failed = failed.or(Some(error)),
            _ => {}
        }
    }
    failed.map_or(Ok(refused), Err)
}

/// What happened in a namespace.
fn at(namespace: &str, message: &str) -> String {
    format!("namespace {namespace}: {message}")
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
    let not_expressible: BTreeSet<&String> = parts.iter().flat_map(|part| &part.not_expressible).collect();
    let mut not_expressible: Vec<String> = not_expressible.into_iter().cloned().collect();
    ClusterNetworkStatus {
        namespaces: count(namespaces),
        programmed: count(outcome.programmed.len()),
        selected_pods: Some(count(parts.iter().map(Part::pods).sum())),
        isolated: Some(standing.isolated),
        preview: (!is_in_force).then(|| looked.preview.unwrap_or_default()),
        // Each is counted before it is taken.
        more_widened_by: cut(&mut widened_by, MOST_NAMED),
        widened_by,
        more_not_expressible: cut(&mut not_expressible, MOST_NAMED),
        not_expressible,
        more_findings: cut(&mut findings, MOST_FINDINGS),
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::cluster::Error;

    #[tokio::test]
    async fn one_namespace_that_fails_keeps_no_other() {
        let seen = RefCell::new(vec![]);
        let act = |namespace: String| {
            seen.borrow_mut().push(namespace.clone());
            let failed = namespace != "c";
            std::future::ready(if failed { Err(Error::Unexpected(namespace)) } else { Ok(Kept::Programmed(vec![])) })
        };
        let result = in_each(["a", "b", "c"].map(str::to_owned).into_iter(), act).await;
        assert!(result.is_err_and(|error| error.to_string().contains('a')), "the first is told");
        assert_eq!(*seen.borrow(), ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn what_is_refused_is_told_with_the_namespace() {
        let act = |namespace: String| {
            let held = namespace == "b";
            std::future::ready(Ok(if held { Kept::Refused("held".into()) } else { Kept::Programmed(vec![]) }))
        };
        let result = in_each(["a", "b", "c"].map(str::to_owned).into_iter(), act).await;
        assert_eq!(result.unwrap().as_deref(), Some("namespace b: held"));
    }
}
