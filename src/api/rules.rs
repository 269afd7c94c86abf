//! What a policy may ask of pods beyond the Pod Security Standards. A field that is absent asks nothing.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GoDuration;

/// Rules beyond the Pod Security Standards.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// Every container but ephemeral ones runs with a read-only root filesystem. Windows pods are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_root_filesystem: Option<Required>,
    /// Resources that containers and init containers request, by themselves or through the pod. A limit
    /// counts: the API server makes it the request too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub resource_requests: Vec<String>,
    /// Resources that containers and init containers limit, by themselves or through the pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub resource_limits: Vec<String>,
    /// Where images come from, and how they are named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Images>,
    /// Least numeric ids that processes run as. Windows pods are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<Users>,
    /// Linux capabilities. Windows pods are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// seccomp profiles. Windows pods are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Profiles>,
    /// Every container runs under the AppArmor profile of the runtime, or under a local one of this list.
    /// Windows pods are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_armor: Option<Profiles>,
    /// Every pod has a user namespace of its own: `hostUsers: false`. Windows pods are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_namespaces: Option<Required>,
    /// Whether pods mount a service account token: Forbidden wants `automountServiceAccountToken: false` and
    /// no projected token; Explicit wants the field set, either way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<ServiceAccountToken>,
    /// Which volumes pods have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Volumes>,
    /// Probes that containers and sidecars have, in pods that restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub probes: Vec<Probe>,
    /// Ports of their node that containers may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ports: Option<HostPorts>,
    /// How long pods may take to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period: Option<TerminationGracePeriod>,
    /// Priority classes that pods may name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_classes: Option<Allowed>,
    /// Labels of nodes by which pods may not choose nodes, in `nodeSelector` or by node affinity. To keep away from
    /// nodes by them (`NotIn`, `DoesNotExist`) is allowed. A pod that names its node itself (`spec.nodeName`)
    /// passes the scheduler by, and is refused when it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Forbidden>,
    /// Keys of taints that pods may not name in `tolerations`. A toleration of every taint is refused too,
    /// and so is a pod that names its node itself (`spec.nodeName`) when it is made: the scheduler looks at taints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerations: Option<Forbidden>,
    /// Runtime classes of which pods name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_classes: Option<OneOf>,
}

/// Something is asked for; absent, it is not.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Required {
    /// It is asked for.
    Required,
}

/// Rules on images of containers and of image volumes. A pattern is an image name in which `*` stands for
/// characters other than `/`, and `**` for any; without a registry it is one of docker.io, as it is for an
/// image; without tag or digest it matches all of them, and an image without either has the tag `latest`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// Patterns of which every image matches one, such as `registry.example.com/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allow: Vec<String>,
    /// Patterns of which no image matches one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub deny: Vec<String>,
    /// Every image is named by its SHA-256 digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_digest: Option<bool>,
    /// Tags that no image has. One with neither tag nor digest has the tag `latest`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    pub forbid_tags: Vec<String>,
}

/// Least numeric ids.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Users {
    /// Least `runAsUser`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub min_uid: Option<i64>,
    /// Least `runAsGroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub min_gid: Option<i64>,
    /// Least `fsGroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub min_fs_group: Option<i64>,
    /// Ids that have a least value must be set, not left to the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_explicit: Option<bool>,
}

/// Rules on capabilities.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Capabilities that containers may add, spelt exactly; an empty list: none.
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    pub allow_add: Vec<String>,
}

/// Rules on profiles.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Profiles {
    /// Local profiles that may be used; an empty list: none.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub localhost_profiles: Vec<String>,
}

/// How a service account token may be mounted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceAccountToken {
    /// Not at all.
    Forbidden,
    /// Only by saying so.
    Explicit,
}

/// Rules on volumes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Volumes {
    /// Types of volumes that pods may have, such as `configMap`. The projected volume `kube-api-access-...`
    /// that the API server adds for the service account token is always allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)))]
    pub allow: Option<Vec<String>>,
    /// Directories of their node that pods may mount with a `hostPath` volume; an empty list: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub host_paths: Option<Vec<HostPath>>,
}

/// A directory of nodes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct HostPath {
    /// The directory; what is below it is meant too.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^/"))]
    pub prefix: String,
    /// It must be mounted read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

/// A probe of a container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// Whether it takes requests.
    Readiness,
    /// Whether it must be restarted.
    Liveness,
    /// Whether it has started.
    Startup,
}

/// Ports of nodes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct HostPorts {
    /// Ranges that may be taken; an empty list: none.
    #[schemars(length(max = 16))]
    pub allow: Vec<PortRange>,
}

/// A range of ports, both ends included.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[x_kube(validation = Rule::new("self.min <= self.max").message("min must not be above max"))]
#[serde(rename_all = "camelCase")]
pub struct PortRange {
    /// The lowest.
    #[schemars(range(min = 1, max = 65_535))]
    pub min: i32,
    /// The highest.
    #[schemars(range(min = 1, max = 65_535))]
    pub max: i32,
}

/// A bound on the time to stop.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct TerminationGracePeriod {
    /// The longest `terminationGracePeriodSeconds`. A pod that sets none has 30s.
    pub max: GoDuration,
}

/// Names that may be used.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Allowed {
    /// The names; an empty list: none. Naming none is allowed, but the API server may name the cluster's
    /// default before this is judged.
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub allow: Vec<String>,
}

/// Names that may not be used.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Forbidden {
    /// The names.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 317)))]
    pub forbid: Vec<String>,
}

/// Names of which one must be used.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct OneOf {
    /// The names.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 253)))]
    pub require: Vec<String>,
}
