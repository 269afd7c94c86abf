//! The policies that cover each namespace, as webhook and floor read them: swapped whole, so that a
//! reader sees one state of the world and never waits.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use kube::{
    Api, Client, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{WatchStreamExt as _, watcher},
};
use rampart_pss::{Level, Version};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::PAGE;
use crate::{
    admission::is_system_namespace,
    api::{HardeningMode, SecurityPolicy},
    hardening::{Covering, Origin, Requirement},
    runtime::{
        metrics::{KindLabel, Metrics},
        readiness::Gate,
    },
};

type Covered = HashMap<String, Arc<[Covering]>>;

/// The index.
#[derive(Clone, Default)]
pub struct PolicyIndex {
    covered: Arc<ArcSwap<Covered>>,
    changes: watch::Sender<u64>,
}

/// Standards by namespace.
pub type Standards = BTreeMap<String, BTreeSet<(Level, Version)>>;

impl PolicyIndex {
    /// Policies that cover a namespace.
    #[must_use]
    pub fn of_namespace(&self, namespace: &str) -> Arc<[Covering]> {
        self.covered.load().get(namespace).cloned().unwrap_or_default()
    }

    /// Changes its value whenever the index has changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What each namespace asks the admission policies to enforce.
    #[must_use]
    pub fn floor(&self) -> Standards {
        let covered = self.covered.load();
        let namespaces = covered.iter().filter(|(namespace, _)| !is_system_namespace(namespace));
        let standards = namespaces.map(|(namespace, policies)| {
            let enforced = policies.iter().map(|covering| &covering.requirement).filter(|it| it.has_floor());
            (namespace.clone(), enforced.map(|it| (it.level, it.version)).collect::<BTreeSet<_>>())
        });
        standards.filter(|(_, standards)| !standards.is_empty()).collect()
    }

