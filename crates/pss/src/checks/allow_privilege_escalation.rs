//! No process of a container gains more privileges than its parent.

use crate::{
    Level, Path, Violation,
    check::{Check, Exemption},
    text::containers,
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "allowPrivilegeEscalation",
    level: Level::Restricted,
    overrides: &[],
    since: &[(8, decide)],
    exempt: Some((25, Exemption::Windows)),
};

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let mut bad = vec![];
    for (kind, index, container) in pod.containers() {
        if container.context().and_then(|context| context.allow_privilege_escalation) != Some(false) {
            bad.push(&*container.name);
            fixes.push(|| Path::container(kind, index, "securityContext.allowPrivilegeEscalation").set("false"));
        }
    }
    if bad.is_empty() {
        return None;
    }
    let detail = containers(&bad) + " must set securityContext.allowPrivilegeEscalation=false";
    Some(check.violation("allowPrivilegeEscalation != false", detail))
}
