//! Follows what depends on who may reach pods: Services, Ingresses, and what the API server calls (webhooks, converters,
//! aggregated APIs).

mod customs;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::Service,
        networking::v1::Ingress,
    },
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::follow::{Key, follow},
    network::{self, Surroundings, aggregated_by, backends, mutated_by, validated_by},
    runtime::readiness::Gate,
};

/// The Services that a webhook configuration names, and on what port.
type Called = BTreeSet<(Key, u16)>;

/// Namespaces where something has changed that nobody has asked for yet. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Changed(Arc<Mutex<BTreeSet<String>>>);

impl Changed {
    /// What has changed since this was last asked.
    pub(super) fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// What is known, and where it has changed.
pub(super) struct Around {
    pub(super) known: watch::Sender<Arc<Surroundings>>,
    pub(super) changed: Changed,
}

impl Around {
    /// Takes in one entry that changed, or all after a list.
    fn take_in<V: Clone + PartialEq>(
        &self,
        of: fn(&mut Surroundings) -> &mut BTreeMap<Key, V>,
        all: &BTreeMap<Key, V>,
        changed: Option<&Key>,
    ) {
        self.known.send_modify(|known| {
            let namespaces = put(of(Arc::make_mut(known)), all, changed);
            self.changed.0.lock().extend(namespaces);
        });
    }
}

/// Puts one entry, or all; returns the namespaces where something is otherwise.
fn put<V: Clone + PartialEq>(
    known: &mut BTreeMap<Key, V>,
    all: &BTreeMap<Key, V>,
    changed: Option<&Key>,
) -> BTreeSet<String> {
    let Some(key) = changed else {
        let differing = known.keys().chain(all.keys()).filter(|key| known.get(*key) != all.get(*key));
        let namespaces = differing.map(|(namespace, _)| namespace.clone()).collect();
        all.clone_into(known);
        return namespaces;
    };
    match all.get(key) {
        Some(value) => drop(known.insert(key.clone(), value.clone())),
        None => drop(known.remove(key)),
    }
    [key.0.clone()].into()
}

/// Follows the cluster until the process stops; `synced` opens when everything has been listed.
pub(super) async fn watch(
    client: Client,
    around: Around,
    synced: Gate,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let listed: [watch::Sender<bool>; 8] = std::array::from_fn(|_| watch::Sender::new(false));
    let all_listed = async {
        for listed in &listed {
            let _ = listed.subscribe().wait_for(|listed| *listed).await;
        }
        synced.open();
    };
    let tell_called = |kind: &str, all: &BTreeMap<Key, Called>| tell_called(&around, kind, all);
    let [
        services_listed,
        ingresses_listed,
        validating_listed,
        mutating_listed,
        aggregated_listed,
        crds_listed,
        monitors_listed,
        pod_monitors_listed,
    ] = &listed;
    let services = follow(
        Api::<Service>::all(client.clone()),
        |service, _| network::Service::of(service),
        |all, changed| around.take_in(|known| &mut known.services, all, changed),
        services_listed,
    );
    let ingresses = follow(
        Api::<Ingress>::all(client.clone()),
        |ingress, _| Some(backends(ingress)).filter(|backends| !backends.is_empty()),
        |all, changed| around.take_in(|known| &mut known.ingresses, all, changed),
        ingresses_listed,
    );
    let validating = follow(
        Api::<ValidatingWebhookConfiguration>::all(client.clone()),
        |it, _| Some(validated_by(it)).filter(|called| !called.is_empty()),
        |all, _| tell_called("ValidatingWebhookConfiguration", all),
        validating_listed,
    );
    let mutating = follow(
        Api::<MutatingWebhookConfiguration>::all(client.clone()),
        |it, _| Some(mutated_by(it)).filter(|called| !called.is_empty()),
        |all, _| tell_called("MutatingWebhookConfiguration", all),
        mutating_listed,
    );
    let aggregated = follow(
        Api::<APIService>::all(client.clone()),
        |it, _| Some(aggregated_by(it)).filter(|called| !called.is_empty()),
        |all, _| tell_called("APIService", all),
        aggregated_listed,
    );
    let customs = customs::follow_all(client, &around, (crds_listed, [monitors_listed, pod_monitors_listed]));
    tokio::select! {
        () = stopped.cancelled() => {}
        _ = async {
            tokio::join!(services, ingresses, validating, mutating, aggregated, customs, all_listed)
        } => {}
    }
    Ok(())
}

/// Takes in what the API server calls for a kind of configuration.
fn tell_called(around: &Around, kind: &str, all: &BTreeMap<Key, Called>) {
    around.known.send_modify(|known| {
        let webhooks = &mut Arc::make_mut(known).webhooks;
        let before = webhooks.clone();
        webhooks.retain(|(other, _), _| other != kind);
        webhooks.extend(all.iter().map(|((_, name), called)| ((kind.to_owned(), name.clone()), called.clone())));
        let went = before.iter().filter(|(name, called)| webhooks.get(*name) != Some(*called));
        let came = webhooks.iter().filter(|(name, called)| before.get(*name) != Some(*called));
        let called = went.chain(came).flat_map(|(_, called)| called);
        around.changed.0.lock().extend(called.map(|((namespace, _), _)| namespace.clone()));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_put_alone_and_told_with_its_namespace() {
        let key = |namespace: &str| (namespace.to_owned(), "it".to_owned());
        let all = |values: &[(&str, u8)]| values.iter().map(|(namespace, value)| (key(namespace), *value)).collect();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let mut known: BTreeMap<Key, u8> = BTreeMap::new();
        assert_eq!(put(&mut known, &all(&[("a", 1), ("b", 1)]), None), names(&["a", "b"]));
        assert_eq!(put(&mut known, &all(&[("a", 2), ("b", 1)]), Some(&key("a"))), names(&["a"]));
        assert_eq!(known, all(&[("a", 2), ("b", 1)]));
        assert_eq!(put(&mut known, &all(&[("a", 2)]), Some(&key("b"))), names(&["b"]));
        assert_eq!(put(&mut known, &all(&[("a", 2), ("c", 1)]), None), names(&["c"]), "a list tells of what differs");
        assert_eq!(known, all(&[("a", 2), ("c", 1)]));
    }
}