    /// Follows the cluster until the process stops.
    ///
    /// # Errors
    /// None: a failing watch is restarted.
    pub async fn follow(
        self,
        client: Client,
        synced: Gate,
        metrics: Metrics,
        stopped: CancellationToken,
    ) -> anyhow::Result<()> {
        let api: Api<DeserializeGuard<SecurityPolicy>> = Api::all(client);
        let stream =
            watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff().take_until(stopped.cancelled());
        let mut stream = std::pin::pin!(stream);
        let mut builder = Builder::default();
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    if let Some(namespace) = builder.take(event, &metrics) {
                        self.publish(&builder, namespace.as_deref());
                        synced.open();
                    }
                }
                Err(error) => tracing::warn!(%error, "the watch of policies failed and is being restarted"),
            }
        }
        Ok(())
    }

    fn publish(&self, builder: &Builder, namespace: Option<&str>) {
        let covered = match namespace {
            None => {
                builder.known.iter().map(|(namespace, policies)| (namespace.clone(), coverings(policies))).collect()
            }
            Some(namespace) => {
                let mut covered = Covered::clone(&self.covered.load());
                match builder.known.get(namespace).map(coverings).filter(|policies| !policies.is_empty()) {
                    Some(policies) => drop(covered.insert(namespace.into(), policies)),
                    None => drop(covered.remove(namespace)),
                }
                covered
            }
        };
        self.covered.store(Arc::new(covered));
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

type Policies = BTreeMap<String, Option<Covering>>;

fn coverings(policies: &Policies) -> Arc<[Covering]> {
    policies.values().flatten().cloned().collect()
}

/// What events have brought so far.
#[derive(Default)]
struct Builder {
    known: HashMap<String, Policies>,
    listed: Option<HashMap<String, Policies>>,
}

impl Builder {
    /// Takes in an event; returns what to publish: a namespace, or `Some(None)` for everything.
    #[allow(clippy::option_option, reason = "nothing, one namespace, or everything")]
    fn take(
        &mut self,
        event: watcher::Event<DeserializeGuard<SecurityPolicy>>,
        metrics: &Metrics,
    ) -> Option<Option<String>> {
        match event {
            watcher::Event::Init => {
                self.listed = Some(HashMap::new());
                None
            }
            watcher::Event::InitApply(policy) => {
                let listed = self.listed.get_or_insert_default();
                let policies = listed.entry(policy.namespace().unwrap_or_default()).or_default();
                put(policies, self.known.get(&policy.namespace().unwrap_or_default()), &policy, metrics);
                None
            }
            watcher::Event::InitDone => {
                self.known = self.listed.take().unwrap_or_default();
                Some(None)
            }
            watcher::Event::Apply(policy) => {
                let namespace = policy.namespace().unwrap_or_default();
                let before = self.known.get(&namespace).cloned();
                put(self.known.entry(namespace.clone()).or_default(), before.as_ref(), &policy, metrics);
                (self.known.get(&namespace) != before.as_ref()).then_some(Some(namespace))
            }
            watcher::Event::Delete(policy) => {
                let namespace = policy.namespace().unwrap_or_default();
                self.known.get_mut(&namespace)?.remove(&policy.name_any())?;
                Some(Some(namespace))
            }
        }
    }
}

/// A policy that can't be read keeps what it last said: a broken edit must not open a namespace.
fn put(
    policies: &mut Policies,
    before: Option<&Policies>,
    policy: &DeserializeGuard<SecurityPolicy>,
    metrics: &Metrics,
) {
    let name = policy.name_any();
    let requirement = match &policy.0 {
        // The hardening alone: a network part that can't be read must not open the namespace.
        Ok(policy) => {
            let hardening = policy.spec.hardening.as_ref().map(Requirement::try_from).transpose();
            hardening.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    let covering = match requirement {
        Ok(requirement) => requirement
            .filter(|requirement| requirement.mode != HardeningMode::Disabled)
            .map(|requirement| Covering { origin: Origin::SecurityPolicy(name.clone()), requirement }),
        Err(error) => {
            tracing::error!(policy = name, error, "a policy can't be read, and keeps saying what it said last");
            metrics.invalid_objects.get_or_create(&KindLabel { kind: "securitypolicy" }).inc();
            before.and_then(|before| before.get(&name)).cloned().flatten()
        }
    };
    policies.insert(name, covering);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, version: &str) -> DeserializeGuard<SecurityPolicy> {
        let json = serde_json::json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
            "metadata": {"name": name, "namespace": "n"},
            "spec": {"hardening": {"mode": "Enforce", "podSecurity": {"level": "restricted", "version": version}}},
        });
        serde_json::from_value(json).unwrap()
    }

    fn names(index: &PolicyIndex) -> Vec<String> {
        let named = |covering: &Covering| match &covering.origin {
            Origin::SecurityPolicy(name) => name.clone(),
            other => panic!("{other:?}"),
        };
        index.of_namespace("n").iter().map(named).collect()
    }

    fn feed(index: &PolicyIndex, builder: &mut Builder, event: watcher::Event<DeserializeGuard<SecurityPolicy>>) {
        if let Some(namespace) = builder.take(event, &Metrics::default()) {
            index.publish(builder, namespace.as_deref());
        }
    }

    #[test]
    fn policies_come_and_go_and_a_broken_edit_opens_nothing() {
        let (index, mut builder) = (PolicyIndex::default(), Builder::default());
        feed(&index, &mut builder, watcher::Event::Apply(policy("a", "latest")));
        assert_eq!(names(&index), ["a"]);
        feed(&index, &mut builder, watcher::Event::Apply(policy("a", "newest")));
        assert_eq!(names(&index), ["a"], "the last readable state holds");
        feed(&index, &mut builder, watcher::Event::Apply(policy("broken", "newest")));
        assert_eq!(names(&index), ["a"], "and one broken policy does not stop the rest");
        feed(&index, &mut builder, watcher::Event::Delete(policy("a", "latest")));
        assert!(names(&index).is_empty());
    }

    #[test]
    fn a_new_list_replaces_everything_at_once() {
        let (index, mut builder) = (PolicyIndex::default(), Builder::default());
        feed(&index, &mut builder, watcher::Event::Apply(policy("a", "latest")));
        feed(&index, &mut builder, watcher::Event::Init);
        feed(&index, &mut builder, watcher::Event::InitApply(policy("b", "latest")));
        assert_eq!(names(&index), ["a"], "until the list is complete");
        feed(&index, &mut builder, watcher::Event::InitDone);
        assert_eq!(names(&index), ["b"]);
    }
}
