//! What can be read of a cluster's network: ranges of pods, services and nodes, the DNS Service, and where the API
//! server is.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use futures::{StreamExt as _, stream::select_all};
use ipnet::IpNet;
use k8s_openapi::{
    api::{
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
        networking::v1::ServiceCIDR,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::ListParams,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::news::due;
use crate::{
    cluster::{Error, Result, pages},
    network::{DNS_NAMESPACE, DNS_PORT, Facts},
    runtime::readiness::Gate,
};

/// The Service that cluster DNS has by convention.
const DNS_SERVICE: &str = "kube-dns";
/// The Service that the API server makes of itself.
const API_NAMESPACE: &str = "default";
const API_SERVICE: &str = "kubernetes";

/// Changes that come together are told together. Not longer: until an address of the cluster is told, it is as if it lay
/// outside, and open to whom that is.
const SETTLE: Duration = Duration::from_secs(1);
/// The address of a node that is gone is the cluster's for so long. All policies with peers outside are written anew for
/// each that goes, and it may be back, or another in its place.
const LEAVING: Duration = Duration::from_mins(10);
/// Or for so long, where they are written anyway, for one that came.
const LEFT: Duration = Duration::from_secs(30);

/// What one object says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    ranges: Vec<IpNet>,
    dns: Vec<IpAddr>,
    dns_ports: Vec<u16>,
    api_endpoints: Vec<(IpAddr, u16)>,
    api_service: Vec<(IpAddr, u16)>,
    /// What is known of the addresses of a node's pods.
    pods: PodRange,
}

/// Whether the range of a node's pods is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum PodRange {
    /// It has no pods of its own, or is about to get a range: a node that joins is there before that.
    #[default]
    NoneYet,
    /// Yes.
    Known,
    /// No: pod addresses are not known as a whole.
    Unknown,
}

/// Gathers what the objects say.
#[derive(Debug, Default)]
struct Gathered {
    by_object: BTreeMap<(&'static str, String), Said>,
    /// Addresses of nodes that are gone, and since when.
    leaving: BTreeMap<IpNet, Instant>,
}

impl Gathered {
    fn facts(&self, given: &Facts) -> Facts {
        let all = || self.by_object.iter();
        let has_services = all().any(|((found, _), _)| *found == SERVICE_CIDR);
        let has_pods = |range| all().any(|(_, said)| said.pods == range);
        let read: Vec<IpNet> = all().flat_map(|(_, said)| said.ranges.iter().copied()).collect();
        // Without a given range, every node and the services must be readable.
        let known = !given.cluster_ranges.is_empty()
            || (has_services && has_pods(PodRange::Known) && !has_pods(PodRange::Unknown));
        let ranges = given.cluster_ranges.iter().chain(self.leaving.keys()).copied().chain(read).collect();
        let mut dns: Vec<IpAddr> = given.dns_addresses.clone();
        dns.extend(all().flat_map(|(_, said)| said.dns.iter().copied()));
        dns.sort();
        dns.dedup();
        Facts {
            cluster_ranges: if known { IpNet::aggregate(&ranges) } else { vec![] },
            dns_addresses: dns,
            dns_ports: all().flat_map(|(_, said)| said.dns_ports.iter()).chain(&given.dns_ports).copied().collect(),
            api_endpoints: all()
                .flat_map(|(_, said)| said.api_endpoints.iter())
                .chain(&given.api_endpoints)
                .copied()
                .collect(),
            ingress_controller: given.ingress_controller.clone(),
            monitoring: given.monitoring.clone(),
            api_service: all().flat_map(|(_, said)| said.api_service.iter().copied()).collect(),
        }
    }
}

impl Gathered {
    /// Puts what an object says. Where a node brings an address, those that left a while ago go with the same change.
    fn put(&mut self, kind: &'static str, name: String, said: Said, now: Instant) {
        let is_known = |range: &IpNet| {
            self.leaving.contains_key(range) || self.by_object.values().any(|known| known.ranges.contains(range))
        };
        if kind == NODE && !said.ranges.iter().all(is_known) {
            self.leaving.retain(|_, since| now < *since + LEFT);
        }
        self.by_object.insert((kind, name), said);
    }

    /// Forgets addresses of nodes that are gone for long; returns when the next is.
    fn let_go(&mut self, now: Instant) -> Option<Instant> {
        self.leaving.retain(|_, since| now < *since + LEAVING);
        self.leaving.values().min().map(|since| *since + LEAVING)
    }

