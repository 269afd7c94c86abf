//! Metrics that nobody could read any more.

use std::collections::BTreeSet;

use rampart_reach::{End, Pod, Protocol};

use super::{SCRAPE_UNCERTAIN, View, finding};
use crate::{api::Finding, network::Monitor};

/// What Prometheus' pods are called by its operator and by its charts.
const PROMETHEUS: &str = "prometheus";

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    let known = readers(view);
    let (scraped, uncertain) = scraped(view, &known);
    let lost = |(place, port): &(usize, u16)| {
        let (to, port) = (End::Pod(*place), (Protocol::TCP, *port));
        if known.is_empty() {
            return view.loses_all(view.strangers().map(|reader| (reader, to, port)));
        }
        // Each that is known to read: that another one still can does not help it.
        known.iter().any(|reader| view.loses(*reader, to, port))
    };
    let lost_of = |all: &[(usize, u16)]| all.iter().copied().filter(&lost).collect::<Vec<_>>();
    let mut found = vec![];
    if let lost @ [(_, port), ..] = lost_of(&scraped).as_slice() {
        let message = format!(
            "the metrics of {} pods, such as on port {port}, could not be read any more by all that read them: allow \
             ingress from `entity: Monitoring`, or from its pods",
            lost.len()
        );
        found.push(finding("ScrapeBlocked", view.policy.0, view.policy.1, message));
    }
    if let lost @ [(_, port), ..] = lost_of(&uncertain).as_slice() {
        let message = format!(
            "monitors of other namespaces are about {} pods, such as port {port}, which could not be read any more: that \
             counts once it is said who reads metrics (--network-monitoring, network.monitoring of the chart)",
            lost.len()
        );
        found.push(finding(SCRAPE_UNCERTAIN, view.policy.0, view.policy.1, message));
    }
    found
}

/// Who is known to read metrics.
fn readers(view: &View<'_>) -> Vec<End> {
    match &view.facts.monitoring {
        Some(named) => view.of_entity(named).collect(),
        None => view.named(&[PROMETHEUS]).collect(),
    }
}

/// Pods, and ports on which their metrics are read.
type Scraped = Vec<(usize, u16)>;

/// What metrics are read: by annotations of the pods, and by what prometheus-operator was told in their own namespace, or
/// where those run that the administrator named. What it was told elsewhere is uncertain while nobody is named, and else
/// nothing: anybody could keep others from isolating.
fn scraped(view: &View<'_>, known: &[End]) -> (Scraped, Scraped) {
    let pods = view.population.index.pods();
    let of = |end: &End| match end {
        End::Pod(place) => pods.get(*place).map(|pod| pod.namespace.as_str()),
        End::Address(_) => None,
    };
    let is_named = view.facts.monitoring.is_some();
    let hosts: BTreeSet<&str> = known.iter().filter(|_| is_named).filter_map(of).collect();
    let is_heard = |namespace: &str| namespace == view.policy.0 || hosts.contains(namespace);
    let (heard, others): (Vec<_>, Vec<_>) =
        view.around.monitors.iter().partition(|((_, (namespace, _)), _)| is_heard(namespace));
    let ports = |monitor: &Monitor, pod: &Pod| monitor.ports(pod, &view.around.services);
    let (mut scraped, mut uncertain) = (vec![], vec![]);
    for (place, pod) in view.pods() {
        let annotated = view.population.needs.get(place).and_then(|needs| needs.scraped);
        let monitored = heard.iter().flat_map(|(_, monitor)| ports(monitor, pod));
        let certain: BTreeSet<u16> = annotated.into_iter().chain(monitored).collect();
        if !is_named {
            let more: BTreeSet<u16> = others.iter().flat_map(|(_, monitor)| ports(monitor, pod)).collect();
            uncertain.extend(more.difference(&certain).map(|port| (place, *port)));
        }
        scraped.extend(certain.into_iter().map(|port| (place, port)));
    }
    (scraped, uncertain)
}
