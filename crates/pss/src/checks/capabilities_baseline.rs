//! Containers add no capability beyond what runtimes give by default.

use crate::{
    Level, Path, Violation,
    check::Check,
    text::{containers, quoted, set},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check =
    Check { id: "capabilities_baseline", level: Level::Baseline, overrides: &[], since: &[(0, decide)], exempt: None };

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
    let (mut bad, mut forbidden) = (vec![], vec![]);
    for (kind, index, container) in pod.containers() {
        let is_allowed = |name: &str| CAPABILITIES_BASELINE.contains(&name);
        if container.added().iter().all(|name| is_allowed(name)) {
            continue;
        }
        bad.push(&*container.name);
        let (kept, refused): (Vec<&str>, Vec<&str>) =
            container.added().iter().map(|name| &**name).partition(|name| is_allowed(name));
        forbidden.extend(refused);
        let path = Path::container(kind, index, "securityContext.capabilities.add");
        fixes.push(|| if kept.is_empty() { path.remove() } else { path.set(format!("[{}]", quoted(&kept))) });
    }
    if bad.is_empty() {
        return None;
    }
    let (who, what) = (containers(&bad), quoted(&set(forbidden)));
    let detail = format!("{who} must not include {what} in securityContext.capabilities.add");
    Some(check.violation("non-default capabilities", detail))
}
