//! Containers add no capability beyond what runtimes give by default.

use crate::{
    Level, Violation,
    check::{Check, Values},
    text::{containers, push_quoted, set},
    view::{Fixes, Placed, View},
};

pub(crate) static CHECK: Check = Check {
    id: "capabilities_baseline",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide)],
    exempt: None,
    values: Some(Values::Capability),
};

/// Capabilities that baseline lets a container add.
pub const CAPABILITIES_BASELINE: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let is_allowed = |it: Placed<'_, '_>, name: &str| CAPABILITIES_BASELINE.contains(&name) || it.excepts(name);
    let bad = pod.containers().filter(|it| !it.container.added().all(|name| is_allowed(*it, name)));
    let mut detail = containers(bad.clone())?;
    fixes.extend(bad.clone().map(|it| {
        let (mut kept, path) = (String::new(), it.field("securityContext.capabilities.add"));
        push_quoted(&mut kept, it.container.added().filter(|name| is_allowed(it, name)));
        if kept.is_empty() { path.remove() } else { path.set(format!("[{kept}]")) }
    }));
    detail.push_str(" must not include ");
    let forbidden = bad.flat_map(|it| it.container.added().filter(move |name| !is_allowed(it, name)));
    push_quoted(&mut detail, set(forbidden));
    detail.push_str(" in securityContext.capabilities.add");
    Some(check.violation("non-default capabilities", detail))
}
