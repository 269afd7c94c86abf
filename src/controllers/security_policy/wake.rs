//! Whom a change in the cluster wakes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Resource as _, ResourceExt as _, core::DeserializeGuard, runtime::reflector::ObjectRef};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Networks, Roots,
        floor::{Asking, InForce},
        network::{News, Owning as _},
        news::{HOLD, due},
    },
    fresh::{Fresh, asked, peers},
};
use crate::{
    api::{
        NetworkMode, Reciprocal, SecurityPolicy,
        condition::{self, Type},
        labels::OWNER_UID,
    },
    cluster::owner::{is_half, owner_of},
    hardening::Requirement,
    network::{DNS_NAMESPACE, Facts, Intent},
};

/// Where to send whom to wake.
type Wakes = (Roots<SecurityPolicy>, mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>);

/// Namespaces where NetworkPolicies changed that isolate, and the UID of the SecurityPolicy whose each was, if it was
/// one's.
pub(super) type Isolating = watch::Sender<BTreeSet<(String, Option<String>)>>;

/// A preview is about pods everywhere, and costs a look at all of them: for those of other namespaces it waits.
const PREVIEWS: Duration = Duration::from_mins(10);
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
    let changed_pods = networks.residents.follow();
    let (mut labels, mut labelled) = (networks.policies.label_changes(), networks.policies.known().labels.clone());
    let mut isolated = isolating.subscribe();
    let mut changed = Changed::default();
    let (mut count_at, mut preview_at): (Option<Instant>, Option<Instant>) = (None, None);
    let mut counted = Instant::now();
    loop {
        let counts = tokio::select! {
            told = pods.changed() => { if told.is_err() { break } false }
            told = around.changed() => { if told.is_err() { break } false }
            told = labels.changed() => { if told.is_err() { break } false }
            _ = isolated.changed() => {
                count_at.get_or_insert(Instant::now().max(counted + HOLD));
                continue;
            }
            () = due(preview_at) => {
                (changed.everywhere, preview_at) = (true, None);
                count_at.get_or_insert(Instant::now().max(counted + HOLD));
                continue;
            }
            () = due(count_at) => true,
            () = stopped.cancelled() => return Ok(()),
        };
        if counts {
            isolating.send_if_modified(|all| {
                changed.isolated = std::mem::take(all);
                false
            });
            wake_refreshed(&networks, &roots, &one, |root| changed.concerns(root));
            changed = Changed::default();
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
        let known = networks.policies.known();
        let [before, now] = [&labelled, &known.labels];
        let came = now.keys().filter(|name| !before.contains_key(*name));
        let went = before.keys().filter(|name| !now.contains_key(*name));
        let fresh = Fresh {
            namespaces: &changed_pods.take() | &networks.around_changed.take(),
            came_or_went: came.chain(went).cloned().collect(),
            clamped: known.isolated_otherwise(&labelled),
            labels: !Arc::ptr_eq(before, now),
        };
        labelled = known.labels.clone();
        wake_refreshed(&networks, &roots, &one, |root| fresh.concerns(root, &roots));
        changed.namespaces.extend(fresh.namespaces);
        count_at.get_or_insert(Instant::now().max(counted + HOLD));
        preview_at.get_or_insert(Instant::now() + PREVIEWS);
    }
    stopped.cancelled().await;
    Ok(())
}

/// Wakes those that must see the pods as they are now.
fn wake_refreshed(
    networks: &Networks,
    roots: &Roots<SecurityPolicy>,
    one: &mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>,
    concerned: impl Fn(&DeserializeGuard<SecurityPolicy>) -> bool,
) {
    // Not while the store is read: whoever is asked may look another up.
    let mut all = roots.store.state();
    all.retain(|root| concerned(root));
    if !all.is_empty() {
        networks.residents.refresh();
    }
    for root in all {
        let _ = one.send(ObjectRef::from_obj(root.as_ref()));
    }
}

