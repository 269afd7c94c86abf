//! What policies are analysed on: namespaces, pods and NetworkPolicies, from objects of the Kubernetes API.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::{core::v1, networking::v1::NetworkPolicy};
use rampart_reach::{ContainerPort, Namespace, Pod, Policy};
use serde::Deserialize;
use serde_json::Value;

use super::{Service, surroundings::Name};
use crate::admission::template_path;

/// What there is.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Pods; a workload stands for its pods, by its name.
    pub pods: Vec<Pod>,
    /// NetworkPolicies.
    pub policies: Vec<Policy>,
    /// Services that select pods.
    pub services: BTreeMap<Name, Service>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) generate_name: Option<String>,
    pub(super) labels: Option<BTreeMap<String, String>>,
}

/// What matters of an object that is or holds a pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Written {
    pub(super) metadata: Metadata,
    pub(super) spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) service_account_name: Option<String>,
    pub(super) automount_service_account_token: Option<bool>,
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    ports: Option<Vec<Port>>,
    restart_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: Option<String>,
    #[serde(rename = "containerPort")]
    number: u16,
    #[serde(default)]
    protocol: Option<rampart_reach::Protocol>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<IpAddr>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Debug, Default, Deserialize)]
struct PodIp {
    ip: Option<IpAddr>,
}

impl World {
    /// Adds what an object is; `false` where it is nothing that matters. A namespaced object without a namespace
    /// is of the given one.
    ///
    /// # Errors
    /// When it has not the shape of its kind, or is a NetworkPolicy that no API server takes.
    pub fn add(&mut self, object: &Value, namespace: &str) -> Result<bool, String> {
        let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
        let group = text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
        let named = |error: serde_json::Error| error.to_string();
        match (group, text("kind")) {
            ("", "Namespace") => {
                let metadata = Metadata::deserialize(object.get("metadata").unwrap_or(&Value::Null));
                let Metadata { name, labels, .. } = metadata.map_err(named)?;
                self.namespaces.push(Namespace { name: name.unwrap_or_default(), labels: labels.unwrap_or_default() });
            }
            ("", "Service") => {
                let service = v1::Service::deserialize(object).map_err(named)?;
                let own = service.metadata.namespace.clone().filter(|it| !it.is_empty());
                let name = (own.unwrap_or_else(|| namespace.into()), service.metadata.name.clone().unwrap_or_default());
                self.services.extend(Service::of(&service).map(|it| (name, it)));
            }
            ("networking.k8s.io", "NetworkPolicy") => {
                let mut policy = Policy::deserialize(object).map_err(named)?;
                let named = object.pointer("/metadata/namespace").and_then(Value::as_str);
                if named.is_none_or(str::is_empty) {
                    policy.namespace = namespace.into();
                }
                self.policies.push(policy);
            }
            (group, kind) => {
                let Some(path) = template_path(group, kind) else { return Ok(false) };
                let pointer = path.iter().fold(String::new(), |pointer, key| pointer + "/" + key);
                let Some(template) = object.pointer(&pointer) else { return Ok(false) };
                let metadata = object.get("metadata").map(Metadata::deserialize).transpose().map_err(named)?;
                let written = Written::deserialize(template).map_err(named)?;
                self.pods.extend(pod(metadata.unwrap_or_default(), written, namespace));
            }
        }
        Ok(true)
    }
}

/// A NetworkPolicy as the analysis understands it; `None` for one that no API server takes.
#[must_use]
pub fn understood(policy: &NetworkPolicy) -> Option<Policy> {
    serde_json::from_value(serde_json::to_value(policy).ok()?).ok()
}

/// `None` for a pod that has finished: it talks to nobody any more.
pub(super) fn pod(named: Metadata, written: Written, namespace: &str) -> Option<Pod> {
    let (spec, status) = (written.spec.unwrap_or_default(), written.status.unwrap_or_default());
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    // As the API server looks for the target of a Service: init containers after the others, and only those that stay
    // (`k8s.io/kubernetes/pkg/api/v1/pod`, FindPort).
    let sidecars = spec.init_containers.into_iter().flatten();
    let sidecars = sidecars.filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.into_iter().flatten().chain(sidecars);
    let port = |port: Port| ContainerPort {
        name: port.name.unwrap_or_default(),
        port: port.number,
        protocol: port.protocol.unwrap_or_default(),
    };
    let mut ips: Vec<IpAddr> = status.pod_ips.into_iter().flatten().filter_map(|it| it.ip).collect();
    if ips.is_empty() {
        ips.extend(status.pod_ip);
    }
    Some(Pod {
        namespace: named.namespace.filter(|it| !it.is_empty()).unwrap_or_else(|| namespace.into()),
        name: named.name.or(named.generate_name).unwrap_or_default(),
        labels: written.metadata.labels.unwrap_or_default(),
        ips,
        ports: containers.filter_map(|it| it.ports).flatten().map(port).collect(),
        host_network: spec.host_network.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use rampart_reach::Protocol::{TCP, UDP};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_workload_stands_for_its_pods() {
        let mut world = World::default();
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {
            "containers": [{"name": "a", "ports": [{"name": "http", "containerPort": 8080}]}],
            "initContainers": [{"name": "b", "ports": [{"name": "http", "containerPort": 80}]}, {"name": "c"},
                {"name": "d", "restartPolicy": "Always", "ports": [{"containerPort": 53, "protocol": "UDP"}]}]}});
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "other"}}, "spec": {"template": template}});
        assert_eq!(world.add(&deployment, "default"), Ok(true));
        let port = |name: &str, port, protocol| ContainerPort { name: name.into(), port, protocol };
        let wanted = Pod {
            namespace: "shop".into(),
            name: "web".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ports: vec![port("http", 8080, TCP), port("", 53, UDP)],
            ..Pod::default()
        };
        assert_eq!(world.pods, [wanted]);
    }

    #[test]
    fn what_has_finished_or_does_not_matter_is_left_out() {
        let mut world = World::default();
        let pod = |phase: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": phase},
            "spec": {"hostNetwork": true}, "status": {"phase": phase, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}})
        };
        for phase in ["Running", "Succeeded", "Failed"] {
            assert_eq!(world.add(&pod(phase), "default"), Ok(true));
        }
        assert_eq!(world.add(&json!({"apiVersion": "v1", "kind": "ConfigMap"}), "default"), Ok(false));
        assert_eq!(
            world.add(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}), ""),
            Ok(true)
        );
        let [pod] = world.pods.as_slice() else { panic!("{:?}", world.pods) };
        assert!(
            pod.name == "Running" && pod.namespace == "default" && pod.host_network && pod.ips.len() == 2,
            "{pod:?}"
        );
        assert_eq!(world.namespaces[0].name, "x");
    }

    #[test]
    fn a_policy_that_no_api_server_takes_is_refused_with_its_field() {
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
            "spec": {"podSelector": {}, "ingress": [{"from": [{}]}]}});
        let refused = World::default().add(&policy, "default").unwrap_err();
        assert!(refused.starts_with("spec.ingress[0].from[0]: names nobody"), "{refused}");
    }
}
