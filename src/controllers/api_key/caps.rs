//! Wakes ApiKeys of namespaces where ClusterSecurityPolicies allow them something else than before.

use std::{collections::BTreeMap, sync::Arc};

use kube::{ResourceExt as _, core::DeserializeGuard, runtime::reflector::ObjectRef};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::Roots;
use crate::{api::ApiKey, cluster::policy_index::PolicyIndex, hardening::Policies};

/// Follows the policies until the process stops.
pub(super) async fn follow(
    index: &PolicyIndex,
    roots: &Roots<ApiKey>,
    one: &mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ApiKey>>>,
    stopped: &CancellationToken,
) -> anyhow::Result<()> {
    let (mut wide, mut labels) = (index.wide_changes(), index.label_changes());
    let mut before = index.known();
    loop {
        let changed = tokio::select! {
            changed = wide.changed() => changed.is_ok(),
            changed = labels.changed() => changed.is_ok(),
            () = stopped.cancelled() => return Ok(()),
        };
        if !changed {
            stopped.cancelled().await;
            return Ok(());
        }
        let now = index.known();
        if caps_anything(&before) || caps_anything(&now) {
            let mut differs: BTreeMap<String, bool> = BTreeMap::new();
            for key in roots.store.state() {
                let namespace = key.namespace().unwrap_or_default();
                let differs = differs.entry(namespace);
                if *differs.or_insert_with_key(|namespace| caps_differ(namespace, &before, &now)) {
                    let _ = one.send(ObjectRef::from_obj(&*key));
                }
            }
        }
        before = now;
    }
}

fn caps_anything(known: &Arc<Policies>) -> bool {
    known.wide.values().any(|policy| policy.key_caps.is_some())
}

fn caps_differ(namespace: &str, before: &Policies, now: &Policies) -> bool {
    let of = |known: &Policies| known.key_caps(namespace, known.labels_of(namespace));
    of(before) != of(now)
}
