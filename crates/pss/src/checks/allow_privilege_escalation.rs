//! No process of a container gains more privileges than its parent.

use crate::{Level, Path, Pod, Violation, check::Check, text::containers};

pub(crate) static CHECK: Check = Check {
    id: "allowPrivilegeEscalation",
    level: Level::Restricted,
    overrides: &[],
    since: &[(8, decide), (25, decide_but_windows)],
};

fn decide_but_windows(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { decide(check, pod) }
}

fn decide(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
    let (mut bad, mut fixes) = (vec![], vec![]);
    for (kind, index, container) in pod.containers() {
        if container.security_context.as_ref().and_then(|context| context.allow_privilege_escalation) != Some(false) {
            bad.push(&*container.name);
            fixes.push(Path::container(kind, index, "securityContext.allowPrivilegeEscalation").set("false"));
        }
    }
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
    Some(check.violation("allowPrivilegeEscalation != false", detail, fixes))
}
