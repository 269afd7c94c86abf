//! Containers drop `ALL` capabilities and may add back `NET_BIND_SERVICE` alone.

use std::collections::BTreeSet;

use crate::{
    Fix, Level, Pod, Violation,
    check::Check,
    text::{container_path, containers, quoted},
};

pub(crate) static CHECK: Check = Check {
    id: "capabilities_restricted",
    level: Level::Restricted,
    overrides: &["capabilities_baseline"],
    since: &[(22, decide), (25, decide_but_windows)],
};

const ALLOWED: &str = "NET_BIND_SERVICE";

fn decide_but_windows(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
    if pod.spec.is_windows() { None } else { decide(check, pod) }
}

fn decide(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
    let (mut missing, mut adding, mut forbidden) = (vec![], vec![], BTreeSet::new());
    let mut fixes = vec![];
    for (kind, index, container) in pod.spec.containers() {
        let field = |name: &str| container_path(kind, index, &format!("capabilities.{name}"));
        let capabilities = container.security_context.as_ref().and_then(|context| context.capabilities.as_ref());
        let dropped = capabilities.and_then(|capabilities| capabilities.drop.as_deref()).unwrap_or_default();
        if !dropped.iter().any(|name| name == "ALL") {
            missing.push(&*container.name);
            fixes.push(Fix { path: field("drop"), value: Some(r#"["ALL"]"#) });
        }
        let added = capabilities.and_then(|capabilities| capabilities.add.as_deref()).unwrap_or_default();
        let mut bad = added.iter().filter(|name| *name != ALLOWED).peekable();
        if bad.peek().is_some() {
            adding.push(&*container.name);
            forbidden.extend(bad.map(|name| &**name));
            let keeps = added.iter().any(|name| name == ALLOWED);
            fixes.push(Fix { path: field("add"), value: keeps.then_some(r#"["NET_BIND_SERVICE"]"#) });
        }
    }
    let mut details = vec![];
    if !missing.is_empty() {
        let who = containers(&missing);
        details.push(format!(r#"{who} must set securityContext.capabilities.drop=["ALL"]"#));
    }
    if !adding.is_empty() {
        let (who, what) = (containers(&adding), quoted(forbidden));
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    (!details.is_empty()).then(|| check.violation("unrestricted capabilities", details.join("; "), fixes))
}
