//! Probes and lifecycle hooks call the pod itself, not a host that it names: the kubelet would call it
//! from the node's network.

use crate::{
    Level, Path, Violation,
    check::Check,
    text::{containers, plural, quoted, set},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "hostProbesAndHostLifecycle",
    level: Level::Baseline,
    overrides: &[],
    since: &[(34, decide)],
    exempt: None,
};

/// Where a container says what the kubelet calls.
pub const PROBE_AND_LIFECYCLE_HANDLERS: [&str; 5] =
    ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"];

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let (mut bad, mut hosts) = (vec![], vec![]);
    for (kind, index, container) in pod.containers() {
        for (handler, action, host) in container.called_hosts() {
            bad.push(&*container.name);
            hosts.push(host);
            fixes.push(|| Path::container(kind, index, format!("{handler}.{action}.host")).remove());
        }
    }
    if bad.is_empty() {
        return None;
    }
    let (bad, hosts) = (set(bad), set(hosts));
    let uses = plural(bad.len(), "uses", "use");
    let noun = plural(hosts.len(), "probe or lifecycle host", "probe or lifecycle hosts");
    let detail = format!("{} {uses} {noun} {}", containers(&bad), quoted(&hosts));
    Some(check.violation("probe or lifecycle host", detail))
}
