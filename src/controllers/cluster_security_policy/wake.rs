//! What wakes the network part of ClusterSecurityPolicies: there are few of them, so each is woken by almost anything.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Resource as _, core::DeserializeGuard, runtime::reflector::ObjectRef};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::super::{
    Networks, Roots,
    network::{News, Owning as _},
    news::{HOLD, due},
};
use crate::{
    api::{
        ClusterSecurityPolicy, NetworkMode,
        condition::{self, Type},
    },
    cluster::owner::owner_of,
    hardening::Policies,
    network::DNS_NAMESPACE,
};

/// Changes that come together are told together.
const SETTLE: Duration = Duration::from_secs(1);

/// Where to send whom to wake.
#[derive(Clone)]
pub(super) struct Wakes {
    pub(super) one: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ClusterSecurityPolicy>>>,
    pub(super) all: watch::Sender<u64>,
    pub(super) roots: Roots<ClusterSecurityPolicy>,
}

impl Wakes {
    /// Wakes the policy of a name.
    pub(super) fn wake(&self, name: &str) {
        let _ = self.one.send(ObjectRef::new(name));
    }
}

/// Wakes all: soon after namespaces came or changed their labels, what is known of addresses changed, or a NetworkPolicy
/// of theirs did; a while after Services, or NetworkPolicies of others. After pods, as long, those that tell of them.
pub(super) async fn follow(networks: Networks, wakes: Wakes, stopped: CancellationToken) -> anyhow::Result<()> {
    let (own_tx, mut own) = watch::channel(0_u64);
    let (other_tx, mut other) = watch::channel(0_u64);
    networks.listen(move |news| {
        let is_own = |policy: &NetworkPolicy| owner_of(policy).is_some_and(|it| it.0 == ClusterSecurityPolicy::KIND);
        let told = match news {
            News::Listed => &own_tx,
            News::Changed(policy) if is_own(policy) => &own_tx,
            News::Echo(policy) if is_own(policy) => return,
            // What SecurityPolicies become is news here, whoever wrote it.
            News::Changed(_) | News::Echo(_) => &other_tx,
        };
        told.send_modify(|count| *count = count.wrapping_add(1));
    });
    if !networks.is_on {
        // Nobody tells of anything else.
        return super::super::wake_all(networks.policies.label_changes(), &wakes.all, &stopped).await;
    }
    let (mut labels, mut facts) = (networks.policies.label_changes(), networks.facts.clone());
    let (mut pods, mut around) = (networks.residents.changes(), networks.surroundings.clone());
    let changed_pods = networks.residents.follow();
    // Whether something else than pods has changed.
    let mut everything = false;
    let mut woken = Instant::now();
    let mut wake_at: Option<Instant> = None;
    loop {
        let (changed, soon, is_of_pods) = tokio::select! {
            changed = own.changed() => (changed.is_ok(), true, false),
            changed = labels.changed() => (changed.is_ok(), true, false),
            changed = facts.changed() => (changed.is_ok(), true, false),
            changed = other.changed() => (changed.is_ok(), false, false),
            changed = around.changed() => (changed.is_ok(), false, false),
            changed = pods.changed() => (changed.is_ok(), false, true),
            () = due(wake_at) => {
                (wake_at, woken) = (None, Instant::now());
                let namespaces = changed_pods.take();
                if std::mem::take(&mut everything) {
                    networks.residents.refresh();
                    wakes.all.send_modify(|count| *count = count.wrapping_add(1));
                    continue;
                }
                let known = networks.policies.known();
                let concerned = wakes.roots.store.state_filter(|root| counts(root, &known, &namespaces));
                if !concerned.is_empty() {
                    networks.residents.refresh();
                }
                for root in concerned {
                    let _ = wakes.one.send(ObjectRef::from_obj(root.as_ref()));
                }
                continue;
            }
            () = stopped.cancelled() => return Ok(()),
        };
        if !changed {
            stopped.cancelled().await;
            return Ok(());
        }
        everything |= !is_of_pods;
        let later = if soon { Instant::now() + SETTLE } else { (woken + HOLD).max(Instant::now() + SETTLE) };
        wake_at = Some(wake_at.map_or(later, |at| at.min(later)));
    }
}

/// Whether what is told of a policy depends on the pods of some namespaces: of those that it selects, and of any where it
/// is not in force, or is rendered by them.
fn counts(root: &DeserializeGuard<ClusterSecurityPolicy>, known: &Policies, namespaces: &BTreeSet<String>) -> bool {
    let Ok(policy) = &root.0 else { return false };
    let Some(wide) = known.wide.get(root.meta().name.as_deref().unwrap_or_default()) else { return true };
    let Some(intent) = &wide.network else { return false };
    let programmed = policy.status.iter().any(|it| condition::is_true(&it.conditions, Type::Programmed));
    if wide.network_mode != NetworkMode::Enforce || !programmed || intent.is_resolved() || intent.names_external() {
        return true;
    }
    let selects = |name: &String| known.labels.get(name).is_some_and(|labels| wide.isolates(name, labels));
    // Those that ask the name servers are everywhere.
    namespaces.contains(DNS_NAMESPACE) || namespaces.iter().any(selects)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::hardening::ClusterWide;

    #[test]
    fn pods_wake_those_that_tell_of_them() {
        let concerned = |mode: &str, programmed: &str, namespace: &str| {
            let condition = json!({"type": "Programmed", "status": programmed, "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            let network = json!({"mode": mode, "podSelector": {}, "isolate": ["Ingress"]});
            let policy = json!({"metadata": {"name": "least"}, "status": {"conditions": [condition]},
                "spec": {"namespaceSelector": {"matchLabels": {"team": "a"}}, "network": network}});
            let policy: ClusterSecurityPolicy = serde_json::from_value(policy).unwrap();
            let wide = [("least".to_owned(), ClusterWide::try_from(&policy).unwrap())].into();
            let labels =
                ["a", "b"].map(|team| (team.to_owned(), Arc::new([("team".to_owned(), team.to_owned())].into())));
            let known = Policies { wide: Arc::new(wide), labels: Arc::new(labels.into()), ..Policies::default() };
            counts(&DeserializeGuard(Ok(policy)), &known, &[namespace.to_owned()].into())
        };
        assert_eq!(["a", "b", "kube-system"].map(|it| concerned("Enforce", "True", it)), [true, false, true]);
        assert!(concerned("Enforce", "False", "b") && concerned("Preview", "False", "b"));
        assert!(!concerned("Disabled", "True", "a"), "nothing is told of its pods");
    }
}
