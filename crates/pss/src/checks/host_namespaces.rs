//! A pod shares no namespace with its node.

use crate::{
    Level, Path, Violation,
    check::Check,
    view::{Fixes, View},
};

pub(crate) static CHECK: Check =
    Check { id: "hostNamespaces", level: Level::Baseline, overrides: &[], since: &[(0, decide)], exempt: None };

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let spec = pod.spec();
    let shared: Vec<&'static str> =
        [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)]
            .into_iter()
            .filter_map(|(field, set)| (set == Some(true)).then_some(field))
            .collect();
    if shared.is_empty() {
        return None;
    }
    let detail = shared.iter().map(|field| format!("{field}=true")).collect::<Vec<_>>().join(", ");
    for field in shared {
        fixes.push(|| Path::spec(field).remove());
    }
    Some(check.violation("host namespaces", detail))
}
