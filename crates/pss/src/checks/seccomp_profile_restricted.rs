//! Containers must run under the runtime's default seccomp profile or a local one.

use std::collections::BTreeSet;

use crate::{
    Fix, Level, Pod, SeccompProfile, Violation,
    check::Check,
    text::{container_path, containers, pod_and, quoted},
};

pub(crate) static CHECK: Check = Check {
    id: "seccompProfile_restricted",
    level: Level::Restricted,
    overrides: &["seccompProfile_baseline"],
    since: &[(19, decide), (25, decide_but_windows)],
};

const REASON: &str = "seccompProfile";
const DEFAULT: Option<&str> = Some(r#""RuntimeDefault""#);

fn decide_but_windows(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
    if pod.spec.is_windows() { None } else { decide(check, pod) }
}

fn decide(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
    let valid = |profile: &SeccompProfile<'_>| matches!(&*profile.kind, "RuntimeDefault" | "Localhost");
    let of_pod = pod.spec.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    let pod_fix = || Fix { path: "spec.securityContext.seccompProfile.type".into(), value: DEFAULT };

    let (mut bad, mut unset, mut kinds, mut fixes) = (vec![], vec![], BTreeSet::new(), vec![]);
    let pod_is_bad = of_pod.is_some_and(|profile| !valid(profile));
    if pod_is_bad {
        kinds.extend(of_pod.map(|profile| &*profile.kind));
        fixes.push(pod_fix());
    }
    for (kind, index, container) in pod.spec.containers() {
        match container.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref()) {
            Some(profile) if valid(profile) => {}
            Some(profile) => {
                bad.push(&*container.name);
                kinds.insert(&*profile.kind);
                fixes.push(Fix { path: container_path(kind, index, "seccompProfile.type"), value: DEFAULT });
            }
            None => unset.push(&*container.name),
        }
    }
    if pod_is_bad || !bad.is_empty() {
        if of_pod.is_none() && !unset.is_empty() {
            fixes.push(pod_fix());
        }
        let (who, what) = (pod_and(pod_is_bad, &bad), quoted(kinds));
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {what}");
        return Some(check.violation(REASON, detail, fixes));
    }
    if of_pod.is_some() || unset.is_empty() {
        return None;
    }
    let detail = format!(
        r#"pod or {} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#,
        containers(&unset)
    );
    Some(check.violation(REASON, detail, vec![pod_fix()]))
}
