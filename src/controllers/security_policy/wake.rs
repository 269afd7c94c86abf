//! Whom a change in the cluster wakes.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Resource as _, ResourceExt as _, core::DeserializeGuard, runtime::reflector::ObjectRef};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Networks, Roots,
        floor::InForce,
        network::{News, owner_of},
    },
    KIND,
};
use crate::{
    api::{
        NetworkMode, Reciprocal, SecurityPolicy,
        condition::{self, Type},
        labels::{PART, RECIPROCAL},
    },
    network::Intent,
};

/// Where to send whom to wake.
type Wakes = (Roots<SecurityPolicy>, mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>);

/// Namespaces where NetworkPolicies changed that isolate, and the SecurityPolicy whose each was, if it was one's.
pub(super) type Isolating = watch::Sender<BTreeSet<(String, Option<String>)>>;

/// An object's status is written at most this often for counts alone.
const HOLD: Duration = Duration::from_secs(10);
/// Changes that come together are told together.
const SETTLE: Duration = Duration::from_secs(1);

/// Wakes the policies that pods, Services or labels of namespaces which came, went or changed matter to: at once those
/// that are rendered by them; a while later those that count them, or report who is isolated beside them.
pub(super) async fn wake_for_pods(
    networks: Networks,
    isolating: Isolating,
    (roots, one): Wakes,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let (mut pods, mut around) = (networks.residents.changes(), networks.surroundings.clone());
    let (mut labels, mut labelled) = (networks.policies.label_changes(), networks.policies.known().labels.clone());
    let mut isolated = isolating.subscribe();
    let mut namespaces = BTreeSet::new();
    let mut count_at: Option<Instant> = None;
    let mut counted = Instant::now();
    loop {
        let counts = tokio::select! {
            changed = pods.changed() => { if changed.is_err() { break } false }
            changed = around.changed() => { if changed.is_err() { break } false }
            changed = labels.changed() => { if changed.is_err() { break } false }
            _ = isolated.changed() => {
                count_at.get_or_insert(Instant::now().max(counted + HOLD));
                continue;
            }
            () = due(count_at) => true,
            () = stopped.cancelled() => return Ok(()),
        };
        if counts {
            let mut beside = BTreeSet::new();
            isolating.send_if_modified(|all| {
                beside = std::mem::take(all);
                false
            });
            let concerned =
                |root: &DeserializeGuard<SecurityPolicy>| counts_pods(root, &namespaces) || is_beside(root, &beside);
            wake_refreshed(&networks, &roots, &one, concerned);
            namespaces.clear();
            (count_at, counted) = (None, Instant::now());
            continue;
        }
        tokio::select! {
            () = sleep(SETTLE) => {}
            () = stopped.cancelled() => return Ok(()),
        }
        pods.mark_unchanged();
        around.mark_unchanged();
        labels.mark_unchanged();
        namespaces.extend(networks.residents.take_changed());
        let known = networks.policies.known();
        let clamped = known.isolated_otherwise(&labelled);
        labelled = known.labels.clone();
        let is_clamped = |root: &DeserializeGuard<SecurityPolicy>| {
            root.meta().namespace.as_ref().is_some_and(|namespace| clamped.contains(namespace))
        };
        wake_refreshed(&networks, &roots, &one, |root| is_rendered_by_pods(root) || is_clamped(root));
        count_at.get_or_insert(Instant::now().max(counted + HOLD));
    }
    stopped.cancelled().await;
    Ok(())
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Wakes those that must see the pods as they are now.
fn wake_refreshed(
    networks: &Networks,
    roots: &Roots<SecurityPolicy>,
    one: &mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>,
    concerned: impl Fn(&DeserializeGuard<SecurityPolicy>) -> bool,
) {
    if roots.store.find(&concerned).is_some() {
        networks.residents.refresh();
        wake(roots, one, concerned);
    }
}

fn wake(
    roots: &Roots<SecurityPolicy>,
    one: &mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>,
    concerned: impl Fn(&DeserializeGuard<SecurityPolicy>) -> bool,
) {
    for root in roots.store.state_filter(concerned) {
        let _ = one.send(ObjectRef::from_obj(root.as_ref()));
    }
}

/// Whether what a policy becomes depends on which pods and Services there are: by itself, or by what it accepts.
fn is_rendered_by_pods(root: &DeserializeGuard<SecurityPolicy>) -> bool {
    let network = root.0.as_ref().ok().and_then(|policy| policy.spec.network.as_ref());
    let is_so = |intent: Intent| !intent.accept_from.is_empty() || intent.is_resolved();
    network.is_some_and(|network| Intent::try_from(network).is_ok_and(is_so))
}

/// Whether what a policy becomes, or else what it reports, depends on what others of its namespace isolate.
fn depends_on_isolation(root: &DeserializeGuard<SecurityPolicy>, namespace: &str, rendered: bool) -> bool {
    let network = root.0.as_ref().ok().and_then(|policy| policy.spec.network.as_ref());
    let network =
        network.filter(|it| rendered == (it.reciprocal == Reciprocal::Generate || !it.accept_from.is_empty()));
    network.is_some_and(|network| Intent::try_from(network).is_ok_and(|intent| intent.has_other_ends(namespace)))
}

/// Whether a policy reports on who is isolated in its namespace, and that was changed for another one.
fn is_beside(root: &DeserializeGuard<SecurityPolicy>, beside: &BTreeSet<(String, Option<String>)>) -> bool {
    let namespace = root.namespace().unwrap_or_default();
    let from = (namespace.clone(), None);
    let here = beside.range(from..).take_while(|(of, _)| *of == namespace);
    let is_changed = here.into_iter().any(|(_, owner)| owner.as_deref() != root.meta().name.as_deref());
    is_changed && depends_on_isolation(root, &namespace, false)
}

/// Whether status tells of pods of some namespaces, or of what a policy would change, which any pod may be a part of.
fn counts_pods(root: &DeserializeGuard<SecurityPolicy>, namespaces: &BTreeSet<String>) -> bool {
    let Ok(policy) = &root.0 else { return false };
    let programmed = policy.status.iter().any(|it| condition::is_true(&it.conditions, Type::Programmed));
    match policy.spec.network.as_ref().map(|network| network.mode) {
        None | Some(NetworkMode::Disabled) => false,
        Some(NetworkMode::Enforce) if programmed => {
            namespaces.contains(policy.namespace().as_deref().unwrap_or_default())
        }
        Some(NetworkMode::Preview | NetworkMode::Enforce) => true,
    }
}

/// Wakes the policies of namespaces where something else is in force than before.
pub(super) async fn wake_for_floor(
    mut in_force: watch::Receiver<InForce>,
    roots: Roots<SecurityPolicy>,
    one: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let mut before = InForce::default();
    loop {
        let now = in_force.borrow_and_update().clone();
        let differs = |namespace: &str| {
            now.webhook != before.webhook
                || now.paused != before.paused
                || now.floor.get(namespace) != before.floor.get(namespace)
                || now.webhook_alone.contains(namespace) != before.webhook_alone.contains(namespace)
        };
        for root in roots.store.state_filter(|root| differs(root.namespace().as_deref().unwrap_or_default())) {
            let _ = one.send(ObjectRef::from_obj(root.as_ref()));
        }
        before = now;
        tokio::select! {
            changed = in_force.changed() => if changed.is_err() { stopped.cancelled().await; },
            () = stopped.cancelled() => return Ok(()),
        }
    }
}

/// Wakes the policies that a NetworkPolicy matters to.
pub(super) struct Wake {
    pub(super) one: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>,
    pub(super) all: watch::Sender<u64>,
    pub(super) roots: Roots<SecurityPolicy>,
    pub(super) isolating: Isolating,
}

impl Wake {
    pub(super) fn about(&self, news: News<'_>) {
        let policy = match news {
            News::Listed => return self.all.send_modify(|count| *count += 1),
            News::Echo(policy) => return self.beside(policy),
            News::Changed(policy) => policy,
        };
        let namespace = policy.namespace().unwrap_or_default();
        match owner_of(policy) {
            Some((KIND, owner)) => {
                let _ = self.one.send(ObjectRef::new(owner).within(&namespace));
                // An event may overtake the answer to an own write.
                self.beside(policy);
            }
            _ => {
                // Somebody else's may isolate pods whose side a policy opens; and one of ours may have
                // lost its labels.
                wake(&self.roots, &self.one, |root| root.meta().namespace.as_ref() == Some(&namespace));
            }
        }
    }

    /// Those beside the owner of a policy of ours: it may isolate pods whose side they open. A half isolates nobody
    /// anew.
    fn beside(&self, policy: &NetworkPolicy) {
        if policy.labels().get(PART).is_some_and(|part| part == RECIPROCAL) {
            return;
        }
        let namespace = policy.namespace().unwrap_or_default();
        let owner = owner_of(policy).filter(|(kind, _)| *kind == KIND).map(|(_, name)| name);
        wake(&self.roots, &self.one, |root| {
            root.meta().namespace.as_ref() == Some(&namespace)
                && root.meta().name.as_deref() != owner
                && depends_on_isolation(root, &namespace, true)
        });
        self.isolating.send_if_modified(|all| all.insert((namespace, owner.map(str::to_owned))));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn root(more: &Value) -> DeserializeGuard<SecurityPolicy> {
        let mut network = json!({"mode": "Enforce", "podSelector": {}, "isolate": ["Ingress"]});
        network.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let policy = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"network": network}});
        DeserializeGuard(Ok(serde_json::from_value(policy).unwrap()))
    }

    #[test]
    fn who_accepts_from_others_is_rendered_by_their_pods() {
        let named =
            json!({"ingress": [{"name": "in", "peers": [{"entity": "SameNamespace"}], "ports": [{"port": "http"}]}]});
        assert!(is_rendered_by_pods(&root(&named)));
        assert!(is_rendered_by_pods(&root(&json!({"acceptFrom": [{"namespace": "data", "policy": "db"}]}))));
        assert!(!is_rendered_by_pods(&root(&json!({}))));
    }
}