/// Wakes the policies that what is known of addresses matters to: where other ranges are known and nothing else, those
/// with peers outside, and those that are not in force.
pub(super) async fn wake_for_facts(
    mut facts: watch::Receiver<Facts>,
    (roots, one): Wakes,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let mut before = facts.borrow_and_update().clone();
    loop {
        tokio::select! {
            told = facts.changed() => if told.is_err() { break },
            // Who could tell of changes may live as long as the process.
            () = stopped.cancelled() => return Ok(()),
        }
        let now = facts.borrow_and_update().clone();
        let of_ranges = before.cluster_ranges != now.cluster_ranges;
        before.cluster_ranges.clone_from(&now.cluster_ranges);
        let is_all = before != now;
        roots.wake(&one, |root| is_all || (of_ranges && depends_on_ranges(root)));
        before = now;
    }
    stopped.cancelled().await;
    Ok(())
}

/// Whether what a policy becomes, or else what it is refused for, depends on the cluster's ranges. What is open to
/// everybody may be clamped to what lies outside.
fn depends_on_ranges(root: &DeserializeGuard<SecurityPolicy>) -> bool {
    let Some((network, _)) = asked(root) else { return false };
    let status = root.0.as_ref().ok().and_then(|policy| policy.status.as_ref());
    let programmed = status.is_some_and(|status| condition::is_true(&status.conditions, Type::Programmed));
    !programmed || peers(network).any(|peer| peer.external.is_some() || peer.any == Some(true))
}

/// Whether what a policy becomes, or else what it reports, depends on what others of its namespace isolate.
fn depends_on_isolation(root: &DeserializeGuard<SecurityPolicy>, namespace: &str, rendered: bool) -> bool {
    let network = root.0.as_ref().ok().and_then(|policy| policy.spec.network.as_ref());
    let network =
        network.filter(|it| rendered == (it.reciprocal == Reciprocal::Generate || !it.accept_from.is_empty()));
    network.is_some_and(|network| Intent::try_from(network).is_ok_and(|intent| intent.has_other_ends(namespace)))
}

/// What changed since status was last told anew.
#[derive(Debug, Default)]
struct Changed {
    /// Namespaces whose pods did.
    namespaces: BTreeSet<String>,
    /// Whether previews look at what is elsewhere, too.
    everywhere: bool,
    /// As [`Isolating`].
    isolated: BTreeSet<(String, Option<String>)>,
}

impl Changed {
    /// Whether a status tells of it.
    fn concerns(&self, root: &DeserializeGuard<SecurityPolicy>) -> bool {
        let Ok(policy) = &root.0 else { return false };
        let programmed = policy.status.iter().any(|it| condition::is_true(&it.conditions, Type::Programmed));
        let is_here = self.namespaces.contains(policy.namespace().as_deref().unwrap_or_default());
        // Those that ask the name servers are everywhere.
        let cuts_off = self.isolated.iter().any(|(namespace, _)| namespace == DNS_NAMESPACE);
        let counts = match policy.spec.network.as_ref().map(|network| network.mode) {
            None | Some(NetworkMode::Disabled) => false,
            Some(NetworkMode::Enforce) => is_here || cuts_off || !programmed,
            Some(NetworkMode::Preview) => is_here || cuts_off || self.everywhere,
        };
        counts || is_beside(root, &self.isolated)
    }
}

/// Whether a policy reports on who is isolated in its namespace, and that was changed for another one.
fn is_beside(root: &DeserializeGuard<SecurityPolicy>, beside: &BTreeSet<(String, Option<String>)>) -> bool {
    let namespace = root.namespace().unwrap_or_default();
    let from = (namespace.clone(), None);
    let here = beside.range(from..).take_while(|(of, _)| *of == namespace);
    let is_changed = here.into_iter().any(|(_, owner)| owner.is_none() || *owner != root.meta().uid);
    is_changed && depends_on_isolation(root, &namespace, false)
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
                || now.failure != before.failure
                || !now.unwritten_in(namespace).eq(before.unwritten_in(namespace))
                || now.full.get(namespace) != before.full.get(namespace)
                || now.floor.get(namespace) != before.floor.get(namespace)
                || now.roomless.get(namespace) != before.roomless.get(namespace)
                || now.stale.get(namespace) != before.stale.get(namespace)
                || now.webhook_alone.contains(namespace) != before.webhook_alone.contains(namespace)
        };
        roots.wake(&one, |root| differs(root.namespace().as_deref().unwrap_or_default()));
        before = now;
        tokio::select! {
            changed = in_force.changed() => if changed.is_err() { stopped.cancelled().await; },
            () = stopped.cancelled() => return Ok(()),
        }
    }
}

