//! Custom resource definitions, and custom resources of others where those are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::{Api, Client};
use tokio::sync::watch;

use super::{Around, Called, tell_called};
use crate::{
    cluster::{
        follow::{Key, follow},
        slim::{Crd, PodMonitor, ServiceMonitor},
    },
    network::{Monitor, converted_by, enforcer_of_group},
};

/// Custom resource definitions of prometheus-operator.
const MONITORS: [&str; 2] = ["servicemonitors.monitoring.coreos.com", "podmonitors.monitoring.coreos.com"];

/// What a custom resource definition tells: the network plug-in that it is of, and who converts.
type Told = (Option<&'static str>, Called);

/// Follows them for ever.
pub(super) async fn follow_all(
    client: Client,
    around: &Around,
    (crds_listed, [services_listed, pods_listed]): (&watch::Sender<bool>, [&watch::Sender<bool>; 2]),
) {
    let has_monitors: [watch::Sender<bool>; 2] = std::array::from_fn(|_| watch::Sender::new(false));
    let crds = follow(
        Api::<Crd>::all(client.clone()),
        |crd, _| told(crd),
        |all, _| {
            tell(around, all);
            for (name, has) in MONITORS.iter().zip(&has_monitors) {
                let there = all.contains_key(&(String::new(), (*name).to_owned()));
                has.send_if_modified(|has| std::mem::replace(has, there) != there);
            }
        },
        crds_listed,
    );
    let [has_of_services, has_of_pods] = &has_monitors;
    let of_services =
        while_there(has_of_services, crds_listed, around, ("ServiceMonitor", services_listed), |listed| {
            follow(
                Api::<ServiceMonitor>::all(client.clone()),
                |it, _| Monitor::of_services(it.metadata.namespace.as_deref()?, &it.spec),
                |all, changed| tell_monitors(around, "ServiceMonitor", all, changed),
                listed,
            )
        });
    let of_pods = while_there(has_of_pods, crds_listed, around, ("PodMonitor", pods_listed), |listed| {
        follow(
            Api::<PodMonitor>::all(client.clone()),
            |it, _| Monitor::of_pods(it.metadata.namespace.as_deref()?, &it.spec),
            |all, changed| tell_monitors(around, "PodMonitor", all, changed),
            listed,
        )
    });
    tokio::join!(crds, of_services, of_pods);
}

/// `None` for a definition that tells nothing.
fn told(crd: &Crd) -> Option<Told> {
    let plugin = crd.spec.group.as_deref().and_then(enforcer_of_group);
    let called = crd.spec.conversion.as_ref().map(converted_by).unwrap_or_default();
    let is_monitor = MONITORS.contains(&crd.metadata.name.as_deref().unwrap_or_default());
    Some((plugin, called)).filter(|(plugin, called)| is_monitor || plugin.is_some() || !called.is_empty())
}

fn tell(around: &Around, all: &BTreeMap<Key, Told>) {
    let called = all.iter().filter(|(_, (_, called))| !called.is_empty());
    let called = called.map(|(key, (_, called))| (key.clone(), called.clone())).collect();
    tell_called(around, "CustomResourceDefinition", &called);
    let plugins = all.values().filter_map(|(plugin, _)| *plugin).collect();
    around.known.send_if_modified(|known| {
        let differs = known.plugins != plugins;
        if differs {
            Arc::make_mut(known).plugins = plugins;
        }
        differs
    });
}

/// Takes in one that changed, or all of a kind.
fn tell_monitors(around: &Around, kind: &'static str, all: &BTreeMap<Key, Monitor>, changed: Option<&Key>) {
    around.known.send_modify(|known| {
        let monitors = &mut Arc::make_mut(known).monitors;
        let Some(name) = changed else {
            let mut namespaces: BTreeSet<String> = all.keys().map(|(namespace, _)| namespace.clone()).collect();
            // Of those that are gone, too.
            namespaces.extend(monitors.keys().filter(|(of, _)| *of == kind).map(|(_, name)| name.0.clone()));
            monitors.retain(|(other, _), _| *other != kind);
            monitors.extend(all.iter().map(|(name, monitor)| ((kind, name.clone()), monitor.clone())));
            return around.changed.0.lock().extend(namespaces);
        };
        match all.get(name) {
            Some(monitor) => drop(monitors.insert((kind, name.clone()), monitor.clone())),
            None => drop(monitors.remove(&(kind, name.clone()))),
        }
        around.changed.0.lock().insert(name.0.clone());
    });
}

/// Follows a kind of others while its custom resource definition is there.
async fn while_there<'l, F: Future<Output = ()>>(
    has: &watch::Sender<bool>,
    crds_listed: &watch::Sender<bool>,
    around: &Around,
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
        tell_monitors(around, kind, &BTreeMap::new(), None);
    }
}
