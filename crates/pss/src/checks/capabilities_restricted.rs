//! Containers drop `ALL` capabilities and may add back `NET_BIND_SERVICE` alone.

use crate::{
    Level, Path, Pod, Violation,
    check::Check,
    text::{containers, quoted, set},
};

pub(crate) static CHECK: Check = Check {
    id: "capabilities_restricted",
    level: Level::Restricted,
    overrides: &["capabilities_baseline"],
    since: &[(22, decide), (25, decide_but_windows)],
};

/// The one capability that restricted lets a container add.
pub const CAPABILITY_RESTRICTED: &str = "NET_BIND_SERVICE";

fn decide_but_windows(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { decide(check, pod) }
}

fn decide(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
    let (mut missing, mut adding, mut forbidden, mut fixes) = (vec![], vec![], vec![], vec![]);
    for (kind, index, container) in pod.containers() {
        if !container.dropped().iter().any(|name| &**name == "ALL") {
            missing.push(&*container.name);
            fixes.push(Path::container(kind, index, "securityContext.capabilities.drop").set(r#"["ALL"]"#));
        }
        let added = container.added();
        if added.iter().any(|name| &**name != CAPABILITY_RESTRICTED) {
            adding.push(&*container.name);
            forbidden.extend(added.iter().map(|name| &**name).filter(|name| *name != CAPABILITY_RESTRICTED));
            let path = Path::container(kind, index, "securityContext.capabilities.add");
            let keeps = added.iter().any(|name| &**name == CAPABILITY_RESTRICTED);
            fixes.push(if keeps { path.set(r#"["NET_BIND_SERVICE"]"#) } else { path.remove() });
        }
    }
    let mut details = vec![];
    if !missing.is_empty() {
        let who = containers(&missing);
        details.push(format!(r#"{who} must set securityContext.capabilities.drop=["ALL"]"#));
    }
    if !adding.is_empty() {
        let (who, what) = (containers(&adding), quoted(&set(forbidden)));
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    (!details.is_empty()).then(|| check.violation("unrestricted capabilities", details.join("; "), fixes))
}
