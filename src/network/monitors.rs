//! Whose metrics Prometheus reads, by the resources of prometheus-operator (`monitoring.coreos.com/v1`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString};
use rampart_reach::{Pod, Selector};
use serde::Deserialize;

use super::{Service, surroundings::Name};
use crate::api::selector;

/// What a ServiceMonitor says, as far as it is needed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceMonitorSpec {
    selector: LabelSelector,
    namespace_selector: NamespaceSelector,
    endpoints: Vec<Endpoint>,
}

/// What a PodMonitor says, as far as it is needed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodMonitorSpec {
    selector: LabelSelector,
    namespace_selector: NamespaceSelector,
    pod_metrics_endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NamespaceSelector {
    any: bool,
    match_names: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    /// Name of a port: of a ServiceMonitor that of the Service, of a PodMonitor that of the pod.
    port: Option<String>,
    port_number: Option<i32>,
    target_port: Option<IntOrString>,
}

/// Whose metrics are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// Whether Services are selected, or pods themselves.
    of_services: bool,
    selector: Selector,
    /// `None`: all.
    namespaces: Option<BTreeSet<String>>,
    endpoints: Vec<Endpoint>,
}

impl Monitor {
    /// What a ServiceMonitor of a namespace says; `None` where its selector is none.
    #[must_use]
    pub fn of_services(namespace: &str, spec: &ServiceMonitorSpec) -> Option<Self> {
        let namespaces = spec.namespace_selector.of(namespace);
        Some(Self {
            of_services: true,
            selector: selector::parse(&spec.selector, "spec.selector").ok()?,
            namespaces,
            endpoints: spec.endpoints.clone(),
        })
    }

    /// What a PodMonitor of a namespace says; `None` where its selector is none.
    #[must_use]
    pub fn of_pods(namespace: &str, spec: &PodMonitorSpec) -> Option<Self> {
        Some(Self {
            of_services: false,
            selector: selector::parse(&spec.selector, "spec.selector").ok()?,
            namespaces: spec.namespace_selector.of(namespace),
            endpoints: spec.pod_metrics_endpoints.clone(),
        })
    }

    /// Ports of a pod on which its metrics are read.
    #[must_use]
    pub fn ports(&self, pod: &Pod, services: &BTreeMap<Name, Service>) -> BTreeSet<u16> {
        if self.namespaces.as_ref().is_some_and(|names| !names.contains(&pod.namespace)) {
            return BTreeSet::new();
        }
        let named = |name: &str| pod.ports.iter().find(|port| port.name == name).map(|port| port.port);
        let direct = |endpoint: &Endpoint| match &endpoint.target_port {
            Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
            Some(IntOrString::String(name)) => named(name),
            None => endpoint.port_number.and_then(|number| u16::try_from(number).ok()),
        };
        if !self.of_services {
            let of = |endpoint: &Endpoint| endpoint.port.as_deref().and_then(named).or_else(|| direct(endpoint));
            let is_one = self.selector.matches(&pod.labels);
            return self.endpoints.iter().filter(|_| is_one).filter_map(of).collect();
        }
        let from = (pod.namespace.clone(), String::new());
        let here = services.range(from..).take_while(|((namespace, _), _)| *namespace == pod.namespace);
        let theirs = here.filter(|(_, service)| self.selector.matches(&service.labels) && service.selects(pod));
        theirs
            .flat_map(|(_, service)| {
                let by_name = |name: &str| service.ports.iter().find(|port| port.name == name)?.of(pod);
                let of = move |endpoint: &Endpoint| match &endpoint.port {
                    Some(name) => by_name(name).map(|(_, number)| number),
                    None => direct(endpoint),
                };
                self.endpoints.iter().filter_map(of)
            })
            .collect()
    }
}

impl NamespaceSelector {
    fn of(&self, own: &str) -> Option<BTreeSet<String>> {
        match (self.any, self.match_names.is_empty()) {
            (true, _) => None,
            (false, true) => Some([own.to_owned()].into()),
            (false, false) => Some(self.match_names.iter().cloned().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn ports(monitor: Option<Monitor>) -> Vec<u16> {
        let pod = json!({"namespace": "shop", "name": "web", "labels": {"app": "web"},
            "ports": [{"name": "metrics", "port": 9100}, {"name": "http", "port": 80}]});
        let service = json!({"metadata": {"labels": {"team": "a"}}, "spec": {"selector": {"app": "web"},
            "ports": [{"name": "m", "port": 9000, "targetPort": "metrics"}]}});
        let service = Service::of(&serde_json::from_value(service).unwrap()).unwrap();
        let services = [(("shop".to_owned(), "web".to_owned()), service)].into();
        monitor.unwrap().ports(&serde_json::from_value(pod).unwrap(), &services).into_iter().collect()
    }

    #[rstest]
    #[case::by_name_of_the_service(json!({"selector": {"matchLabels": {"team": "a"}}, "endpoints": [{"port": "m"}]}), &[9100])]
    #[case::by_target(json!({"selector": {}, "endpoints": [{"targetPort": "http"}, {"targetPort": 81}]}), &[80, 81])]
    #[case::other_labels(json!({"selector": {"matchLabels": {"team": "b"}}, "endpoints": [{"port": "m"}]}), &[])]
    #[case::other_namespaces(json!({"selector": {}, "namespaceSelector": {"matchNames": ["x"]}, "endpoints": [{"port": "m"}]}), &[])]
    fn of_services(#[case] spec: Value, #[case] wanted: &[u16]) {
        assert_eq!(ports(Monitor::of_services("shop", &serde_json::from_value(spec).unwrap())), wanted);
    }

    #[rstest]
    #[case::by_name(json!({"selector": {"matchLabels": {"app": "web"}}, "podMetricsEndpoints": [{"port": "metrics"}]}), "shop", &[9100])]
    #[case::by_number(json!({"selector": {}, "podMetricsEndpoints": [{"portNumber": 9200}]}), "shop", &[9200])]
    #[case::own_namespace(json!({"selector": {}, "podMetricsEndpoints": [{"port": "metrics"}]}), "monitoring", &[])]
    #[case::any_namespace(json!({"selector": {}, "namespaceSelector": {"any": true}, "podMetricsEndpoints": [{"port": "metrics"}]}), "monitoring", &[9100])]
    fn of_pods(#[case] spec: Value, #[case] namespace: &str, #[case] wanted: &[u16]) {
        assert_eq!(ports(Monitor::of_pods(namespace, &serde_json::from_value(spec).unwrap())), wanted);
    }
}
