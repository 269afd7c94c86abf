//! The parts of a Pod that rules look at. What is `null` is absent, as it is to the API server.

use std::collections::BTreeMap;

use rampart_pss::{ContainerKind, Path, list};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{affinity::Affinity, expression::Expression};

/// A Pod, or a pod template.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Pod {
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    spec: Option<Spec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Metadata {
    labels: Option<BTreeMap<String, Option<String>>>,
    annotations: Option<Annotations>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Annotations {
    /// Of a static pod, which a kubelet tells of and nobody schedules; one that a person makes is never run.
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
}

/// Specification of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    os: Option<Os>,
    #[serde(default, deserialize_with = "list")]
    init_containers: Option<Vec<Container>>,
    #[serde(default, deserialize_with = "list")]
    containers: Option<Vec<Container>>,
    #[serde(default, deserialize_with = "list")]
    ephemeral_containers: Option<Vec<Container>>,
    #[serde(default, deserialize_with = "list")]
    volumes: Option<Vec<Volume>>,
    restart_policy: Option<String>,
    resources: Option<Resources>,
    pub(super) security_context: Option<Context>,
    pub(super) host_users: Option<bool>,
    #[serde(rename = "hostNetwork")]
    host_network: Option<bool>,
    #[serde(rename = "hostPID")]
    host_pid: Option<bool>,
    #[serde(rename = "hostIPC")]
    host_ipc: Option<bool>,
    pub(super) automount_service_account_token: Option<bool>,
    pub(super) termination_grace_period_seconds: Option<i64>,
    pub(super) priority_class_name: Option<String>,
    pub(super) runtime_class_name: Option<String>,
    node_name: Option<String>,
    pub(super) node_selector: Option<BTreeMap<String, Value>>,
    pub(super) affinity: Option<Affinity>,
    pub(super) tolerations: Option<Vec<Toleration>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Os {
    name: Option<String>,
}

/// A container of any of the three lists.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    name: Option<String>,
    image: Option<String>,
    restart_policy: Option<String>,
    resources: Option<Resources>,
    ports: Option<Vec<Port>>,
    volume_mounts: Option<Vec<VolumeMount>>,
    volume_devices: Option<Vec<IgnoredAny>>,
    security_context: Option<Context>,
    pub(super) readiness_probe: Option<IgnoredAny>,
    pub(super) liveness_probe: Option<IgnoredAny>,
    pub(super) startup_probe: Option<IgnoredAny>,
}

/// Security settings of a Pod or a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Context {
    pub(super) run_as_user: Option<i64>,
    pub(super) run_as_group: Option<i64>,
    pub(super) fs_group: Option<i64>,
    pub(super) read_only_root_filesystem: Option<bool>,
    pub(super) capabilities: Option<Capabilities>,
    pub(super) seccomp_profile: Option<Profile>,
    pub(super) app_armor_profile: Option<Profile>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Capabilities {
    pub(super) add: Option<Vec<String>>,
}

