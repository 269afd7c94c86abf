//! What wakes the network part of ClusterSecurityPolicies: there are few of them, so each is woken by anything.

use std::time::Duration;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::super::{
    Networks,
    network::{News, Owning as _, owner_of},
    news::{HOLD, due},
};
use crate::api::ClusterSecurityPolicy;

/// Changes that come together are told together.
const SETTLE: Duration = Duration::from_secs(1);

/// Wakes all: soon after namespaces came or changed their labels, what is known of addresses changed, or a NetworkPolicy
/// of theirs did; a while after pods, Services, or NetworkPolicies of others.
pub(super) async fn follow(
    networks: Networks,
    all: watch::Sender<u64>,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
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
        return super::super::wake_all(networks.policies.label_changes(), &all, &stopped).await;
    }
    let (mut labels, mut facts) = (networks.policies.label_changes(), networks.facts.clone());
    let (mut pods, mut around) = (networks.residents.changes(), networks.surroundings.clone());
    let mut woken = Instant::now();
    let mut wake_at: Option<Instant> = None;
    loop {
        let (changed, soon) = tokio::select! {
            changed = own.changed() => (changed.is_ok(), true),
            changed = labels.changed() => (changed.is_ok(), true),
            changed = facts.changed() => (changed.is_ok(), true),
            changed = other.changed() => (changed.is_ok(), false),
            changed = pods.changed() => (changed.is_ok(), false),
            changed = around.changed() => (changed.is_ok(), false),
            () = due(wake_at) => {
                (wake_at, woken) = (None, Instant::now());
                networks.residents.refresh();
                all.send_modify(|count| *count = count.wrapping_add(1));
                continue;
            }
            () = stopped.cancelled() => return Ok(()),
        };
        if !changed {
            stopped.cancelled().await;
            return Ok(());
        }
        let later = if soon { Instant::now() + SETTLE } else { (woken + HOLD).max(Instant::now() + SETTLE) };
        wake_at = Some(wake_at.map_or(later, |at| at.min(later)));
    }
}
