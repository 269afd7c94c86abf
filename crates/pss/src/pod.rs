//! The parts of a Pod that the standards look at, borrowed from its JSON.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{borrowed::Text, container::Container, list::list, view::Placed, volume::Volume};

/// A Pod, or a pod template: anything with `metadata` and `spec`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Pod<'a> {
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow, default)]
    spec: Option<PodSpec<'a>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    annotations: Option<BTreeMap<Text<'a>, Text<'a>>>,
}

/// Specification of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSpec<'a> {
    #[serde(borrow, default)]
    os: Option<Os<'a>>,
    #[serde(default)]
    pub(crate) host_users: Option<bool>,
    #[serde(default)]
    pub(crate) host_network: Option<bool>,
    #[serde(rename = "hostPID", default)]
    pub(crate) host_pid: Option<bool>,
    #[serde(rename = "hostIPC", default)]
    pub(crate) host_ipc: Option<bool>,
    #[serde(borrow, default)]
    pub(crate) security_context: Option<PodSecurityContext<'a>>,
    #[serde(borrow, default, deserialize_with = "list")]
    volumes: Option<Vec<Volume<'a>>>,
    #[serde(borrow, default, deserialize_with = "list")]
    init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default, deserialize_with = "list")]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default, deserialize_with = "list")]
    ephemeral_containers: Option<Vec<Container<'a>>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Os<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
}

/// Security settings of a Pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodSecurityContext<'a> {
    #[serde(default)]
    pub(crate) run_as_non_root: Option<bool>,
    #[serde(default)]
    pub(crate) run_as_user: Option<i64>,
    #[serde(borrow, default)]
    pub(crate) seccomp_profile: Option<Profile<'a>>,
    #[serde(borrow, default)]
    pub(crate) app_armor_profile: Option<Profile<'a>>,
    #[serde(borrow, default)]
    pub(crate) se_linux_options: Option<SeLinuxOptions<'a>>,
    #[serde(default)]
    pub(crate) windows_options: Option<WindowsOptions>,
    #[serde(borrow, default)]
    pub(crate) sysctls: Option<Vec<Sysctl<'a>>>,
}

/// A seccomp or AppArmor profile.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Profile<'a> {
    /// `RuntimeDefault`, `Localhost` or `Unconfined`.
    #[serde(rename = "type", borrow, default)]
    pub(crate) kind: Text<'a>,
}

/// A profile that confines, as JSON.
pub(crate) const RUNTIME_DEFAULT: &str = r#"{"type":"RuntimeDefault"}"#;

impl Profile<'_> {
    /// Its type, where that does not confine what runs under it.
    pub(crate) fn unconfined(&self) -> Option<&str> {
        (!matches!(&*self.kind, "RuntimeDefault" | "Localhost")).then_some(&*self.kind)
    }
}

/// SELinux labels; the level is free.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct SeLinuxOptions<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(crate) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) user: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) role: Text<'a>,
}

/// Settings of Windows containers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WindowsOptions {
    #[serde(default)]
    pub(crate) host_process: Option<bool>,
}

/// A kernel parameter.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Sysctl<'a> {
    #[serde(borrow, default)]
    pub(crate) name: Text<'a>,
}

/// The list of a Pod that a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

impl<'a> Pod<'a> {
    pub(crate) fn annotations(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        let all = self.metadata.iter().flat_map(|metadata| &metadata.annotations);
        all.flatten().map(|(key, value)| (&**key, &**value))
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        let annotations = self.metadata.as_ref()?.annotations.as_ref()?;
        annotations.get(key).map(|value| &**value)
    }

    pub(crate) fn spec(&self) -> &PodSpec<'a> {
        const NOTHING: &PodSpec<'_> = &PodSpec {
            os: None,
            host_users: None,
            host_network: None,
            host_pid: None,
            host_ipc: None,
            security_context: None,
            volumes: None,
            init_containers: None,
            containers: None,
            ephemeral_containers: None,
        };
        self.spec.as_ref().unwrap_or(NOTHING)
    }

    pub(crate) fn context(&self) -> Option<&PodSecurityContext<'a>> {
        self.spec().security_context.as_ref()
    }

    /// Every container, in the order in which the reference names them.
    ///
    /// The only way to the containers, so that no check can forget a list.
    pub(crate) fn containers(&self) -> Vec<Placed<'_, 'a>> {
        let spec = self.spec();
        let lists = [
            (ContainerKind::Init, spec.init_containers.as_deref().unwrap_or_default()),
            (ContainerKind::Regular, spec.containers.as_deref().unwrap_or_default()),
            (ContainerKind::Ephemeral, spec.ephemeral_containers.as_deref().unwrap_or_default()),
        ];
        let mut all = Vec::with_capacity(lists.iter().map(|(_, list)| list.len()).sum());
        for (kind, list) in lists {
            all.extend(list.iter().enumerate().map(|(index, container)| Placed::new(kind, index, container)));
        }
        all
    }

    pub(crate) fn volumes(&self) -> &[Volume<'a>] {
        self.spec().volumes.as_deref().unwrap_or_default()
    }

    /// Whether the Pod says it runs on Windows; the spelling is exact.
    #[must_use]
    pub fn is_windows(&self) -> bool {
        self.spec().os.as_ref().is_some_and(|os| &*os.name == "windows")
    }

    /// Whether the Pod runs in a user namespace of its own.
    #[must_use]
    pub fn in_user_namespace(&self) -> bool {
        self.spec().host_users == Some(false)
    }
}