    /// Forgets an object. The ranges of a node that is gone stay until all are listed anew: its pods may outlive it for
    /// a while, and they are the cluster's, whichever node is next to have them. Its own addresses stay for a while.
    fn forget(&mut self, kind: &'static str, name: String, now: Instant) {
        let gone = self.by_object.remove(&(kind, name.clone()));
        let ranges = gone.filter(|_| kind == NODE).map(|said| said.ranges).unwrap_or_default();
        let is_own = |range: &IpNet| range.prefix_len() == range.max_prefix_len();
        let (own, ranges): (Vec<IpNet>, Vec<IpNet>) = ranges.into_iter().partition(is_own);
        self.leaving.extend(own.into_iter().map(|address| (address, now)));
        if !ranges.is_empty() {
            self.by_object.insert((kind, name), Said { ranges, ..Said::default() });
        }
    }

    async fn list<K>(
        &mut self,
        api: &Api<K>,
        params: ListParams,
        kind: &'static str,
        said: fn(&K) -> Said,
    ) -> Result<()>
    where
        K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let mut listed = BTreeMap::new();
        pages::each(api, params, kind, |it: K| drop(listed.insert((kind, it.name_any()), said(&it)))).await?;
        // Half a list is no fact.
        self.by_object.extend(listed);
        Ok(())
    }
}

const NODE: &str = "Node";
const SERVICE_CIDR: &str = "ServiceCIDR";
const SERVICE: &str = "Service";
const API: &str = "Service of the API server";
const API_SLICE: &str = "EndpointSlice";

fn of_node(node: &Node) -> Said {
    let spec = node.spec.clone().unwrap_or_default();
    let ranges: Vec<IpNet> =
        spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr).filter_map(|range| range.parse().ok()).collect();
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let own = addresses
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse::<IpAddr>().ok());
    // Only one that says of itself that it is not ready: one that fell silent keeps its pods.
    let ready = node.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|it| it.type_ == "Ready");
    let pods = if !ranges.is_empty() {
        PodRange::Known
    } else if ready.is_none_or(|ready| ready.status == "False") {
        PodRange::NoneYet
    } else {
        PodRange::Unknown
    };
    Said { pods, ranges: ranges.iter().copied().chain(own.map(IpNet::from)).collect(), ..Said::default() }
}

fn of_service_cidr(range: &ServiceCIDR) -> Said {
    let cidrs = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    Said { ranges: cidrs.filter_map(|cidr| cidr.parse().ok()).collect(), ..Said::default() }
}

fn of_service(service: &Service) -> Said {
    let spec = service.spec.clone().unwrap_or_default();
    let addresses = spec.cluster_ips.iter().flatten().filter_map(|address| address.parse().ok());
    // It may have a port for metrics, too. What a target is called, only pods know.
    let ports = spec.ports.iter().flatten().filter(|port| port.port == i32::from(DNS_PORT));
    let targets = ports.filter_map(|port| match port.target_port {
        Some(IntOrString::String(_)) => None,
        Some(IntOrString::Int(target)) if target != 0 => u16::try_from(target).ok(),
        _ => Some(DNS_PORT),
    });
    Said { dns: addresses.collect(), dns_ports: targets.collect(), ..Said::default() }
}

fn of_api_service(service: &Service) -> Said {
    let spec = service.spec.clone().unwrap_or_default();
    let ports: Vec<u16> = spec.ports.iter().flatten().filter_map(|port| u16::try_from(port.port).ok()).collect();
    let addresses = spec.cluster_ips.iter().flatten().filter_map(|address| address.parse::<IpAddr>().ok());
    let each = addresses.flat_map(|address| ports.iter().map(move |port| (address, *port)));
    Said { api_service: each.collect(), ..Said::default() }
}

fn of_api_slice(slice: &EndpointSlice) -> Said {
    let ports = || slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok());
    // Ready or not: one that comes back must not be cut off.
    let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    let addresses = addresses.filter_map(|address| address.parse::<IpAddr>().ok());
    Said { api_endpoints: addresses.flat_map(|it| ports().map(move |port| (it, port))).collect(), ..Said::default() }
}

