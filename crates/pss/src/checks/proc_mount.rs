//! Containers see `/proc` as runtimes mask it by default.

use crate::{
    Level, Path, Violation,
    check::{Check, Exemption},
    text::{containers, quoted, set},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "procMount",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide)],
    exempt: Some((35, Exemption::UserNamespace)),
};

pub(super) fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let (mut bad, mut values) = (vec![], vec![]);
    for (kind, index, container) in pod.containers() {
        let set = container.context().and_then(|context| context.proc_mount.as_ref());
        if let Some(value) = set.filter(|value| &***value != "Default") {
            bad.push(&*container.name);
            values.push(&**value);
            fixes.push(|| Path::container(kind, index, "securityContext.procMount").set(r#""Default""#));
        }
    }
    if bad.is_empty() {
        return None;
    }
    let (who, what) = (containers(&bad), quoted(&set(values)));
    Some(check.violation("procMount", format!("{who} must not set securityContext.procMount to {what}")))
}
