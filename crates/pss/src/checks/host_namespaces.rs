//! A pod shares no namespace with its node.

use crate::{Level, Path, Pod, Violation, check::Check};

pub(crate) static CHECK: Check =
    Check { id: "hostNamespaces", level: Level::Baseline, overrides: &[], since: &[(0, decide)] };

fn decide(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
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
    let fixes = shared.into_iter().map(|field| Path::spec(field).remove()).collect();
    Some(check.violation("host namespaces", detail, fixes))
}