/// Whether a policy lacks something while the webhook is away.
pub(super) fn leans_on_webhook(policy: &SecurityPolicy, in_force: &InForce) -> bool {
    let requirement = policy.spec.hardening.as_ref().and_then(|it| Requirement::try_from(it).ok());
    let asking = Asking::Namespace(policy.metadata.namespace.as_deref().unwrap_or_default());
    requirement.is_some_and(|requirement| in_force.leans_on_webhook(&requirement, asking))
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
        let (policy, is_echo) = match news {
            News::Listed => return self.all.send_modify(|count| *count += 1),
            News::Echo(policy) => (policy, true),
            News::Changed(policy) => (policy, false),
        };
        let namespace = policy.namespace().unwrap_or_default();
        let owner = owner_of(policy).filter(|(kind, _)| *kind == SecurityPolicy::KIND).map(|(_, name)| name);
        let is_lost = owner.is_some_and(|owner| !self.roots.contains(&namespace, owner));
        if is_echo && !is_lost {
            return self.beside(policy);
        }
        if let Some(owner) = owner.filter(|_| !is_lost) {
            let _ = self.one.send(ObjectRef::new(owner).within(&namespace));
            // What somebody else changed of it may isolate others than before.
            self.beside(policy);
            return;
        }
        // Somebody else's may isolate pods whose side a policy opens, whatever its labels say; and one of ours may have
        // lost its labels.
        self.roots.wake(&self.one, |root| root.meta().namespace.as_ref() == Some(&namespace));
        if namespace == DNS_NAMESPACE {
            self.isolating.send_if_modified(|all| all.insert((namespace, None)));
        }
    }

    /// Those beside the owner of a policy of ours, such as a successor of its name: it may isolate pods whose side they
    /// open. A half isolates nobody anew.
    fn beside(&self, policy: &NetworkPolicy) {
        if is_half(policy.labels()) {
            return;
        }
        let namespace = policy.namespace().unwrap_or_default();
        let owner = owner_of(policy).filter(|(kind, _)| *kind == SecurityPolicy::KIND);
        let owner = owner.and_then(|_| policy.labels().get(OWNER_UID)).cloned();
        self.roots.wake(&self.one, |root| {
            root.meta().namespace.as_ref() == Some(&namespace)
                && (owner.is_none() || root.meta().uid != owner)
                && depends_on_isolation(root, &namespace, true)
        });
        self.isolating.send_if_modified(|all| all.insert((namespace, owner)));
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};

    use super::*;

    fn root(more: &Value) -> DeserializeGuard<SecurityPolicy> {
        let mut network = json!({"mode": "Enforce", "podSelector": {}, "isolate": ["Ingress"]});
        network.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let policy = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"network": network}});
        DeserializeGuard(Ok(serde_json::from_value(policy).unwrap()))
    }

    #[tokio::test]
    async fn ranges_wake_those_with_peers_outside_and_other_facts_all() {
        let (mut kept, roots) = crate::controllers::root::<SecurityPolicy>();
        let with = |name: &str, peer: Value| {
            let rule = json!({"name": "in", "peers": [peer], "anyPort": true});
            let mut root = root(&json!({"ingress": [rule]}));
            let policy = root.0.as_mut().unwrap();
            policy.metadata.name = Some(name.to_owned());
            let condition = json!({"type": "Programmed", "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            policy.status = Some(serde_json::from_value(json!({"conditions": [condition]})).unwrap());
            root
        };
        let [inside, outside] = [json!({"entity": "SameNamespace"}), json!({"external": {"cidrs": ["0.0.0.0/0"]}})];
        for event in [
            Event::Init,
            Event::InitApply(with("inside", inside)),
            Event::InitApply(with("outside", outside)),
            Event::InitDone,
        ] {
            kept.writer.apply_watcher_event(&event);
        }
        let (facts, follow) = watch::channel(Facts::default());
        let (one, mut woken) = mpsc::unbounded_channel();
        let stopped = CancellationToken::new();
        let waking = tokio::spawn(wake_for_facts(follow, (roots, one), stopped.clone()));
        // What it follows from is what it finds first.
        tokio::task::yield_now().await;
        facts.send_modify(|facts| facts.cluster_ranges.push("10.0.0.0/8".parse().unwrap()));
        assert_eq!(woken.recv().await.unwrap().name, "outside");
        facts.send_modify(|facts| {
            facts.dns_ports.insert(53);
        });
        let all = [woken.recv().await.unwrap().name, woken.recv().await.unwrap().name];
        assert_eq!(BTreeSet::from(all), ["inside", "outside"].map(str::to_owned).into());
        stopped.cancel();
        waking.await.unwrap().unwrap();
    }

    #[test]
    fn a_successor_of_the_name_is_beside_what_its_predecessor_isolated() {
        let (mut kept, roots) = crate::controllers::root::<SecurityPolicy>();
        let rule = json!({"name": "in", "peers": [{"pods": {"selector": {}}}], "anyPort": true});
        let mut web = root(&json!({"reciprocal": "Generate", "ingress": [rule]}));
        web.0.as_mut().unwrap().metadata.uid = Some("01234567".into());
        for event in [Event::Init, Event::InitApply(web), Event::InitDone] {
            kept.writer.apply_watcher_event(&event);
        }
        let (one, mut woken) = mpsc::unbounded_channel();
        let wake = Wake { one, all: watch::channel(0).0, roots, isolating: watch::Sender::default() };
        let wakes = |uid: &str| {
            let labels = json!({"app.kubernetes.io/managed-by": "rampart", "rampart.dev/owner-kind": "SecurityPolicy",
                "rampart.dev/owner-name": "web", "rampart.dev/owner-uid": uid});
            let metadata = json!({"name": format!("rampart-web-{uid}"), "namespace": "shop", "labels": labels});
            wake.about(News::Echo(&serde_json::from_value(json!({"metadata": metadata})).unwrap()));
            woken.try_recv().is_ok()
        };
        assert_eq!(["89abcdef", "01234567"].map(wakes), [true, false]);
    }

    #[test]
    fn a_status_is_told_anew_of_what_it_tells_of() {
        let root = |mode: &str, programmed: &str| {
            let mut root = root(&json!({"mode": mode}));
            let condition = json!({"type": "Programmed", "status": programmed, "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let status = json!({"conditions": [condition]});
            root.0.as_mut().unwrap().status = Some(serde_json::from_value(status).unwrap());
            root
        };
        let concerned = |changed: &Changed| {
            [("Disabled", "True"), ("Preview", "False"), ("Enforce", "False"), ("Enforce", "True")]
                .map(|(mode, programmed)| changed.concerns(&root(mode, programmed)))
        };
        let pods_of = |namespace: &str| Changed { namespaces: [namespace.to_owned()].into(), ..Changed::default() };
        assert_eq!(concerned(&pods_of("shop")), [false, true, true, true]);
        assert_eq!(concerned(&pods_of("other")), [false, false, true, false]);
        assert_eq!(concerned(&Changed { everywhere: true, ..pods_of("other") }), [false, true, true, false]);
        let of_servers = Changed { isolated: [(DNS_NAMESPACE.to_owned(), None)].into(), ..Changed::default() };
        assert_eq!(concerned(&of_servers), [false, true, true, true]);
    }
}
