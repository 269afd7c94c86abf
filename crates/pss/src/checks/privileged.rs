//! Containers are not privileged.

use crate::{
    Level, Violation,
    check::Check,
    text::containers,
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "privileged",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide)],
    exempt: None,
    values: None,
};

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let bad = pod.containers().filter(|it| it.context().and_then(|context| context.privileged) == Some(true));
    let mut detail = containers(bad.clone())?;
    fixes.extend(bad.map(|it| it.field("securityContext.privileged").set("false")));
    detail.push_str(" must not set securityContext.privileged=true");
    Some(check.violation("privileged", detail))
}
