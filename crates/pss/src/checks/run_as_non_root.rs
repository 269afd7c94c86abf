//! Containers must be required to run as a user other than root.

use crate::{
    Fix, Level, Path, Violation,
    check::{Check, Exemption},
    text::{ROOM, pod_and, push_containers},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "runAsNonRoot",
    level: Level::Restricted,
    overrides: &[],
    since: &[(0, decide)],
    exempt: Some((35, Exemption::UserNamespace)),
    values: None,
};

const REASON: &str = "runAsNonRoot != true";
const FIELD: &str = "securityContext.runAsNonRoot";

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let of_pod = pod.context().and_then(|context| context.run_as_non_root);
    let saying = |wanted: Option<bool>| {
        pod.containers().filter(move |it| it.context().and_then(|context| context.run_as_non_root) == wanted)
    };
    let (bad, unset) = (saying(Some(false)), saying(None));
    let fill = |fixes: &mut Fixes| {
        if of_pod.is_none() && pod.is_partial() {
            fixes.extend(unset.clone().map(|it| it.field(FIELD).set("true")));
        } else {
            fixes.extend([pod_fix()]);
        }
    };
    if let Some(mut detail) = pod_and(of_pod == Some(false), bad.clone()) {
        fixes.extend(bad.map(|it| it.field(FIELD).set("true")));
        if of_pod != Some(true) {
            fill(fixes);
        }
        detail.push_str(" must not set securityContext.runAsNonRoot=false");
        return Some(check.violation(REASON, detail));
    }
    if of_pod == Some(true) || unset.clone().next().is_none() {
        return None;
    }
    fill(fixes);
    let mut detail = String::with_capacity(ROOM);
    detail.push_str("pod or ");
    push_containers(&mut detail, unset);
    detail.push_str(" must set securityContext.runAsNonRoot=true");
    Some(check.violation(REASON, detail))
}

fn pod_fix() -> Fix {
    Path::spec(FIELD).set("true")
}