/// A seccomp or AppArmor profile.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) localhost_profile: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Resources {
    requests: Option<BTreeMap<String, Value>>,
    limits: Option<BTreeMap<String, Value>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    host_port: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumeMount {
    name: Option<String>,
    read_only: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Toleration {
    pub(super) key: Option<String>,
}

/// A volume.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    name: Option<String>,
    host_path: Option<HostPath>,
    image: Option<ImageSource>,
    projected: Option<Projected>,
    #[serde(flatten)]
    others: BTreeMap<String, Option<IgnoredAny>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct HostPath {
    path: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct ImageSource {
    reference: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Projected {
    sources: Option<Vec<Source>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    service_account_token: Option<IgnoredAny>,
    #[serde(rename = "downwardAPI")]
    downward_api: Option<IgnoredAny>,
    config_map: Option<ConfigMap>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct ConfigMap {
    name: Option<String>,
}

/// ConfigMaps with the certificates that the API server, and that of OpenShift, are known by.
pub(super) const ROOT_CERTIFICATES: [&str; 2] = ["kube-root-ca.crt", "openshift-service-ca.crt"];

/// A container and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'p> {
    pub(super) kind: ContainerKind,
    pub(super) index: usize,
    pub(super) container: &'p Container,
}

impl<'p> Placed<'p> {
    /// Its security settings.
    pub(super) const fn context(&self) -> Option<&'p Context> {
        self.container.security_context.as_ref()
    }

    /// A field of it.
    pub(super) fn field(&self, field: impl Into<std::borrow::Cow<'static, str>>) -> Path {
        Path::container(self.kind, self.index, field)
    }
}

impl Pod {
    pub(super) fn spec(&self) -> Option<&Spec> {
        self.spec.as_ref()
    }

    /// Whether it names its node itself, and so passes the scheduler by.
    pub(super) fn names_its_node(&self) -> bool {
        let is_mirror = self.metadata.as_ref().and_then(|it| it.annotations.as_ref()?.mirror.as_ref()).is_some();
        !is_mirror && self.spec().and_then(|spec| spec.node_name.as_ref()).is_some_and(|name| !name.is_empty())
    }

    /// Without the node that the scheduler named.
    #[must_use]
    pub fn scheduled(mut self) -> Self {
        if let Some(spec) = &mut self.spec {
            spec.node_name = None;
        }
        self
    }

    /// Its labels.
    pub(in crate::hardening) fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.metadata.iter().flat_map(|metadata| metadata.labels.iter().flatten());
        labels.map(|(key, value)| (key.clone(), value.clone().unwrap_or_default())).collect()
    }

    /// Its containers: where they stand, name and image.
    pub(in crate::hardening) fn named(&self) -> impl Iterator<Item = ((ContainerKind, usize), &str, &str)> {
        self.containers().map(|it| ((it.kind, it.index), it.container.name(), it.container.image()))
    }

    /// Security settings of the Pod.
    pub(super) fn context(&self) -> Option<&Context> {
        self.spec()?.security_context.as_ref()
    }

    /// Whether the Pod says it runs on Windows.
    pub(super) fn is_windows(&self) -> bool {
        let os = self.spec().and_then(|spec| spec.os.as_ref()?.name.as_deref());
        os == Some("windows")
    }

    /// Whether it is in the node's network, or sees the node's processes.
    pub(super) fn shares_host_namespaces(&self) -> bool {
        let shares = |spec: &Spec| [spec.host_network, spec.host_pid, spec.host_ipc].contains(&Some(true));
        self.spec().is_some_and(shares)
    }

    /// Whether a container has a volume as a block device.
    pub(super) fn has_volume_devices(&self) -> bool {
        let has_any = |it: Placed<'_>| it.container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty());
        self.containers().any(has_any)
    }

    /// Whether its containers are started again when they end.
    pub(super) fn restarts(&self) -> bool {
        let policy = self.spec().and_then(|spec| spec.restart_policy.as_deref());
        policy.is_none_or(|policy| policy == "Always")
    }

    /// Every container, init before regular before ephemeral.
    pub(super) fn containers(&self) -> impl Iterator<Item = Placed<'_>> {
        let lists = self.spec().into_iter().flat_map(|spec| {
            [
                (ContainerKind::Init, &spec.init_containers),
                (ContainerKind::Regular, &spec.containers),
                (ContainerKind::Ephemeral, &spec.ephemeral_containers),
            ]
        });
        lists.flat_map(|(kind, list)| {
            list.iter().flatten().enumerate().map(move |(index, container)| Placed { kind, index, container })
        })
    }

    /// Every container but ephemeral ones.
    pub(super) fn lasting(&self) -> impl Iterator<Item = Placed<'_>> {
        self.containers().filter(|it| it.kind != ContainerKind::Ephemeral)
    }

    /// Every volume with its index.
    pub(super) fn volumes(&self) -> impl Iterator<Item = (usize, &Volume)> {
        self.spec().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten().enumerate()
    }

    /// Whether the Pod as a whole requests, or limits, a resource.
    pub(super) fn has(&self, what: Resource, name: &str) -> bool {
        self.spec().and_then(|spec| spec.resources.as_ref()).is_some_and(|resources| resources.has(what, name))
    }

    /// Whether a volume is mounted somewhere without being read-only.
    pub(super) fn is_mounted_writable(&self, volume: &str) -> bool {
        let mounts = self.containers().flat_map(|it| it.container.volume_mounts.iter().flatten());
        mounts
            .filter(|mount| mount.name.as_deref().unwrap_or_default() == volume)
            .any(|mount| mount.read_only != Some(true))
    }
}

