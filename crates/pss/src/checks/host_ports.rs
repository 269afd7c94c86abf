//! Containers take no port of their node.

use crate::{
    Level, Path, Violation,
    check::Check,
    text::{containers, plural, set},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check =
    Check { id: "hostPorts", level: Level::Baseline, overrides: &[], since: &[(0, decide)], exempt: None };

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let (mut bad, mut ports) = (vec![], vec![]);
    for (kind, index, container) in pod.containers() {
        let before = ports.len();
        for (place, port) in container.host_ports() {
            ports.push(port.to_string());
            fixes.push(|| Path::container(kind, index, format!("ports[{place}].hostPort")).remove());
        }
        if ports.len() > before {
            bad.push(&*container.name);
        }
    }
    if bad.is_empty() {
        return None;
    }
    // The reference sorts them as strings: 10, 443, 9.
    let ports = set(ports);
    let (uses, noun) = (plural(bad.len(), "uses", "use"), plural(ports.len(), "hostPort", "hostPorts"));
    let detail = format!("{} {uses} {noun} {}", containers(&bad), ports.join(", "));
    Some(check.violation("hostPort", detail))
}
