//! Whom a change in the cluster wakes.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{ResourceExt as _, core::DeserializeGuard, runtime::reflector::ObjectRef};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{Residents, Roots, floor::InForce},
    KIND,
};
use crate::{
    api::{
        NetworkMode, SecurityPolicy,
        condition::{self, Type},
        labels::OWNER_NAME,
    },
    cluster::owner::is_managed,
    network::Surroundings,
};

/// Where to send whom to wake.
type Wakes = (Roots<SecurityPolicy>, mpsc::UnboundedSender<ObjectRef<DeserializeGuard<SecurityPolicy>>>);

/// An object's status is written at most this often for counts alone.
const HOLD: Duration = Duration::from_secs(10);
/// Changes that come together are told together.
const SETTLE: Duration = Duration::from_millis(200);

/// Wakes the policies whose status tells of pods that came, went or changed: those of their namespaces, and those that
/// tell what they would change, which any pod may be a part of.
pub(super) async fn wake_for_pods(
    residents: Residents,
    mut around: watch::Receiver<Arc<Surroundings>>,
    (roots, one): Wakes,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let mut pods = residents.changes();
    loop {
        let changed = tokio::select! {
            changed = pods.changed() => changed,
            changed = around.changed() => changed,
            () = stopped.cancelled() => return Ok(()),
        };
        if changed.is_err() {
            stopped.cancelled().await;
            return Ok(());
        }
        tokio::select! {
            () = sleep(SETTLE) => {}
            () = stopped.cancelled() => return Ok(()),
        }
        pods.mark_unchanged();
        around.mark_unchanged();
        let namespaces = residents.take_changed();
        let concerned = |root: &DeserializeGuard<SecurityPolicy>| {
            let Ok(policy) = &root.0 else { return false };
            let mode = policy.spec.network.as_ref().map(|network| network.mode);
            let programmed = policy.status.iter().any(|it| condition::is_true(&it.conditions, Type::Programmed));
            match mode {
                None | Some(NetworkMode::Disabled) => false,
                Some(NetworkMode::Enforce) if programmed => {
                    namespaces.contains(policy.namespace().as_deref().unwrap_or_default())
                }
                Some(NetworkMode::Preview | NetworkMode::Enforce) => true,
            }
        };
        for root in roots.store.state_filter(concerned) {
            let _ = one.send(ObjectRef::from_obj(root.as_ref()));
        }
        tokio::select! {
            () = sleep(HOLD) => {}
            () = stopped.cancelled() => return Ok(()),
        }
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
}

impl Wake {
    pub(super) fn about(&self, news: Option<&NetworkPolicy>) {
        let Some(policy) = news else {
            self.all.send_modify(|count| *count += 1);
            return;
        };
        let namespace = policy.namespace().unwrap_or_default();
        let labels = policy.labels();
        match labels.get(OWNER_NAME) {
            Some(owner) if is_managed(labels, KIND) => {
                let _ = self.one.send(ObjectRef::new(owner).within(&namespace));
            }
            _ => {
                // Somebody else's may isolate pods whose side a policy opens; and one of ours may have
                // lost its labels.
                for root in self.roots.store.state_filter(|root| root.namespace().as_ref() == Some(&namespace)) {
                    let _ = self.one.send(ObjectRef::from_obj(root.as_ref()));
                }
            }
        }
    }
}
