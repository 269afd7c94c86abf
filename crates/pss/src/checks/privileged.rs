//! Containers are not privileged.

use crate::{
    Level, Path, Violation,
    check::Check,
    text::containers,
    view::{Fixes, View},
};

pub(crate) static CHECK: Check =
    Check { id: "privileged", level: Level::Baseline, overrides: &[], since: &[(0, decide)], exempt: None };

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let mut bad = vec![];
    for (kind, index, container) in pod.containers() {
        if container.context().and_then(|context| context.privileged) == Some(true) {
            bad.push(&*container.name);
            fixes.push(|| Path::container(kind, index, "securityContext.privileged").set("false"));
        }
    }
    if bad.is_empty() {
        return None;
    }
    let detail = containers(&bad) + " must not set securityContext.privileged=true";
    Some(check.violation("privileged", detail))
}
