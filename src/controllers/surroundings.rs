//! Follows what depends on who may reach pods: Services, Ingresses, and what the API server calls (webhooks, converters,
//! aggregated APIs).

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
    cluster::{
        follow::{Key, follow},
        slim::{Crd, PodMonitor, ServiceMonitor},
    },
    network::{
        self, Monitor, Surroundings, aggregated_by, backends, converted_by, enforcer_of_group, mutated_by, validated_by,
    },
    runtime::readiness::Gate,
};

/// Custom resource definitions of prometheus-operator.
const MONITORS: [&str; 2] = ["servicemonitors.monitoring.coreos.com", "podmonitors.monitoring.coreos.com"];

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
    let tell_called = |kind: &str, all: &BTreeMap<Key, Called>| {
        known.send_modify(|known| {
            let webhooks = &mut Arc::make_mut(known).webhooks;
            webhooks.retain(|(other, _), _| other != kind);
            webhooks.extend(all.iter().map(|((_, name), called)| ((kind.to_owned(), name.clone()), called.clone())));
        });
    };
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
    let has_monitors: [watch::Sender<bool>; 2] = std::array::from_fn(|_| watch::Sender::new(false));
    let crds = follow(
        Api::<Crd>::all(client.clone()),
        |crd, _| {
            let plugin = crd.spec.group.as_deref().and_then(enforcer_of_group);
            let called = crd.spec.conversion.as_ref().map(converted_by).unwrap_or_default();
            let is_monitor = MONITORS.contains(&crd.metadata.name.as_deref().unwrap_or_default());
            Some((plugin, called)).filter(|(plugin, called)| is_monitor || plugin.is_some() || !called.is_empty())
        },
        |all, _| {
            let called = all.iter().filter(|(_, (_, called))| !called.is_empty());
            tell_called("CustomResourceDefinition", &called.map(|(key, (_, it))| (key.clone(), it.clone())).collect());
            for (name, has) in MONITORS.iter().zip(&has_monitors) {
                let there = all.contains_key(&(String::new(), (*name).to_owned()));
                has.send_if_modified(|has| std::mem::replace(has, there) != there);
            }
            let plugins = all.values().filter_map(|(plugin, _)| *plugin).collect();
            known.send_if_modified(|known| {
                known.plugins != plugins && {
                    Arc::make_mut(known).plugins = plugins;
                    true
                }
            });
        },
        crds_listed,
    );
    let [has_of_services, has_of_pods] = &has_monitors;
    let of_services = while_there(has_of_services, crds_listed, known, ("ServiceMonitor", monitors_listed), |listed| {
        follow(
            Api::<ServiceMonitor>::all(client.clone()),
            |it, _| Monitor::of_services(it.metadata.namespace.as_deref()?, &it.spec),
            |all, _| tell_monitors(known, "ServiceMonitor", all),
            listed,
        )
    });
    let of_pods = while_there(has_of_pods, crds_listed, known, ("PodMonitor", pod_monitors_listed), |listed| {
        follow(
            Api::<PodMonitor>::all(client.clone()),
            |it, _| Monitor::of_pods(it.metadata.namespace.as_deref()?, &it.spec),
            |all, _| tell_monitors(known, "PodMonitor", all),
            listed,
        )
    });
    tokio::select! {
        () = stopped.cancelled() => {}
        _ = async {
            tokio::join!(
                services, ingresses, validating, mutating, aggregated, crds, of_services, of_pods, all_listed
            )
        } => {}
    }
    Ok(())
}

fn tell_monitors(known: &watch::Sender<Arc<Surroundings>>, kind: &'static str, all: &BTreeMap<Key, Monitor>) {
    known.send_modify(|known| {
        let monitors = &mut Arc::make_mut(known).monitors;
        monitors.retain(|(other, _), _| *other != kind);
        monitors.extend(all.iter().map(|(name, monitor)| ((kind, name.clone()), monitor.clone())));
    });
}

/// Follows a kind of others while its custom resource definition is there.
async fn while_there<'l, F: Future<Output = ()>>(
    has: &watch::Sender<bool>,
    crds_listed: &watch::Sender<bool>,
    known: &watch::Sender<Arc<Surroundings>>,
    (kind, listed): (&'static str, &'l watch::Sender<bool>),
    follow: impl Fn(&'l watch::Sender<bool>) -> F,
) {
    let (mut has, mut crds) = (has.subscribe(), crds_listed.subscribe());
    let _ = crds.wait_for(|listed| *listed).await;
    loop {
        if !*has.borrow_and_update() {
            listed.send_replace(true);
            if has.changed().await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            () = follow(listed) => return,
            changed = has.wait_for(|has| !*has) => if changed.is_err() { return },
        }
        tell_monitors(known, kind, &BTreeMap::new());
    }
}
