//! Probes and lifecycle hooks call the pod itself, not a host that it names: the kubelet would call it
//! from the node's network.

use crate::{
    Level, Violation,
    check::Check,
    text::{named, plural, push_named, set},
    view::{Fixes, Placed, View},
};

pub(crate) static CHECK: Check = Check {
    id: "hostProbesAndHostLifecycle",
    level: Level::Baseline,
    overrides: &[],
    since: &[(34, decide)],
    exempt: None,
    values: None,
};

/// Where a container says what the kubelet calls.
pub const PROBE_AND_LIFECYCLE_HANDLERS: [&str; 5] =
    ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"];

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let bad = pod.containers().filter(|it| it.container.calls_host());
    // The reference sorts these names, unlike those of other checks.
    let (names, calls) = (set(bad.clone().map(Placed::name)), || {
        bad.clone().flat_map(|it| it.container.called_hosts().map(move |call| (it, call)))
    });
    let mut detail = named(("container", "containers"), names.iter().copied())?;
    detail.push_str(plural(names.len(), " uses ", " use "));
    let hosts = set(calls().map(|(_, (.., host))| host));
    push_named(&mut detail, ("probe or lifecycle host", "probe or lifecycle hosts"), hosts.into_iter());
    fixes.extend(calls().map(|(it, (handler, action, _))| it.field(format!("{handler}.{action}.host")).remove()));
    Some(check.violation("probe or lifecycle host", detail))
}