enum News {
    Put(&'static str, String, Said),
    Gone(&'static str, String),
    Listing(&'static str),
    Listed(&'static str),
}

fn news<K>(
    api: Api<K>,
    config: watcher::Config,
    kind: &'static str,
    said: fn(&K) -> Said,
) -> impl futures::Stream<Item = News>
where
    K: Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    watcher(api, config).default_backoff().filter_map(move |event| async move {
        Some(match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                News::Put(kind, object.name_any(), said(&object))
            }
            Ok(watcher::Event::Delete(object)) => News::Gone(kind, object.name_any()),
            Ok(watcher::Event::Init) => News::Listing(kind),
            Ok(watcher::Event::InitDone) => News::Listed(kind),
            Err(error) => {
                tracing::warn!(%error, kind, "a watch failed and is being restarted");
                return None;
            }
        })
    })
}

/// Reads once what [`follow`] follows, and tells what can't be read.
pub(crate) async fn read(client: &Client, given: &Facts) -> (Facts, Vec<(&'static str, Error)>) {
    let mut gathered = Gathered::default();
    let all = ListParams::default;
    let (dns, own) =
        (all().fields(&format!("metadata.name={DNS_SERVICE}")), all().fields(&format!("metadata.name={API_SERVICE}")));
    let slices = all().labels(&format!("kubernetes.io/service-name={API_SERVICE}"));
    let dns_api = Api::<Service>::namespaced(client.clone(), DNS_NAMESPACE);
    let own_api = Api::<Service>::namespaced(client.clone(), API_NAMESPACE);
    let slices_api = Api::<EndpointSlice>::namespaced(client.clone(), API_NAMESPACE);
    let read = [
        (NODE, gathered.list(&Api::<Node>::all(client.clone()), all(), NODE, of_node).await),
        (SERVICE_CIDR, gathered.list(&Api::all(client.clone()), all(), SERVICE_CIDR, of_service_cidr).await),
        (SERVICE, gathered.list(&dns_api, dns, SERVICE, of_service).await),
        (API, gathered.list(&own_api, own, API, of_api_service).await),
        (API_SLICE, gathered.list(&slices_api, slices, API_SLICE, of_api_slice).await),
    ];
    let unread = read.into_iter().filter_map(|(kind, read)| Some((kind, read.err()?)));
    (gathered.facts(given), unread.collect())
}

/// Follows the cluster until the process stops. `given` is what the administrator said; it is
/// completed by what can be read.
pub(super) async fn follow(
    client: Client,
    given: Facts,
    facts: watch::Sender<Facts>,
    synced: Gate,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let all = watcher::Config::default;
    let dns = all().fields(&format!("metadata.name={DNS_SERVICE}"));
    let nodes = news(Api::<Node>::all(client.clone()), all(), NODE, of_node).boxed();
    let ranges = news(Api::<ServiceCIDR>::all(client.clone()), all(), SERVICE_CIDR, of_service_cidr).boxed();
    let services = news(Api::<Service>::namespaced(client.clone(), DNS_NAMESPACE), dns, SERVICE, of_service).boxed();
    let own = all().fields(&format!("metadata.name={API_SERVICE}"));
    let api = news(Api::<Service>::namespaced(client.clone(), API_NAMESPACE), own, API, of_api_service).boxed();
    let slices = all().labels(&format!("kubernetes.io/service-name={API_SERVICE}"));
    let slices_api = Api::<EndpointSlice>::namespaced(client, API_NAMESPACE);
    let api_slices = news(slices_api, slices, API_SLICE, of_api_slice).boxed();
    let stream = select_all([nodes, ranges, services, api, api_slices]).take_until(stopped.cancelled());
    let mut stream = std::pin::pin!(stream);

    let mut gathered = Gathered::default();
    let mut listing: Vec<&str> = vec![NODE, SERVICE_CIDR, SERVICE, API, API_SLICE];
    let (mut is_told, mut tell_at): (bool, Option<Instant>) = (false, None);
    loop {
        let news = tokio::select! {
            news = stream.next() => match news {
                Some(news) => Some(news),
                None => return Ok(()),
            },
            () = due(tell_at) => None,
        };
        let now = Instant::now();
        let is_due = news.is_none();
        match news {
            Some(News::Put(kind, name, said)) => gathered.put(kind, name, said, now),
            Some(News::Gone(kind, name)) => gathered.forget(kind, name, now),
            Some(News::Listing(kind)) => {
                // Half a list is no fact: nothing is said until it is whole again.
                gathered.by_object.retain(|(found, _), _| *found != kind);
                listing.retain(|other| *other != kind);
                listing.push(kind);
            }
            Some(News::Listed(kind)) => listing.retain(|other| *other != kind),
            None => {}
        }
        if !listing.is_empty() {
            tell_at = None;
        } else if is_due || !is_told {
            tell_at = gathered.let_go(now);
            let read = gathered.facts(&given);
            facts.send_if_modified(|known| {
                let changed = *known != read;
                *known = read;
                changed
            });
            is_told = true;
            synced.open();
        } else {
            let soon = now + SETTLE;
            tell_at = Some(tell_at.map_or(soon, |at| at.min(soon)));
        }
    }
}

#[cfg(test)]
mod tests;
