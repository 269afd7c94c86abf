//! Containers drop `ALL` capabilities and may add back `NET_BIND_SERVICE` alone.

use crate::{
    Level, Path, Violation,
    check::{Check, Exemption},
    text::{push_containers, push_quoted, set},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "capabilities_restricted",
    level: Level::Restricted,
    overrides: &["capabilities_baseline"],
    since: &[(22, decide)],
    exempt: Some((25, Exemption::Windows)),
};

/// The one capability that restricted lets a container add.
pub const CAPABILITY_RESTRICTED: &str = "NET_BIND_SERVICE";

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let (mut missing, mut adding, mut forbidden) = (vec![], vec![], vec![]);
    for (kind, index, container) in pod.containers() {
        if !container.dropped().iter().any(|name| &**name == "ALL") {
            missing.push(&*container.name);
            fixes.push(|| Path::container(kind, index, "securityContext.capabilities.drop").set(r#"["ALL"]"#));
        }
        let added = container.added();
        if added.iter().any(|name| &**name != CAPABILITY_RESTRICTED) {
            adding.push(&*container.name);
            forbidden.extend(added.iter().map(|name| &**name).filter(|name| *name != CAPABILITY_RESTRICTED));
            let path = Path::container(kind, index, "securityContext.capabilities.add");
            let keeps = added.iter().any(|name| &**name == CAPABILITY_RESTRICTED);
            fixes.push(|| if keeps { path.set(r#"["NET_BIND_SERVICE"]"#) } else { path.remove() });
        }
    }
    if missing.is_empty() && adding.is_empty() {
        return None;
    }
    let mut detail = String::with_capacity(160);
    if !missing.is_empty() {
        push_containers(&mut detail, &missing);
        detail.push_str(r#" must set securityContext.capabilities.drop=["ALL"]"#);
    }
    if !adding.is_empty() {
        if !detail.is_empty() {
            detail.push_str("; ");
        }
        push_containers(&mut detail, &adding);
        detail.push_str(" must not include ");
        push_quoted(&mut detail, &set(forbidden));
        detail.push_str(" in securityContext.capabilities.add");
    }
    Some(check.violation("unrestricted capabilities", detail))
}
