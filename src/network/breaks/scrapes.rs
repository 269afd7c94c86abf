//! Metrics that nobody could read any more.

use std::collections::BTreeSet;

use rampart_reach::{End, Pod, Protocol};

use super::{View, finding};
use crate::api::Finding;

/// What Prometheus' pods are called by its operator and by its charts.
const PROMETHEUS: &str = "prometheus";

pub(super) fn find(view: &View<'_>) -> Vec<Finding> {
    let scraped: Vec<(usize, u16)> = view.pods().flat_map(|(place, pod)| scraped(view, place, pod)).collect();
    if scraped.is_empty() {
        return vec![];
    }
    let known: Vec<End> = match &view.facts.monitoring {
        Some(named) => view.of_entity(named).collect(),
        None => view.named(&[PROMETHEUS]).collect(),
    };
    let lost = |(place, port): &&(usize, u16)| {
        let (to, port) = (End::Pod(*place), (Protocol::TCP, *port));
        if known.is_empty() {
            return view.loses_all(view.strangers().map(|reader| (reader, to, port)));
        }
        // Each that is known to read: that another one still can does not help it.
        known.iter().any(|reader| view.loses(*reader, to, port))
    };
    let lost: Vec<&(usize, u16)> = scraped.iter().filter(lost).collect();
    let Some((_, port)) = lost.first() else { return vec![] };
    let message = format!(
        "the metrics of {} pods, such as on port {port}, could not be read any more by all that read them: allow \
         ingress from `entity: Monitoring`, or from its pods",
        lost.len()
    );
    vec![finding("ScrapeBlocked", view.policy.0, view.policy.1, message)]
}

/// Ports on which metrics of a pod are read: by its annotations, and by what prometheus-operator was told.
fn scraped(view: &View<'_>, place: usize, pod: &Pod) -> impl Iterator<Item = (usize, u16)> {
    let annotated = view.population.needs.get(place).and_then(|needs| needs.scraped);
    let monitors = view.around.monitors.values();
    let monitored = monitors.flat_map(|monitor| monitor.ports(pod, &view.around.services));
    let ports: BTreeSet<u16> = annotated.into_iter().chain(monitored).collect();
    ports.into_iter().map(move |port| (place, port))
}
