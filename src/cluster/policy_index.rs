//! The policies that cover each namespace, as webhook and floor read them: swapped whole, so that a
//! reader sees one state of the world and never waits.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt as _,
    core::{DeserializeGuard, PartialObjectMeta},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Result,
    error::{call, found},
    follow::{Key, follow},
    relabelled::{Changed, Relabelled},
};
use crate::{
    api::{ClusterSecurityPolicy, HardeningMode, Invalid, PolicyException, SecurityPolicy},
    hardening::{ClusterWide, Covering, Exception, Origin, Policies, Requirement},
    keys::Caps,
    runtime::{
        metrics::{KindLabel, Metrics},
        readiness::Gate,
    },
};

type Labels = BTreeMap<String, String>;

/// The index.
#[derive(Clone, Default)]
pub struct PolicyIndex {
    known: Arc<ArcSwap<Policies>>,
    listed: Arc<AtomicBool>,
    changes: watch::Sender<u64>,
    wide_changes: watch::Sender<u64>,
    label_changes: watch::Sender<u64>,
}

impl PolicyIndex {
    /// Whether everything has been listed once. Before, that no policy is known says nothing.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// Says that everything has been listed.
    pub(crate) fn mark_listed(&self) {
        self.listed.store(true, Ordering::Release);
    }

    /// Policies that cover a namespace. One that is so new that no watch has told of it is asked for.
    ///
    /// # Errors
    /// When a namespace has to be asked for, and can't be.
    pub async fn of_namespace(&self, client: &Client, namespace: &str) -> Result<Arc<[Covering]>> {
        let known = self.known.load_full();
        if known.wide.is_empty() || namespace.is_empty() {
            return Ok(known.own(namespace));
        }
        if let Some(labels) = known.labels.get(namespace) {
            return Ok(known.covering(namespace, labels));
        }
        Ok(known.covering(namespace, &live_labels(client, namespace).await?))
    }

    /// What ApiKeys of a namespace may ask for. One that is so new that no watch has told of it is asked for.
    ///
    /// # Errors
    /// When a namespace has to be asked for, and can't be.
    pub async fn key_caps(&self, client: &Client, namespace: &str) -> Result<Caps> {
        let known = self.known.load_full();
        if known.wide.values().all(|policy| policy.key_caps.is_none()) {
            return Ok(Caps::default());
        }
        if let Some(labels) = known.labels.get(namespace) {
            return Ok(known.key_caps(namespace, labels));
        }
        Ok(known.key_caps(namespace, &live_labels(client, namespace).await?))
    }

    /// Changes its value whenever the index has changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Changes its value whenever ClusterSecurityPolicies have changed.
    #[must_use]
    pub fn wide_changes(&self) -> watch::Receiver<u64> {
        self.wide_changes.subscribe()
    }

    /// Changes its value whenever labels of namespaces have changed.
    #[must_use]
    pub fn label_changes(&self) -> watch::Receiver<u64> {
        self.label_changes.subscribe()
    }

    /// Everything that is known.
    #[must_use]
    pub fn known(&self) -> Arc<Policies> {
        self.known.load_full()
    }

    /// Whether ClusterSecurityPolicies permit an exception of a namespace.
    ///
    /// # Errors
    /// Why they do not.
    pub fn permits(&self, namespace: &str, exception: &Exception) -> std::result::Result<(), String> {
        exception.permitted(namespace, &self.known.load().wide)
    }

    fn swap(&self, change: impl Fn(&mut Policies)) {
        self.known.rcu(|known| {
            let mut known = Policies::clone(known);
            change(&mut known);
            known
        });
    }