/// What is said of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    /// How much of it is needed.
    Requests,
    /// How much of it may be used.
    Limits,
}

impl Resource {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
}

/// A quantity (`k8s.io/apimachinery`, `resource.Quantity`) above zero; zero is no limit at all.
pub(super) static POSITIVE: Expression = Expression::new(r"^\+?[0-9.]*[1-9]");

/// Whether a quantity is above zero.
pub(in crate::hardening) fn is_positive(quantity: &Value) -> bool {
    match quantity {
        Value::String(text) => POSITIVE.is_match(text),
        value => value.as_f64().is_some_and(|value| value > 0.0),
    }
}

impl Resources {
    fn has(&self, what: Resource, name: &str) -> bool {
        let holds =
            |map: &Option<BTreeMap<String, Value>>| map.as_ref().and_then(|map| map.get(name)).is_some_and(is_positive);
        // The API server makes a limit the request where there is none (`SetDefaults_Pod`).
        holds(&self.limits) || (what == Resource::Requests && holds(&self.requests))
    }
}

impl Container {
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Its image; empty where a template leaves it open.
    pub(super) fn image(&self) -> &str {
        self.image.as_deref().unwrap_or_default()
    }

    /// Whether it is an init container that goes on running (KEP-753).
    pub(super) fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }

    pub(super) fn has(&self, what: Resource, name: &str) -> bool {
        self.resources.as_ref().is_some_and(|resources| resources.has(what, name))
    }

    /// Ports of the node that it takes, with their place in the list.
    pub(super) fn host_ports(&self) -> impl Iterator<Item = (usize, i32)> {
        let ports = self.ports.iter().flatten().enumerate();
        ports.filter_map(|(index, port)| Some((index, port.host_port.filter(|port| *port != 0)?)))
    }

    /// Capabilities that it adds.
    pub(super) fn added(&self) -> impl Iterator<Item = &str> {
        let capabilities = self.security_context.as_ref().and_then(|context| context.capabilities.as_ref());
        capabilities.into_iter().flat_map(|it| it.add.iter().flatten()).map(String::as_str)
    }
}

impl Volume {
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Whether its source is of a type.
    pub(super) fn is(&self, kind: &str) -> bool {
        match kind {
            "hostPath" => self.host_path.is_some(),
            "image" => self.image.is_some(),
            "projected" => self.projected.is_some(),
            kind => self.others.get(kind).is_some_and(Option::is_some),
        }
    }

    /// The directory of the node that it shows.
    pub(super) fn host_path(&self) -> Option<&str> {
        self.host_path.as_ref().map(|it| it.path.as_deref().unwrap_or_default())
    }

    /// The image that it shows.
    pub(super) fn image(&self) -> Option<&str> {
        self.image.as_ref()?.reference.as_deref().filter(|reference| !reference.is_empty())
    }

    /// Whether it holds nothing but what ServiceAccount admission puts there.
    pub(super) fn is_access_to_the_api(&self) -> bool {
        let is_certificate = |source: &Source| {
            let name = source.config_map.as_ref().and_then(|map| map.name.as_deref());
            name.is_some_and(|name| ROOT_CERTIFICATES.contains(&name))
        };
        let is_known = |source: &Source| {
            source.service_account_token.is_some() || source.downward_api.is_some() || is_certificate(source)
        };
        self.projected.as_ref().is_some_and(|it| it.sources.iter().flatten().all(is_known))
    }

    /// Whether a service account token is in it.
    pub(super) fn has_token(&self) -> bool {
        let sources = self.projected.iter().flat_map(|it| it.sources.iter().flatten());
        sources.into_iter().any(|source| source.service_account_token.is_some())
    }
}
