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
};

const FIELD: &str = "securityContext.runAsUser";

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let mut bad = vec![];
    let bad_pod = pod.context().and_then(|context| context.run_as_user) == Some(0);
    if bad_pod {
        fixes.push(|| Path::spec(FIELD).remove());
    }
    for (kind, index, container) in pod.containers() {
        if container.context().and_then(|context| context.run_as_user) == Some(0) {
            bad.push(&*container.name);
            fixes.push(|| Path::container(kind, index, FIELD).remove());
        }
    }
    let who = pod_and(bad_pod, &bad)?;
    Some(check.violation("runAsUser=0", format!("{who} must not set runAsUser=0")))
}