    fn publish(&self, change: impl Fn(&mut Policies)) {
        self.swap(change);
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What admission policies must enforce is the same.
    fn relabel(&self, change: impl Fn(&mut HashMap<String, Arc<Labels>>)) {
        self.swap(|known| change(Arc::make_mut(&mut known.labels)));
        self.label_changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Follows the cluster until the process stops; `synced` opens when everything has been listed.
    ///
    /// # Errors
    /// None: a failing watch is restarted.
    pub async fn run(
        self,
        client: Client,
        synced: Gate,
        metrics: Metrics,
        stopped: CancellationToken,
    ) -> anyhow::Result<()> {
        // An increase is seen only of what was 0 before.
        for kind in ["securitypolicy", "clustersecuritypolicy", "policyexception"] {
            drop(metrics.invalid_objects.get_or_create(&KindLabel { kind }));
        }
        let listed: [watch::Sender<bool>; 4] = std::array::from_fn(|_| watch::Sender::new(false));
        let all_listed = async {
            for listed in &listed {
                let _ = listed.subscribe().wait_for(|listed| *listed).await;
            }
            self.mark_listed();
            synced.open();
        };
        let [own_listed, wide_listed, labels_listed, exceptions_listed] = &listed;
        let own = follow(
            Api::<DeserializeGuard<SecurityPolicy>>::all(client.clone()),
            |policy, before| own(policy, before, &metrics),
            |all, changed| self.publish(|known| put_own(known, all, changed)),
            own_listed,
        );
        let wide = follow(
            Api::<DeserializeGuard<ClusterSecurityPolicy>>::all(client.clone()),
            |policy, before| wide(policy, before, &metrics),
            |all, _| {
                self.publish(|known| known.wide = Arc::new(by_name(all)));
                self.wide_changes.send_modify(|count| *count = count.wrapping_add(1));
            },
            wide_listed,
        );
        let exceptions = follow(
            Api::<DeserializeGuard<PolicyException>>::all(client.clone()),
            |it, _| exception(it, &metrics),
            |all, _| self.publish(|known| known.exceptions = Arc::new(by_namespace(all))),
            exceptions_listed,
        );
        let relabelled = Relabelled::default();
        let labels = follow(
            Api::<PartialObjectMeta<Namespace>>::all(client),
            |namespace, before| Some(labels_of(namespace, before)),
            |all, changed| {
                if let Some(key) = changed {
                    relabelled.note(&key.1, all.get(key).cloned());
                } else {
                    relabelled.forget();
                    self.relabel(|known| *known = by_name(all));
                }
            },
            labels_listed,
        );
        let relabelling = relabelled.tell(|changed| self.relabel(|known| put_labels(known, &changed)));
        tokio::select! {
            () = stopped.cancelled() => {}
            _ = async { tokio::join!(own, wide, exceptions, labels, relabelling, all_listed) } => {}
        }
        Ok(())
    }
}

async fn live_labels(client: &Client, namespace: &str) -> Result<Labels> {
    let api: Api<Namespace> = Api::all(client.clone());
    // Rare, and too large to be carried about with every review.
    let live = Box::pin(call(|| format!("reading namespace {namespace}"), api.get_metadata(namespace)));
    Ok(found(live.await)?.map(|live| live.labels().clone()).unwrap_or_default())
}

/// Labels of a namespace: those of before where they are the same, so that nobody compares them again.
fn labels_of(namespace: &PartialObjectMeta<Namespace>, before: Option<&Arc<Labels>>) -> Arc<Labels> {
    let same = before.filter(|before| ***before == *namespace.labels());
    same.map_or_else(|| Arc::new(namespace.labels().clone()), Arc::clone)
}

/// Puts the labels of some namespaces; the others' are shared with those of before.
fn put_labels(known: &mut HashMap<String, Arc<Labels>>, changed: &Changed) {
    for (namespace, labels) in changed {
        match labels {
            Some(labels) => drop(known.insert(namespace.clone(), Arc::clone(labels))),
            None => drop(known.remove(namespace)),
        }
    }
}

/// What PolicyExceptions say, by namespace.
fn by_namespace(all: &BTreeMap<Key, Exception>) -> HashMap<String, Vec<Exception>> {
    let mut by_namespace: HashMap<String, Vec<Exception>> = HashMap::new();
    for ((namespace, _), exception) in all {
        by_namespace.entry(namespace.clone()).or_default().push(exception.clone());
    }
    by_namespace
}

/// What a PolicyException says. One that can't be read excepts nothing, whatever it said before.
fn exception(exception: &DeserializeGuard<PolicyException>, metrics: &Metrics) -> Option<Exception> {
    let asked = exception.0.as_ref().map(|exception| Exception::try_from(exception).map(Some));
    readable("policyexception", &exception.name_any(), asked, metrics).flatten()
}

fn by_name<V: Clone, M: FromIterator<(String, V)>>(all: &BTreeMap<Key, V>) -> M {
    all.iter().map(|((_, name), value)| (name.clone(), value.clone())).collect()
}

/// Puts what is known of one namespace, or of all.
fn put_own(known: &mut Policies, all: &BTreeMap<Key, Covering>, changed: Option<&Key>) {
    let of = |namespace: &str| -> Arc<[Covering]> {
        let from = (namespace.to_owned(), String::new());
        all.range(from..).take_while(|((of, _), _)| of == namespace).map(|(_, covering)| covering.clone()).collect()
    };
    let mut own = if changed.is_some() { HashMap::clone(&known.own) } else { HashMap::new() };
    let namespaces: BTreeSet<&String> = match changed {
        Some((namespace, _)) => [namespace].into(),
        None => all.keys().map(|(namespace, _)| namespace).collect(),
    };
    for namespace in namespaces {
        let policies = of(namespace);
        if policies.is_empty() {
            own.remove(namespace);
        } else {
            own.insert(namespace.clone(), policies);
        }
    }
    known.own = Arc::new(own);
}

/// What a SecurityPolicy asks of pods.
fn own(policy: &DeserializeGuard<SecurityPolicy>, before: Option<&Covering>, metrics: &Metrics) -> Option<Covering> {
    let name = policy.name_any();
    // The hardening alone: a network part that can't be read must not open the namespace.
    let asked = policy.0.as_ref().map(|policy| policy.spec.hardening.as_ref().map(Requirement::try_from).transpose());
    let requirement = readable("securitypolicy", &name, asked, metrics)
        .unwrap_or_else(|| before.map(|before| before.requirement.clone()));
    let origin = Origin::SecurityPolicy(name);
    let asked = requirement.filter(|requirement| requirement.mode != HardeningMode::Disabled);
    let made = policy.creation_timestamp().map(|time| time.0);
    asked.map(|requirement| Covering { origin, made, requirement, exceptions: Arc::default() })
}

/// What a ClusterSecurityPolicy asks of pods.
fn wide(
    policy: &DeserializeGuard<ClusterSecurityPolicy>,
    before: Option<&ClusterWide>,
    metrics: &Metrics,
) -> Option<ClusterWide> {
    let (kind, name) = ("clustersecuritypolicy", policy.name_any());
    // The hardening first: another part that can't be read must not open namespaces, after a restart neither.
    let asked = policy.0.as_ref().map(|policy| ClusterWide::hardening_of(policy, before));
    let Some((asked, wrong)) = readable(kind, &name, asked, metrics) else { return before.cloned() };
    if let Some(invalid) = wrong {
        tell_unreadable(kind, &name, &invalid.to_string(), metrics);
    }
    Some(asked)
}

/// `None` where a policy can't be read: it keeps what it last said, since a broken edit must not open a namespace.
fn readable<T, E: std::fmt::Display>(
    kind: &'static str,
    name: &str,
    asked: std::result::Result<std::result::Result<T, Invalid>, E>,
    metrics: &Metrics,
) -> Option<T> {
    let error = match asked {
        Ok(Ok(asked)) => return Some(asked),
        Ok(Err(invalid)) => invalid.to_string(),
        Err(error) => error.to_string(),
    };
    tell_unreadable(kind, name, &error, metrics);
    None
}

fn tell_unreadable(kind: &'static str, name: &str, error: &str, metrics: &Metrics) {
    tracing::error!(kind, policy = name, error, "a policy can't be read, and keeps saying what it said last");
    metrics.invalid_objects.get_or_create(&KindLabel { kind }).inc();
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn policy(name: &str, version: &str) -> DeserializeGuard<SecurityPolicy> {
        let json = serde_json::json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
            "metadata": {"name": name, "namespace": "n"},
            "spec": {"hardening": {"mode": "Enforce", "podSecurity": {"level": "restricted", "version": version}}},
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_broken_edit_keeps_what_was_said_and_a_broken_new_one_says_nothing() {
        let metrics = Metrics::default();
        let good = own(&policy("a", "latest"), None, &metrics).unwrap();
        assert_eq!(own(&policy("a", "newest"), Some(&good), &metrics), Some(good));
        assert_eq!(own(&policy("a", "newest"), None, &metrics), None);
    }

    #[rstest]
    #[case::no_isolation_for_a_class("dataClass", json!("Restricted"))]
    #[case::a_role_that_may_do_nothing("apiKeys", json!({"roles": [{"name": "r"}]}))]
    fn another_part_that_can_not_be_read_takes_no_hardening_away(#[case] field: &str, #[case] broken: Value) {
        let mut policy = json!({"metadata": {"name": "base"}, "spec": {"namespaceSelector": {},
            "apiKeys": {"maxTtl": "1h"}, "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}}}});
        let metrics = Metrics::default();
        let read = |policy: &Value, before: Option<&ClusterWide>| {
            wide(&serde_json::from_value(policy.clone()).unwrap(), before, &metrics).unwrap()
        };
        let good = read(&policy, None);
        assert!(good.key_caps.is_some());
        policy["spec"][field] = broken;
        assert_eq!(read(&policy, Some(&good)), good, "it says what it said before");
        assert_eq!(read(&policy, None).requirement, good.requirement);
        assert_eq!(metrics.invalid_objects.get_or_create(&KindLabel { kind: "clustersecuritypolicy" }).get(), 2);
    }

    #[test]
    fn cluster_policies_cover_by_label_and_never_system_namespaces() {
        let json = serde_json::json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "base"},
            "spec": {"namespaceSelector": {"matchLabels": {"tier": "web"}},
                     "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}}},
        });
        let metrics = Metrics::default();
        let base = wide(&serde_json::from_value(json).unwrap(), None, &metrics).unwrap();
        let own = own(&policy("a", "latest"), None, &metrics).unwrap();
        let known = Policies {
            own: Arc::new([("n".to_owned(), [own].into())].into()),
            wide: Arc::new([("base".to_owned(), base)].into()),
            labels: Arc::default(),
            exceptions: Arc::default(),
        };
        let web: BTreeMap<String, String> = [("tier".to_owned(), "web".to_owned())].into();
        let count = |namespace: &str, labels: &BTreeMap<String, String>| known.covering(namespace, labels).len();
        assert_eq!((count("n", &web), count("n", &BTreeMap::new())), (2, 1));
        assert_eq!((count("m", &web), count("m", &BTreeMap::new()), count("kube-system", &web)), (1, 0, 0));
    }

    #[test]
    fn labels_that_did_not_change_are_shared_with_those_of_before() {
        let labels = |team: &str| Arc::new(Labels::from([("team".to_owned(), team.to_owned())]));
        let index = PolicyIndex::default();
        index.relabel(|known| known.extend(["n", "m", "gone"].map(|name| (name.to_owned(), labels("a")))));
        let before = index.known().labels.clone();
        let changed = Changed::from([("n".to_owned(), Some(labels("b"))), ("gone".to_owned(), None)]);
        index.relabel(|known| put_labels(known, &changed));
        let now = index.known().labels.clone();
        assert_eq!((now.len(), &now["n"]), (2, &labels("b")));
        assert!(Arc::ptr_eq(&before["m"], &now["m"]), "it was copied");
        assert_eq!(before["n"], labels("a"), "who holds the state of before sees it whole");
        let told: PartialObjectMeta<Namespace> =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "m", "labels": {"team": "a"}}})).unwrap();
        assert!(Arc::ptr_eq(&labels_of(&told, now.get("m")), &now["m"]), "a new list copies it");
        assert_eq!(labels_of(&told, now.get("n")), labels("a"));
    }

    #[test]
    fn one_namespace_changes_without_the_others() {
        let metrics = Metrics::default();
        let covering = own(&policy("a", "latest"), None, &metrics).unwrap();
        let key = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        let mut all: BTreeMap<Key, Covering> =
            [(key("n", "a"), covering.clone()), (key("n", "b"), covering.clone()), (key("m", "a"), covering)].into();
        let mut known = Policies::default();
        put_own(&mut known, &all, None);
        assert_eq!((known.own["n"].len(), known.own["m"].len()), (2, 1));
        all.remove(&key("m", "a"));
        put_own(&mut known, &all, Some(&key("m", "a")));
        assert!(known.own.contains_key("n") && !known.own.contains_key("m"));
    }
}
