//! Windows containers do not run as processes of the node.

use crate::{
    Level, Path, Violation,
    check::Check,
    pod::WindowsOptions,
    text::pod_and,
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "windowsHostProcess",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide)],
    exempt: None,
    values: None,
};

const FIELD: &str = "securityContext.windowsOptions.hostProcess";

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let is_bad = |options: Option<&WindowsOptions>| options.and_then(|options| options.host_process) == Some(true);
    let bad_pod = is_bad(pod.context().and_then(|context| context.windows_options.as_ref()));
    let bad = pod.containers().filter(|it| is_bad(it.context().and_then(|context| context.windows_options.as_ref())));
    let mut detail = pod_and(bad_pod, bad.clone())?;
    fixes.extend(bad_pod.then(|| Path::spec(FIELD).set("false")));
    fixes.extend(bad.map(|it| it.field(FIELD).set("false")));
    detail.push_str(" must not set securityContext.windowsOptions.hostProcess=true");
    Some(check.violation("hostProcess", detail))
}
