//! Containers must be required to run as a user other than root.

use crate::{
    Fix, Level, Path, Pod, Violation,
    check::Check,
    text::{containers, pod_and},
};

pub(crate) static CHECK: Check = Check {
    id: "runAsNonRoot",
    level: Level::Restricted,
    overrides: &[],
    since: &[(0, decide), (35, decide_unless_user_namespace)],
};

const REASON: &str = "runAsNonRoot != true";
const FIELD: &str = "securityContext.runAsNonRoot";

fn decide_unless_user_namespace(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
    if pod.in_user_namespace() { None } else { decide(check, pod) }
}

fn decide(check: &'static Check, pod: &Pod<'_>) -> Option<Violation> {
    let of_pod = pod.context().and_then(|context| context.run_as_non_root);
    let (mut bad, mut unset, mut fixes) = (vec![], vec![], vec![]);
    for (kind, index, container) in pod.containers() {
        match container.security_context.as_ref().and_then(|context| context.run_as_non_root) {
            Some(true) => {}
            Some(false) => {
                bad.push(&*container.name);
                fixes.push(Path::container(kind, index, FIELD).set("true"));
            }
            None => unset.push(&*container.name),
        }
    }
    if let Some(who) = pod_and(of_pod == Some(false), &bad) {
        if of_pod != Some(true) {
            fixes.insert(0, pod_fix());
        }
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Some(check.violation(REASON, detail, fixes));
    }
    if of_pod == Some(true) || unset.is_empty() {
        return None;
    }
    let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&unset));
    Some(check.violation(REASON, detail, vec![pod_fix()]))
}

fn pod_fix() -> Fix {
    Path::spec(FIELD).set("true")
}
