//! What can be read of a cluster's network: ranges of pods, services and nodes, the DNS Service, and where the API
//! server is.

use std::{collections::BTreeMap, net::IpAddr};

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
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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
        let ranges = given.cluster_ranges.iter().copied().chain(read).collect();
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
    /// Forgets an object. The ranges of a node that is gone stay until all are listed anew: its pods may outlive it for
    /// a while, and they are the cluster's, whichever node is next to have them.
    fn forget(&mut self, kind: &'static str, name: String) {
        let gone = self.by_object.remove(&(kind, name.clone()));
        let mut ranges = gone.filter(|_| kind == NODE).map(|said| said.ranges).unwrap_or_default();
        ranges.retain(|range| range.prefix_len() < range.max_prefix_len());
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
    while let Some(news) = stream.next().await {
        match news {
            News::Put(kind, name, said) => drop(gathered.by_object.insert((kind, name), said)),
            News::Gone(kind, name) => gathered.forget(kind, name),
            News::Listing(kind) => {
                // Half a list is no fact: nothing is said until it is whole again.
                gathered.by_object.retain(|(found, _), _| *found != kind);
                listing.retain(|other| *other != kind);
                listing.push(kind);
            }
            News::Listed(kind) => listing.retain(|other| *other != kind),
        }
        if listing.is_empty() {
            let read = gathered.facts(&given);
            facts.send_if_modified(|known| {
                let changed = *known != read;
                *known = read;
                changed
            });
            synced.open();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ranges(gathered: &Gathered, given: &[&str]) -> Vec<String> {
        let cluster_ranges = given.iter().map(|range| range.parse().unwrap()).collect();
        let facts = gathered.facts(&Facts { cluster_ranges, ..Facts::default() });
        facts.cluster_ranges.iter().map(ToString::to_string).collect()
    }

    fn said(range: &str) -> Said {
        Said { ranges: vec![range.parse().unwrap()], ..Said::default() }
    }

    fn node(range: Option<&str>, ready: Option<&str>) -> Said {
        let conditions: Vec<Value> = ready.iter().map(|it| json!({"type": "Ready", "status": it})).collect();
        let node = json!({"spec": {"podCIDR": range}, "status": {"conditions": conditions}});
        of_node(&serde_json::from_value(node).unwrap())
    }

    #[test]
    fn ranges_are_unknown_until_every_node_and_the_services_are_read() {
        let mut gathered = Gathered::default();
        assert!(ranges(&gathered, &[]).is_empty());
        gathered.by_object.insert((NODE, "a".into()), node(Some("10.244.0.0/24"), Some("True")));
        assert!(ranges(&gathered, &[]).is_empty(), "services are missing");
        gathered.by_object.insert((SERVICE_CIDR, "s".into()), said("10.96.0.0/16"));
        assert_eq!(ranges(&gathered, &[]), ["10.96.0.0/16", "10.244.0.0/24"]);
        for ready in ["True", "Unknown"] {
            gathered.by_object.insert((NODE, "b".into()), node(None, Some(ready)));
            assert!(ranges(&gathered, &[]).is_empty(), "a node without a pod range");
        }
    }

    #[test]
    fn a_node_that_joins_takes_no_ranges_away_and_brings_none() {
        let mut gathered = Gathered::default();
        gathered.by_object.insert((SERVICE_CIDR, "s".into()), said("10.96.0.0/16"));
        for ready in [None, Some("False")] {
            gathered.by_object.insert((NODE, "b".into()), node(None, ready));
            assert!(ranges(&gathered, &[]).is_empty(), "no node has pods yet");
        }
        gathered.by_object.insert((NODE, "a".into()), node(Some("10.244.0.0/24"), Some("True")));
        assert_eq!(ranges(&gathered, &[]), ["10.96.0.0/16", "10.244.0.0/24"]);
    }

    #[test]
    fn the_pods_of_a_node_that_is_gone_are_the_clusters_still() {
        let mut gathered = Gathered::default();
        gathered.by_object.insert((SERVICE_CIDR, "s".into()), said("10.96.0.0/16"));
        for (name, range, address) in [("a", "10.244.0.0/24", "192.0.2.7/32"), ("b", "10.244.2.0/24", "192.0.2.9/32")] {
            let mut node = node(Some(range), Some("True"));
            node.ranges.push(address.parse().unwrap());
            gathered.by_object.insert((NODE, name.into()), node);
        }
        gathered.forget(NODE, "b".into());
        assert_eq!(ranges(&gathered, &[]), ["10.96.0.0/16", "10.244.0.0/24", "10.244.2.0/24", "192.0.2.7/32"]);
        gathered.forget(NODE, "a".into());
        assert!(ranges(&gathered, &[]).is_empty(), "no node is there");
        gathered.forget(SERVICE_CIDR, "s".into());
        assert!(!gathered.by_object.contains_key(&(SERVICE_CIDR, "s".into())));
    }

    #[test]
    fn the_ports_of_name_servers_are_those_that_their_service_leads_to() {
        let ports = |ports: &Value| {
            let spec = json!({"clusterIPs": ["10.96.0.10", "None"], "ports": ports});
            let said = of_service(&serde_json::from_value(json!({"spec": spec})).unwrap());
            assert_eq!(said.dns, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
            said.dns_ports
        };
        let metrics = json!({"port": 9153, "targetPort": 9153});
        assert_eq!(ports(&json!([{"port": 53, "targetPort": 8053, "protocol": "UDP"}, metrics])), [8053]);
        assert_eq!(ports(&json!([{"port": 53}, {"port": 53, "targetPort": "dns-tcp"}])), [53]);
    }

    #[test]
    fn what_was_given_is_completed_by_what_is_read() {
        let mut gathered = Gathered::default();
        assert_eq!(ranges(&gathered, &["10.0.0.0/16"]), ["10.0.0.0/16"]);
        gathered.by_object.insert((NODE, "a".into()), said("10.1.0.0/16"));
        assert_eq!(ranges(&gathered, &["10.0.0.0/16"]), ["10.0.0.0/15"], "neighbours are joined");
    }
}
