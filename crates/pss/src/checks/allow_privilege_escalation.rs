//! No process of a container gains more privileges than its parent.

use crate::{
    Level, Violation,
    check::{Check, Exemption},
    text::containers,
    view::{Fixes, Placed, View},
};

pub(crate) static CHECK: Check = Check {
    id: "allowPrivilegeEscalation",
    level: Level::Restricted,
    overrides: &[],
    since: &[(8, decide)],
    exempt: Some((25, Exemption::Windows)),
    values: None,
};

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let allows = |it: &Placed<'_, '_>| it.context().and_then(|it| it.allow_privilege_escalation) != Some(false);
    let bad = pod.containers().filter(allows);
    let mut detail = containers(bad.clone())?;
    fixes.extend(bad.map(|it| it.field("securityContext.allowPrivilegeEscalation").set("false")));
    detail.push_str(" must set securityContext.allowPrivilegeEscalation=false");
    Some(check.violation("allowPrivilegeEscalation != false", detail))
}
