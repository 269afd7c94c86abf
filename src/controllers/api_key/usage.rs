//! Wakes ApiKeys whose use verifiers told of, seldom: status is no counter.

use std::{collections::HashMap, time::Duration};

use kube::{ResourceExt as _, core::DeserializeGuard, runtime::reflector::ObjectRef};
use tokio::{sync::mpsc, time::Instant};

use super::super::Roots;
use crate::{
    api::{ApiKey, ApiKeyStatus},
    cluster::verifiers::Verifiers,
    keys::{Use, fold},
};

/// Follows the reports for as long as the future runs. The first use of a key is written at once; what follows, every
/// `interval`.
pub(super) async fn follow(
    mut verifiers: Verifiers,
    roots: &Roots<ApiKey>,
    one: &mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ApiKey>>>,
    interval: Duration,
) {
    let mut due = Instant::now() + interval;
    loop {
        let all = tokio::select! {
            () = verifiers.changed() => false,
            () = tokio::time::sleep_until(due) => true,
        };
        if all {
            due = Instant::now() + interval;
        }
        let mut told: HashMap<String, Vec<Use>> = HashMap::new();
        for one in verifiers.uses(|_| true) {
            told.entry(one.id.clone()).or_default().push(one);
        }
        for key in roots.store.state() {
            let Ok(status) = key.0.as_ref().map(|key| key.status.as_ref()) else { continue };
            let Some(status) = status.filter(|status| is_due(status, all, (&told, &verifiers))) else { continue };
            tracing::debug!(name = key.name_any(), versions = status.versions.len(), "a key was used");
            let _ = one.send(ObjectRef::from_obj(&*key));
        }
    }
}

fn is_due(status: &ApiKeyStatus, all: bool, (told, verifiers): (&HashMap<String, Vec<Use>>, &Verifiers)) -> bool {
    let is_first = status.usage.as_ref().is_none_or(|usage| usage.last_used.is_none());
    if !(all || is_first) {
        return false;
    }
    let uses: Vec<Use> = status.versions.iter().filter_map(|it| told.get(&it.id)).flatten().cloned().collect();
    let lately = verifiers.last_used(status.versions.iter().map(|it| &it.id)).into_values().max();
    fold(status.usage.as_ref(), &uses, lately) != status.usage
}
