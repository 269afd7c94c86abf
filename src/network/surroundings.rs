//! What of a cluster depends on who may reach pods: Services, Ingresses, and what the API server calls.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        admissionregistration::v1::{
            MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
        },
        core::v1,
        networking::v1::{Ingress, IngressBackend},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceConversion,
    apimachinery::pkg::util::intstr::IntOrString,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use rampart_reach::{Pod, Protocol};

use super::Monitor;

/// Namespace and name.
pub type Name = (String, String);

/// What depends on who may reach pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Services that select pods.
    pub services: BTreeMap<Name, Service>,
    /// By Ingress, the Services that it leads to, and their ports.
    pub ingresses: BTreeMap<Name, BTreeSet<(Name, BackendPort)>>,
    /// By kind and name of a webhook configuration, a converter (its custom resource definition) or an aggregated API,
    /// the Services that the API server calls, and on what port.
    pub webhooks: BTreeMap<Name, BTreeSet<(Name, u16)>>,
    /// Whose metrics are read, by kind, namespace and name of what says so.
    pub monitors: BTreeMap<(&'static str, Name), Monitor>,
    /// Network plug-ins that have custom resources here.
    pub plugins: BTreeSet<&'static str>,
}

impl Surroundings {
    /// A network plug-in that enforces NetworkPolicies.
    #[must_use]
    pub fn enforcer(&self) -> Option<&'static str> {
        self.plugins.first().copied()
    }
}

/// A Service that selects pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Labels of its pods.
    pub selector: BTreeMap<String, String>,
    /// Its own labels.
    pub labels: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Whether it is there for callers outside: `LoadBalancer` or `NodePort`.
    pub is_outward: bool,
    /// Whether these reach its pods with their own addresses: `externalTrafficPolicy: Local`. Else a node that has none
    /// of its pods calls in their stead.
    pub is_local: bool,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty where it has none.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// The port of the pods.
    pub target: Target,
}

/// The port of a pod that a Service leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By number.
    Number(u16),
    /// What a container calls so.
    Named(String),
}

impl Service {
    /// `None` for one that selects no pods.
    #[must_use]
    pub fn of(service: &v1::Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let selector = spec.selector.clone().filter(|selector| !selector.is_empty())?;
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            let target = match &port.target_port {
                Some(IntOrString::String(name)) => Target::Named(name.clone()),
                Some(IntOrString::Int(target)) if *target != 0 => Target::Number(u16::try_from(*target).ok()?),
                _ => Target::Number(number),
            };
            let protocol = port.protocol.as_deref().unwrap_or("TCP").parse().ok()?;
            Some(ServicePort { name: port.name.clone().unwrap_or_default(), port: number, protocol, target })
        });
        let is_outward = matches!(spec.type_.as_deref(), Some("LoadBalancer" | "NodePort"));
        let is_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let labels = service.metadata.labels.clone().unwrap_or_default();
        Some(Self { selector, labels, ports: ports.collect(), is_outward, is_local })
    }

    /// Whether it selects a pod of its namespace.
    #[must_use]
    pub fn selects(&self, pod: &Pod) -> bool {
        self.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    }
}

impl ServicePort {
    /// The port of a pod that it leads to, if the pod has it.
    #[must_use]
    pub fn of(&self, pod: &Pod) -> Option<(Protocol, u16)> {
        match &self.target {
            Target::Number(number) => Some((self.protocol, *number)),
            Target::Named(name) => {
                let named = pod.ports.iter().find(|port| port.name == *name && port.protocol == self.protocol)?;
                Some((self.protocol, named.port))
            }
        }
    }
}

/// A port of a Service, as an Ingress says it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendPort {
    /// By number.
    Number(u16),
    /// By its name.
    Named(String),
}

impl BackendPort {
    /// Whether it is this one.
    #[must_use]
    pub fn is(&self, port: &ServicePort) -> bool {
        match self {
            Self::Number(number) => *number == port.port,
            Self::Named(name) => *name == port.name,
        }
    }
}

/// The Services that an Ingress leads to, and their ports.
#[must_use]
pub fn backends(ingress: &Ingress) -> BTreeSet<(Name, BackendPort)> {
    let namespace = ingress.metadata.namespace.clone().unwrap_or_default();
    let Some(spec) = &ingress.spec else { return BTreeSet::new() };
    let paths = spec.rules.iter().flatten().filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths);
    let all = paths.map(|path| &path.backend).chain(&spec.default_backend);
    let led_to = |backend: &IngressBackend| {
        let service = backend.service.as_ref()?;
        let port = service.port.clone().unwrap_or_default();
        let number = port.number.and_then(|number| u16::try_from(number).ok()).map(BackendPort::Number);
        Some(((namespace.clone(), service.name.clone()), number.or(port.name.map(BackendPort::Named))?))
    };
    all.filter_map(led_to).collect()
}

/// The Services that a ValidatingWebhookConfiguration names.
#[must_use]
pub fn validated_by(configuration: &ValidatingWebhookConfiguration) -> BTreeSet<(Name, u16)> {
    called(configuration.webhooks.iter().flatten().map(|webhook| &webhook.client_config))
}

/// The Services that a MutatingWebhookConfiguration names.
#[must_use]
pub fn mutated_by(configuration: &MutatingWebhookConfiguration) -> BTreeSet<(Name, u16)> {
    called(configuration.webhooks.iter().flatten().map(|webhook| &webhook.client_config))
}

/// The Service that an aggregated API is served by.
#[must_use]
pub fn aggregated_by(api: &APIService) -> BTreeSet<(Name, u16)> {
    let service = api.spec.as_ref().and_then(|spec| spec.service.as_ref());
    let named = service.and_then(|it| Some(((it.namespace.clone()?, it.name.clone()?), port_or_https(it.port))));
    named.into_iter().collect()
}

/// The Service that converts between versions of a custom resource.
#[must_use]
pub fn converted_by(conversion: &CustomResourceConversion) -> BTreeSet<(Name, u16)> {
    let client = conversion.webhook.as_ref().and_then(|webhook| webhook.client_config.as_ref());
    let service = client.and_then(|client| client.service.as_ref());
    let named = service.map(|it| ((it.namespace.clone(), it.name.clone()), port_or_https(it.port)));
    named.into_iter().collect()
}

/// `ServiceReference`: 443 where it says nothing.
fn port_or_https(port: Option<i32>) -> u16 {
    port.map_or(Ok(443), u16::try_from).unwrap_or_default()
}

fn called<'c>(clients: impl Iterator<Item = &'c WebhookClientConfig>) -> BTreeSet<(Name, u16)> {
    let services = clients.filter_map(|client| client.service.as_ref());
    services.map(|it| ((it.namespace.clone(), it.name.clone()), port_or_https(it.port))).collect()
}
