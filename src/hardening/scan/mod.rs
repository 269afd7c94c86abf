//! The background scan: what policies say of the pods that are there, kept pod by pod, so that one
//! change costs one verdict.

mod kept;
mod open_report;
mod owner;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

pub use self::{
    kept::Kept,
    open_report::OpenReport,
    owner::{Controller, ControllerKind, Owners, Workload},
    report::{Counted, Report},
};
use super::{Broken, Covering, Policies, ask_rules, judge::finding};

/// Every pod, and what is found.
#[derive(Debug, Default)]
pub struct Scan {
    namespaces: BTreeMap<String, Namespace>,
    /// ClusterSecurityPolicies, whether they cover a pod or not.
    wide: BTreeSet<String>,
    /// PolicyExceptions, whether a pod relies on them or not.
    exceptions: BTreeSet<(String, String)>,
    /// When pods were last judged.
    judged: Option<Timestamp>,
    /// When the next exception ends.
    next_end: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Namespace {
    covering: Arc<[Covering]>,
    pods: BTreeMap<String, Scanned>,
}

/// A pod, and what is found.
#[derive(Debug)]
struct Scanned {
    kept: Kept,
    /// By policy, in the order of those that cover the namespace.
    found: Vec<Found>,
    /// Names of exceptions that it relies on.
    relying: BTreeSet<String>,
}

/// What a policy finds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Compliant,
    /// It violates what exceptions cover.
    Exempt,
    Violating {
        /// None of a pod that can't be read.
        broken: Vec<Broken>,
        message: String,
    },
}

/// Longest message of a sample, and of a result, in characters.
const MESSAGE: usize = 512;

impl Scan {
    /// Puts a pod, new or changed.
    pub fn put(&mut self, namespace: &str, name: &str, kept: Option<Kept>, policies: &Policies, now: Timestamp) {
        let Some(kept) = kept else { return self.remove(namespace, name) };
        if !self.namespaces.contains_key(namespace) {
            let covering = covering(policies, namespace);
            self.next_end = earliest(self.next_end, &covering, now);
            self.namespaces.insert(namespace.into(), Namespace { covering, pods: BTreeMap::new() });
        }
        let Some(of) = self.namespaces.get_mut(namespace) else { return };
        // Most updates are of a pod's status.
        if of.pods.get(name).is_none_or(|known| known.kept != kept) {
            let (found, relying) = judged(&kept, &of.covering, now);
            of.pods.insert(name.into(), Scanned { kept, found, relying });
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(of) = self.namespaces.get_mut(namespace) {
            of.pods.remove(name);
        }
    }

    /// Forgets every pod but these.
    pub fn retain(&mut self, listed: &BTreeSet<(String, String)>) {
        for (namespace, of) in &mut self.namespaces {
            of.pods.retain(|name, _| listed.contains(&(namespace.clone(), name.clone())));
        }
    }

    /// Judges anew where other policies cover a namespace than before, or an exception has ended.
    pub fn cover(&mut self, policies: &Policies, now: Timestamp) {
        self.wide = policies.wide.keys().cloned().collect();
        let named = |(namespace, all): (&String, &Vec<super::Exception>)| -> Vec<_> {
            all.iter().map(|exception| (namespace.clone(), exception.name.clone())).collect()
        };
        self.exceptions = policies.exceptions.iter().flat_map(named).collect();
        for namespace in policies.own.keys() {
            self.namespaces.entry(namespace.clone()).or_default();
        }
        let before = self.judged.replace(now);
        let mut next_end = None;
        self.namespaces.retain(|namespace, of| {
            let covering = covering(policies, namespace);
            let exceptions = covering.iter().flat_map(|covering| covering.exceptions.iter());
            let ended = exceptions
                .map(|exception| exception.expires)
                .any(|end| end <= now && before.is_none_or(|before| before < end));
            if ended || covering != of.covering {
                for scanned in of.pods.values_mut() {
                    (scanned.found, scanned.relying) = judged(&scanned.kept, &covering, now);
                }
                of.covering = covering;
            }
            next_end = earliest(next_end, &of.covering, now);
            !of.pods.is_empty() || !of.covering.is_empty()
        });
        self.next_end = next_end;
    }

    /// When the next exception ends.
    #[must_use]
    pub const fn next_end(&self) -> Option<Timestamp> {
        self.next_end
    }
}

/// The earlier of a time and the next end of an exception.
fn earliest(end: Option<Timestamp>, covering: &[Covering], now: Timestamp) -> Option<Timestamp> {
    let exceptions = covering.iter().flat_map(|covering| covering.exceptions.iter());
    exceptions.map(|exception| exception.expires).filter(|end| now < *end).chain(end).min()
}

fn covering(policies: &Policies, namespace: &str) -> Arc<[Covering]> {
    match policies.labels.get(namespace) {
        Some(labels) => policies.covering(namespace, labels),
        None => policies.covering(namespace, &BTreeMap::new()),
    }
}

/// What each policy finds, and the exceptions that the pod relies on.
fn judged(kept: &Kept, covering: &[Covering], now: Timestamp) -> (Vec<Found>, BTreeSet<String>) {
    let mut relying = BTreeSet::new();
    let found = match kept.seen(ask_rules(covering)) {
        Ok(pod) => covering.iter().map(|covering| Found::of(covering, &pod, now, &mut relying)).collect(),
        Err(error) => {
            // The API server admits no such pod.
            let message = format!("the pod can't be read: {error}");
            vec![Found::Violating { broken: vec![], message }; covering.len()]
        }
    };
    (found, relying)
}

impl Scanned {
    /// What a policy finds.
    fn found(&self, index: usize) -> &Found {
        self.found.get(index).unwrap_or(&Found::Compliant)
    }

    /// The worst that any policy finds.
    fn worst(&self) -> &Found {
        self.found.iter().max().unwrap_or(&Found::Compliant)
    }

    fn violates(&self) -> bool {
        matches!(self.worst(), Found::Violating { .. })
    }
}

impl Found {
    fn of(covering: &Covering, pod: &super::Seen<'_>, now: Timestamp, relying: &mut BTreeSet<String>) -> Self {
        let Some(bare) = finding(covering, &[], pod, now) else { return Self::Compliant };
        let all = &covering.exceptions;
        if all.is_empty() {
            return Self::violating(&bare);
        }
        let left = finding(covering, all, pod, now);
        // It relies on those that by themselves let something pass, and on those without which less would.
        for (index, exception) in all.iter().enumerate() {
            let alone = finding(covering, std::slice::from_ref(exception), pod, now);
            let others: Vec<_> =
                all.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, it)| it.clone()).collect();
            if alone.as_ref() != Some(&bare) || finding(covering, &others, pod, now) != left {
                relying.insert(exception.name.clone());
            }
        }
        left.map_or(Self::Exempt, |finding| Self::violating(&finding))
    }

    fn violating(finding: &super::Finding<'_>) -> Self {
        let cut_off = |broken: Broken| Broken { what: cut(broken.what), ..broken };
        Self::Violating { broken: finding.broken().into_iter().map(cut_off).collect(), message: cut(finding.what()) }
    }
}

fn cut(mut message: String) -> String {
    let end = message.char_indices().nth(MESSAGE).map_or(message.len(), |(end, _)| end);
    message.truncate(end);
    message
}

#[cfg(test)]
mod tests;
