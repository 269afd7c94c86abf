//! Nothing says that it runs as uid 0.

use crate::{
    Level, Path, Violation,
    check::{Check, Exemption},
    text::pod_and,
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "runAsUser",
    level: Level::Restricted,
    overrides: &[],
    since: &[(23, decide)],
    exempt: Some((35, Exemption::UserNamespace)),
    values: None,
};

const FIELD: &str = "securityContext.runAsUser";

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let bad_pod = pod.context().and_then(|context| context.run_as_user) == Some(0);
    let bad = pod.containers().filter(|it| it.context().and_then(|context| context.run_as_user) == Some(0));
    let mut detail = pod_and(bad_pod, bad.clone())?;
    fixes.extend(bad_pod.then(|| Path::spec(FIELD).remove()));
    fixes.extend(bad.map(|it| it.field(FIELD).remove()));
    detail.push_str(" must not set runAsUser=0");
    Some(check.violation("runAsUser=0", detail))
}
