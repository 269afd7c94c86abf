//! Containers are not privileged.

use crate::{Level, Path, Pod, Violation, check::Check, text::containers};

pub(crate) static CHECK: Check =
    Check { id: "privileged", level: Level::Baseline, overrides: &[], since: &[(0, decide)] };

fn decide(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
    let (mut bad, mut fixes) = (vec![], vec![]);
    for (kind, index, container) in pod.containers() {
        if container.security_context.as_ref().and_then(|context| context.privileged) == Some(true) {
            bad.push(&*container.name);
            fixes.push(Path::container(kind, index, "securityContext.privileged").set("false"));
        }
    }
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.privileged=true", containers(&bad));
    Some(check.violation("privileged", detail, fixes))
}
