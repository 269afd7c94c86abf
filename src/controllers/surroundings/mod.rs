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
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::follow::{Key, follow},
    network::{self, Surroundings, aggregated_by, backends, mutated_by, validated_by},
    runtime::readiness::Gate,
};

/// The Services that a webhook configuration names, and on what port.
type Called = BTreeSet<(Key, u16)>;

/// Follows the cluster until the process stops; `synced` opens when everything has been listed.
pub(super) async fn watch(
    client: Client,
    known: watch::Sender<Arc<Surroundings>>,
    synced: Gate,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let known = &known;
    let listed: [watch::Sender<bool>; 8] = std::array::from_fn(|_| watch::Sender::new(false));
    let all_listed = async {
        for listed in &listed {
            let _ = listed.subscribe().wait_for(|listed| *listed).await;
        }
        synced.open();
    };
    let tell_called = |kind: &str, all: &BTreeMap<Key, Called>| tell_called(known, kind, all);
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
        |all, _| known.send_modify(|known| Arc::make_mut(known).services = all.clone()),
        services_listed,
    );
    let ingresses = follow(
        Api::<Ingress>::all(client.clone()),
        |ingress, _| Some(backends(ingress)).filter(|backends| !backends.is_empty()),
        |all, _| known.send_modify(|known| Arc::make_mut(known).ingresses = all.clone()),
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
    let customs = customs::follow_all(client, known, (crds_listed, [monitors_listed, pod_monitors_listed]));
    tokio::select! {
        () = stopped.cancelled() => {}
        _ = async {
            tokio::join!(services, ingresses, validating, mutating, aggregated, customs, all_listed)
        } => {}
    }
    Ok(())
}

/// Takes in what the API server calls for a kind of configuration.
fn tell_called(known: &watch::Sender<Arc<Surroundings>>, kind: &str, all: &BTreeMap<Key, Called>) {
    known.send_modify(|known| {
        let webhooks = &mut Arc::make_mut(known).webhooks;
        webhooks.retain(|(other, _), _| other != kind);
        webhooks.extend(all.iter().map(|((_, name), called)| ((kind.to_owned(), name.clone()), called.clone())));
    });
}
