//! Seccomp is not switched off: by annotation before Kubernetes 1.19, by field since.

use crate::{
    Fix, Level, Path, Violation,
    check::Check,
    text::{go_quoted, plural, pod_and, push_quoted, set},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "seccompProfile_baseline",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide_annotations), (19, decide)],
    exempt: None,
};

pub(super) const REASON: &str = "seccompProfile";
const OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const FIELD: &str = "securityContext.seccompProfile";
const DEFAULT: &str = r#"{"type":"RuntimeDefault"}"#;

fn decide_annotations(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let keys = std::iter::once(OF_POD.to_owned())
        .chain(pod.containers().map(|(.., container)| format!("{OF_CONTAINER}{}", &*container.name)));
    let keys: Vec<(String, &str)> = keys
        .filter_map(|key| pod.annotation(&key).filter(|value| !confines(value)).map(|value| (key.clone(), value)))
        .collect();
    if keys.is_empty() {
        return None;
    }
    let keys = set(keys);
    let found = set(keys.iter().map(|(key, value)| format!("{key}={}", go_quoted(value))).collect());
    let detail = format!("forbidden {} {}", plural(found.len(), "annotation", "annotations"), found.join(", "));
    for (key, _) in &keys {
        fixes.push(|| Path::annotation(key).remove());
    }
    Some(check.violation(REASON, detail))
}

fn confines(annotation: &str) -> bool {
    matches!(annotation, "runtime/default" | "docker/default") || annotation.starts_with("localhost/")
}

pub(super) fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let (mut bad, mut kinds) = (vec![], vec![]);
    let of_pod = pod.context().and_then(|context| context.seccomp_profile.as_ref());
    let bad_pod = of_pod.filter(|profile| !profile.confines());
    if let Some(profile) = bad_pod {
        kinds.push(&*profile.kind);
        fixes.push(pod_fix);
    }
    for (kind, index, container) in pod.containers() {
        let profile = container.context().and_then(|context| context.seccomp_profile.as_ref());
        if let Some(profile) = profile.filter(|profile| !profile.confines()) {
            bad.push(&*container.name);
            kinds.push(&*profile.kind);
            fixes.push(|| Path::container(kind, index, FIELD).set(DEFAULT));
        }
    }
    let mut detail = pod_and(bad_pod.is_some(), &bad)?;
    detail.push_str(" must not set securityContext.seccompProfile.type to ");
    push_quoted(&mut detail, &set(kinds));
    Some(check.violation(REASON, detail))
}

/// The profile for every container that sets none.
pub(super) fn pod_fix() -> Fix {
    Path::spec(FIELD).set(DEFAULT)
}
