//! Containers must be required to run as a user other than root.

use crate::{
    Fix, Level, Path, Violation,
    check::{Check, Exemption},
    text::{pod_and, push_containers},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "runAsNonRoot",
    level: Level::Restricted,
    overrides: &[],
    since: &[(0, decide)],
    exempt: Some((35, Exemption::UserNamespace)),
};

const REASON: &str = "runAsNonRoot != true";
const FIELD: &str = "securityContext.runAsNonRoot";

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let of_pod = pod.context().and_then(|context| context.run_as_non_root);
    let (mut bad, mut unset) = (vec![], vec![]);
    for (kind, index, container) in pod.containers() {
        match container.context().and_then(|context| context.run_as_non_root) {
            Some(true) => {}
            Some(false) => {
                bad.push(&*container.name);
                fixes.push(|| Path::container(kind, index, FIELD).set("true"));
            }
            None => unset.push(&*container.name),
        }
    }
    if let Some(who) = pod_and(of_pod == Some(false), &bad) {
        if of_pod != Some(true) {
            fixes.push(pod_fix);
        }
        return Some(check.violation(REASON, who + " must not set securityContext.runAsNonRoot=false"));
    }
    if of_pod == Some(true) || unset.is_empty() {
        return None;
    }
    fixes.push(pod_fix);
    let mut detail = String::with_capacity(128);
    detail.push_str("pod or ");
    push_containers(&mut detail, &unset);
    detail.push_str(" must set securityContext.runAsNonRoot=true");
    Some(check.violation(REASON, detail))
}

fn pod_fix() -> Fix {
    Path::spec(FIELD).set("true")
}
