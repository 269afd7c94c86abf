//! Containers drop `ALL` capabilities and may add back `NET_BIND_SERVICE` alone.

use crate::{
    Level, Violation,
    check::{Check, Exemption},
    text::{containers, push_containers, push_quoted, set},
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
    let is_forbidden = |name: &&str| *name != CAPABILITY_RESTRICTED;
    let missing = pod.containers().filter(|it| !it.container.dropped().any(|name| name == "ALL"));
    let adding = pod.containers().filter(|it| it.container.added().any(|name| is_forbidden(&name)));
    let mut detail = containers(missing.clone()).unwrap_or_default();
    if !detail.is_empty() {
        detail.push_str(r#" must set securityContext.capabilities.drop=["ALL"]"#);
        fixes.extend(missing.map(|it| it.field("securityContext.capabilities.drop").set(r#"["ALL"]"#)));
    }
    if adding.clone().next().is_some() {
        if !detail.is_empty() {
            detail.push_str("; ");
        }
        push_containers(&mut detail, adding.clone());
        detail.push_str(" must not include ");
        push_quoted(&mut detail, set(adding.clone().flat_map(|it| it.container.added()).filter(is_forbidden)));
        detail.push_str(" in securityContext.capabilities.add");
        fixes.extend(adding.map(|it| {
            let path = it.field("securityContext.capabilities.add");
            let keeps = it.container.added().any(|name| !is_forbidden(&name));
            if keeps { path.set(r#"["NET_BIND_SERVICE"]"#) } else { path.remove() }
        }));
    }
    (!detail.is_empty()).then(|| check.violation("unrestricted capabilities", detail))
}
