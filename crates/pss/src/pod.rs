//! The parts of a Pod that the standards look at, borrowed from its JSON.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;

/// A Pod, or a pod template: anything with `metadata` and `spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod<'a> {
    /// Annotations are what old versions of the standards look at.
    #[serde(borrow, default)]
    pub metadata: Metadata<'a>,
    /// The specification.
    #[serde(borrow, default)]
    pub spec: PodSpec<'a>,
}

/// Metadata of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata<'a> {
    /// Annotations.
    #[serde(borrow, default)]
    pub annotations: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

/// Specification of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec<'a> {
    /// Operating system.
    #[serde(borrow, default)]
    pub os: Option<Os<'a>>,
    /// `false` puts the pod into a user namespace of its own.
    #[serde(default)]
    pub host_users: Option<bool>,
    /// Pod-wide security settings.
    #[serde(borrow, default)]
    pub security_context: Option<PodSecurityContext<'a>>,
    #[serde(borrow, default)]
    init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    ephemeral_containers: Option<Vec<Container<'a>>>,
}

/// Operating system of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Os<'a> {
    /// `linux` or `windows`.
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
}

/// Security settings of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSecurityContext<'a> {
    /// Whether the kubelet refuses to run a container as uid 0.
    #[serde(default)]
    pub run_as_non_root: Option<bool>,
    /// Seccomp profile of every container that sets none.
    #[serde(borrow, default)]
    pub seccomp_profile: Option<SeccompProfile<'a>>,
}

/// Security settings of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSecurityContext<'a> {
    /// Overrides the Pod's.
    #[serde(default)]
    pub run_as_non_root: Option<bool>,
    /// Linux capabilities.
    #[serde(borrow, default)]
    pub capabilities: Option<Capabilities<'a>>,
    /// Overrides the Pod's.
    #[serde(borrow, default)]
    pub seccomp_profile: Option<SeccompProfile<'a>>,
}

/// Linux capabilities, changed from what the runtime gives.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities<'a> {
    /// Added.
    #[serde(borrow, default)]
    pub add: Option<Vec<Cow<'a, str>>>,
    /// Dropped; `ALL` drops everything.
    #[serde(borrow, default)]
    pub drop: Option<Vec<Cow<'a, str>>>,
}

/// A seccomp profile.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompProfile<'a> {
    /// `RuntimeDefault`, `Localhost` or `Unconfined`.
    #[serde(rename = "type", borrow, default)]
    pub kind: Cow<'a, str>,
}

/// A container of any of the three lists.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    /// Name, unique in the Pod.
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    /// Security settings.
    #[serde(borrow, default)]
    pub security_context: Option<ContainerSecurityContext<'a>>,
}

/// The list of a Pod that a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerKind {
    /// `initContainers`.
    Init,
    /// `containers`.
    Regular,
    /// `ephemeralContainers`.
    Ephemeral,
}

impl ContainerKind {
    /// The list's field in the Pod's `spec`.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Init => "initContainers",
            Self::Regular => "containers",
            Self::Ephemeral => "ephemeralContainers",
        }
    }
}

impl<'a> PodSpec<'a> {
    /// Every container, in the order in which the reference names them, with its list and index.
    ///
    /// The only way to the containers, so that no check can forget a list.
    pub fn containers(&self) -> impl Iterator<Item = (ContainerKind, usize, &Container<'a>)> {
        [
            (ContainerKind::Init, &self.init_containers),
            (ContainerKind::Regular, &self.containers),
            (ContainerKind::Ephemeral, &self.ephemeral_containers),
        ]
        .into_iter()
        .flat_map(|(kind, list)| {
            list.iter().flatten().enumerate().map(move |(index, container)| (kind, index, container))
        })
    }

    /// Whether the Pod says it runs on Windows; the spelling is exact.
    #[must_use]
    pub fn is_windows(&self) -> bool {
        self.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// Whether the Pod runs in a user namespace of its own.
    #[must_use]
    pub fn in_user_namespace(&self) -> bool {
        self.host_users == Some(false)
    }
}
