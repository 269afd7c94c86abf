//! Containers drop `ALL` capabilities and may add back `NET_BIND_SERVICE` alone.

use crate::{
    Level, Violation,
    check::{Check, Exemption, Values},
    text::{containers, push_containers, push_quoted, set},
    view::{Fixes, Placed, View},
};

pub(crate) static CHECK: Check = Check {
    id: "capabilities_restricted",
    level: Level::Restricted,
    overrides: &["capabilities_baseline"],
    since: &[(22, decide)],
    exempt: Some((25, Exemption::Windows)),
    values: Some(Values::Capability),
};

/// The one capability that restricted lets a container add.
pub const CAPABILITY_RESTRICTED: &str = "NET_BIND_SERVICE";

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let is_forbidden = |it: Placed<'_, '_>, name: &str| name != CAPABILITY_RESTRICTED && !it.excepts(name);
    let missing = pod.containers().filter(|it| !it.container.dropped().any(|name| name == "ALL"));
    let adding = pod.containers().filter(|it| it.container.added().any(|name| is_forbidden(*it, name)));
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
        let forbidden = adding.clone().flat_map(|it| it.container.added().filter(move |name| is_forbidden(it, name)));
        push_quoted(&mut detail, set(forbidden));
        detail.push_str(" in securityContext.capabilities.add");
        fixes.extend(adding.map(|it| {
            let path = it.field("securityContext.capabilities.add");
            let mut kept = String::new();
            push_quoted(&mut kept, set(it.container.added().filter(|name| !is_forbidden(it, name))));
            if kept.is_empty() { path.remove() } else { path.set(format!("[{kept}]")) }
        }));
    }
    (!detail.is_empty()).then(|| check.violation("unrestricted capabilities", detail))
}
