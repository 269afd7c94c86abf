//! Windows containers do not run as processes of the node.

use crate::{
    Level, Path, Violation,
    check::Check,
    text::pod_and,
    view::{Fixes, View},
};

pub(crate) static CHECK: Check =
    Check { id: "windowsHostProcess", level: Level::Baseline, overrides: &[], since: &[(0, decide)], exempt: None };

const FIELD: &str = "securityContext.windowsOptions.hostProcess";

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let mut bad = vec![];
    let of_pod = pod.context().and_then(|context| context.windows_options.as_ref());
    let bad_pod = of_pod.and_then(|options| options.host_process) == Some(true);
    if bad_pod {
        fixes.push(|| Path::spec(FIELD).set("false"));
    }
    for (kind, index, container) in pod.containers() {
        let options = container.context().and_then(|context| context.windows_options.as_ref());
        if options.and_then(|options| options.host_process) == Some(true) {
            bad.push(&*container.name);
            fixes.push(|| Path::container(kind, index, FIELD).set("false"));
        }
    }
    let who = pod_and(bad_pod, &bad)?;
    Some(check.violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true")))
}
