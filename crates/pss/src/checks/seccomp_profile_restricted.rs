//! Containers run under the runtime's default seccomp profile or a local one.

use super::seccomp_profile_baseline::{self as baseline, REASON, fix_of, pod_fix};
use crate::{
    Level, Violation,
    check::{Check, Exemption},
    text::{ROOM, push_containers},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "seccompProfile_restricted",
    level: Level::Restricted,
    overrides: &["seccompProfile_baseline"],
    since: &[(19, decide)],
    exempt: Some((25, Exemption::Windows)),
    values: None,
};

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let set = pod.context().is_some_and(|context| context.seccomp_profile.is_some());
    let unset =
        pod.containers().filter(|it| !set && it.context().is_none_or(|context| context.seccomp_profile.is_none()));
    let explicit = baseline::decide(check, pod, fixes);
    if unset.clone().next().is_none() {
        return explicit;
    }
    // Mending what is set alone would leave the rest without a profile.
    if pod.is_partial() {
        fixes.extend(unset.clone().map(fix_of));
    } else {
        fixes.extend([pod_fix()]);
    }
    explicit.or_else(|| {
        let mut detail = String::with_capacity(ROOM);
        detail.push_str("pod or ");
        push_containers(&mut detail, unset);
        detail.push_str(r#" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#);
        Some(check.violation(REASON, detail))
    })
}
