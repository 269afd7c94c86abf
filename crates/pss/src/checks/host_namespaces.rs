//! A pod shares no namespace with its node.

use crate::{
    Level, Path, Violation,
    check::Check,
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "hostNamespaces",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide)],
    exempt: None,
    values: None,
};

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let spec = pod.spec();
    let fields = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
    let shared = fields.into_iter().filter_map(|(field, set)| (set == Some(true)).then_some(field));
    let mut detail = String::new();
    for field in shared.clone() {
        detail.push_str(if detail.is_empty() { "" } else { ", " });
        detail.push_str(field);
        detail.push_str("=true");
    }
    fixes.extend(shared.map(|field| Path::spec(field).remove()));
    (!detail.is_empty()).then(|| check.violation("host namespaces", detail))
}
