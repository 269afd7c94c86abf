//! Containers see `/proc` as runtimes mask it by default.

use crate::{
    Level, Violation,
    check::{Check, Exemption},
    text::{containers, push_quoted, set},
    view::{Fixes, Placed, View},
};

pub(crate) static CHECK: Check = Check {
    id: "procMount",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide)],
    exempt: Some((35, Exemption::UserNamespace)),
    values: None,
};

pub(super) fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let bad = pod.containers().filter(|it| masked(*it).is_some());
    let mut detail = containers(bad.clone())?;
    fixes.extend(bad.clone().map(|it| it.field("securityContext.procMount").set(r#""Default""#)));
    detail.push_str(" must not set securityContext.procMount to ");
    push_quoted(&mut detail, set(bad.filter_map(masked)));
    Some(check.violation("procMount", detail))
}

/// What it sets, where that is not the default.
fn masked<'p>(it: Placed<'p, '_>) -> Option<&'p str> {
    it.context()?.proc_mount.as_deref().filter(|value| *value != "Default")
}
