//! Seccomp is not switched off: by annotation before Kubernetes 1.19, by field since.

use crate::{
    Fix, Level, Path, Violation,
    check::Check,
    pod::RUNTIME_DEFAULT,
    text::{go_quoted, plural, pod_and, push_quoted, set},
    view::{Fixes, Placed, View},
};

pub(crate) static CHECK: Check = Check {
    id: "seccompProfile_baseline",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide_annotations), (19, decide)],
    exempt: None,
    values: None,
};

pub(super) const REASON: &str = "seccompProfile";
const OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const FIELD: &str = "securityContext.seccompProfile";

fn decide_annotations(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let keys =
        std::iter::once(OF_POD.to_owned()).chain(pod.containers().map(|it| format!("{OF_CONTAINER}{}", it.name())));
    let keys: Vec<(String, &str)> = keys
        .filter_map(|key| pod.annotation(&key).filter(|value| !confines(value)).map(|value| (key.clone(), value)))
        .collect();
    if keys.is_empty() {
        return None;
    }
    let keys = set(keys.into_iter());
    let found = set(keys.iter().map(|(key, value)| format!("{key}={}", go_quoted(value))));
    let detail = format!("forbidden {} {}", plural(found.len(), "annotation", "annotations"), found.join(", "));
    fixes.extend(keys.iter().map(|(key, _)| Path::annotation(key).remove()));
    Some(check.violation(REASON, detail))
}

fn unconfined<'p>(it: Placed<'p, '_>) -> Option<&'p str> {
    it.context()?.seccomp_profile.as_ref()?.unconfined()
}

fn confines(annotation: &str) -> bool {
    matches!(annotation, "runtime/default" | "docker/default") || annotation.starts_with("localhost/")
}

pub(super) fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let of_pod = pod.context().and_then(|context| context.seccomp_profile.as_ref()?.unconfined());
    let bad = pod.containers().filter(|it| unconfined(*it).is_some());
    let mut detail = pod_and(of_pod.is_some(), bad.clone())?;
    fixes.extend(of_pod.map(|_| pod_fix()));
    fixes.extend(bad.clone().map(fix_of));
    detail.push_str(" must not set securityContext.seccompProfile.type to ");
    push_quoted(&mut detail, set(of_pod.into_iter().chain(bad.filter_map(unconfined))));
    Some(check.violation(REASON, detail))
}

/// The profile for a container.
pub(super) fn fix_of(it: Placed<'_, '_>) -> Fix {
    it.field(FIELD).set(RUNTIME_DEFAULT)
}

/// The profile for every container that sets none.
pub(super) fn pod_fix() -> Fix {
    Path::spec(FIELD).set(RUNTIME_DEFAULT)
}
