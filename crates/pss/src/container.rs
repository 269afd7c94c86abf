//! The parts of a container that the standards look at.

use serde::{Deserialize, Deserializer};

use crate::{
    borrowed::Text,
    checks::PROBE_AND_LIFECYCLE_HANDLERS,
    pod::{Profile, SeLinuxOptions, WindowsOptions},
};

/// A container of any of the three lists.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container<'a> {
    #[serde(borrow, default)]
    pub(crate) name: Text<'a>,
    #[serde(borrow, default)]
    security_context: Option<SecurityContext<'a>>,
    /// Place in the list and number of those that take a port of the node.
    #[serde(rename = "ports", default, deserialize_with = "host_ports")]
    host_ports: Vec<(usize, i32)>,
    #[serde(borrow, default, deserialize_with = "calling")]
    liveness_probe: Calling<'a>,
    #[serde(borrow, default, deserialize_with = "calling")]
    readiness_probe: Calling<'a>,
    #[serde(borrow, default, deserialize_with = "calling")]
    startup_probe: Calling<'a>,
    #[serde(borrow, default)]
    lifecycle: Option<Lifecycle<'a>>,
}

/// Security settings of a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecurityContext<'a> {
    #[serde(default)]
    pub(crate) privileged: Option<bool>,
    #[serde(default)]
    pub(crate) allow_privilege_escalation: Option<bool>,
    #[serde(default)]
    pub(crate) run_as_non_root: Option<bool>,
    #[serde(default)]
    pub(crate) run_as_user: Option<i64>,
    #[serde(borrow, default)]
    pub(crate) proc_mount: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) capabilities: Option<Capabilities<'a>>,
    #[serde(borrow, default)]
    pub(crate) seccomp_profile: Option<Profile<'a>>,
    #[serde(borrow, default)]
    pub(crate) app_armor_profile: Option<Profile<'a>>,
    #[serde(borrow, default)]
    pub(crate) se_linux_options: Option<Box<SeLinuxOptions<'a>>>,
    #[serde(default)]
    pub(crate) windows_options: Option<WindowsOptions>,
}

/// Linux capabilities, changed from what the runtime gives.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Capabilities<'a> {
    #[serde(borrow, default)]
    add: Option<Vec<Text<'a>>>,
    #[serde(borrow, default)]
    drop: Option<Vec<Text<'a>>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    host_port: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle<'a> {
    #[serde(borrow, default, deserialize_with = "calling")]
    post_start: Calling<'a>,
    #[serde(borrow, default, deserialize_with = "calling")]
    pre_stop: Calling<'a>,
}

/// What a probe or a lifecycle hook does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Handler<'a> {
    #[serde(borrow, default)]
    http_get: Option<Call<'a>>,
    #[serde(borrow, default)]
    tcp_socket: Option<Call<'a>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Call<'a> {
    #[serde(borrow, default)]
    host: Text<'a>,
}

/// A handler, where it names a host: few do, and containers stay small in memory.
type Calling<'a> = Option<Box<Handler<'a>>>;

impl Handler<'_> {
    fn names_host(&self) -> bool {
        [&self.http_get, &self.tcp_socket].into_iter().flatten().any(|call| !call.host.is_empty())
    }
}

fn calling<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Calling<'a>, D::Error> {
    let handler = Option::<Handler<'a>>::deserialize(deserializer)?;
    Ok(handler.filter(Handler::names_host).map(Box::new))
}

fn host_ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(usize, i32)>, D::Error> {
    let ports = Option::<Vec<Port>>::deserialize(deserializer)?.unwrap_or_default();
    let taken = ports.into_iter().map(|port| port.host_port.unwrap_or_default()).enumerate();
    Ok(taken.filter(|(_, port)| *port != 0).collect())
}

impl<'a> Container<'a> {
    /// Its security settings.
    pub(crate) const fn context(&self) -> Option<&SecurityContext<'a>> {
        self.security_context.as_ref()
    }

    /// Capabilities that it adds.
    pub(crate) fn added(&self) -> impl Iterator<Item = &str> + Clone {
        let added = self.capabilities().and_then(|capabilities| capabilities.add.as_deref());
        added.unwrap_or_default().iter().map(|name| &**name)
    }

    /// Capabilities that it drops.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = &str> {
        let dropped = self.capabilities().and_then(|capabilities| capabilities.drop.as_deref());
        dropped.unwrap_or_default().iter().map(|name| &**name)
    }

    fn capabilities(&self) -> Option<&Capabilities<'a>> {
        self.context()?.capabilities.as_ref()
    }

    /// Ports of the node that it takes, with their place in the list.
    pub(crate) fn host_ports(&self) -> &[(usize, i32)] {
        &self.host_ports
    }

    /// Whether the kubelet is told to call a host.
    pub(crate) const fn calls_host(&self) -> bool {
        self.liveness_probe.is_some()
            || self.readiness_probe.is_some()
            || self.startup_probe.is_some()
            || matches!(&self.lifecycle, Some(lifecycle) if lifecycle.post_start.is_some() || lifecycle.pre_stop.is_some())
    }

    /// Hosts that the kubelet is told to call, with the field that says so.
    pub(crate) fn called_hosts(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let lifecycle = self.lifecycle.as_ref();
        let handlers = [
            self.liveness_probe.as_deref(),
            self.readiness_probe.as_deref(),
            self.startup_probe.as_deref(),
            lifecycle.and_then(|lifecycle| lifecycle.post_start.as_deref()),
            lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_deref()),
        ];
        let named = PROBE_AND_LIFECYCLE_HANDLERS.into_iter().zip(handlers);
        named
            .filter_map(|(field, handler)| Some((field, handler?)))
            .flat_map(|(field, handler)| {
                [("httpGet", &handler.http_get), ("tcpSocket", &handler.tcp_socket)]
                    .into_iter()
                    .filter_map(move |(action, call)| Some((field, action, &*call.as_ref()?.host)))
            })
            .filter(|(.., host)| !host.is_empty())
    }
}
