//! The parts of a container that the standards look at.

use serde::Deserialize;

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
    #[serde(default)]
    ports: Option<Vec<Port>>,
    #[serde(borrow, default)]
    liveness_probe: Option<Handler<'a>>,
    #[serde(borrow, default)]
    readiness_probe: Option<Handler<'a>>,
    #[serde(borrow, default)]
    startup_probe: Option<Handler<'a>>,
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
    pub(crate) se_linux_options: Option<SeLinuxOptions<'a>>,
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
    #[serde(borrow, default)]
    post_start: Option<Handler<'a>>,
    #[serde(borrow, default)]
    pre_stop: Option<Handler<'a>>,
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

impl<'a> Container<'a> {
    /// Its security settings.
    pub(crate) const fn context(&self) -> Option<&SecurityContext<'a>> {
        self.security_context.as_ref()
    }

    /// Capabilities that it adds.
    pub(crate) fn added(&self) -> &[Text<'a>] {
        self.capabilities().and_then(|capabilities| capabilities.add.as_deref()).unwrap_or_default()
    }

    /// Capabilities that it drops.
    pub(crate) fn dropped(&self) -> &[Text<'a>] {
        self.capabilities().and_then(|capabilities| capabilities.drop.as_deref()).unwrap_or_default()
    }

    fn capabilities(&self) -> Option<&Capabilities<'a>> {
        self.context()?.capabilities.as_ref()
    }

    /// Ports of the node that it takes, with their place in the list.
    pub(crate) fn host_ports(&self) -> impl Iterator<Item = (usize, i32)> {
        let ports = self.ports.iter().flatten().enumerate();
        ports.filter_map(|(index, port)| Some((index, port.host_port.filter(|port| *port != 0)?)))
    }

    /// Hosts that the kubelet is told to call, with the field that says so.
    pub(crate) fn called_hosts(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let lifecycle = self.lifecycle.as_ref();
        let handlers = [
            self.liveness_probe.as_ref(),
            self.readiness_probe.as_ref(),
            self.startup_probe.as_ref(),
            lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()),
            lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()),
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
