//! Only namespaced kernel parameters that can't harm the node are set.

use crate::{
    Level, Path, Violation,
    check::{Check, Values},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "sysctls",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide::<0>), (27, decide::<27>), (29, decide::<29>), (32, decide::<32>), (37, decide::<37>)],
    exempt: None,
    values: Some(Values::Sysctl),
};

/// What is allowed, by the minor version since which it is.
const ALLOWED: [(u32, &[&str]); 5] = [
    (
        0,
        &[
            "kernel.shm_rmid_forced",
            "net.ipv4.ip_local_port_range",
            "net.ipv4.tcp_syncookies",
            "net.ipv4.ping_group_range",
            "net.ipv4.ip_unprivileged_port_start",
        ],
    ),
    (27, &["net.ipv4.ip_local_reserved_ports"]),
    (
        29,
        &[
            "net.ipv4.tcp_keepalive_time",
            "net.ipv4.tcp_fin_timeout",
            "net.ipv4.tcp_keepalive_intvl",
            "net.ipv4.tcp_keepalive_probes",
        ],
    ),
    (32, &["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"]),
    (37, &["net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat"]),
];

/// Kernel parameters that are allowed since version 1.`minor`.
pub fn sysctls(minor: u32) -> impl Iterator<Item = &'static str> {
    ALLOWED.iter().filter(move |(since, _)| *since <= minor).flat_map(|(_, names)| *names).copied()
}

fn decide<const MINOR: u32>(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let is_allowed = |name: &str| sysctls(MINOR).any(|allowed| allowed == name);
    let sysctls = pod.context().and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    let bad = sysctls.iter().enumerate().filter(|(_, sysctl)| !is_allowed(&sysctl.name) && !pod.excepts(&sysctl.name));
    bad.clone().next()?;
    fixes.extend(bad.clone().map(|(index, _)| Path::spec(format!("securityContext.sysctls[{index}]")).remove()));
    let names: Vec<&str> = bad.map(|(_, sysctl)| &*sysctl.name).collect();
    Some(check.violation("forbidden sysctls", names.join(", ")))
}
