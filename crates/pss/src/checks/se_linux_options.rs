//! SELinux confines containers: by the types made for them, and with no user or role of their own.

use crate::{
    Level, Path, Violation,
    check::Check,
    pod::SeLinuxOptions,
    text::{plural, pod_and, quoted, set},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "seLinuxOptions",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide::<0>), (31, decide::<31>)],
    exempt: None,
};

const TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Types that are allowed since version 1.`minor`.
#[must_use]
pub fn se_linux_types(minor: u32) -> &'static [&'static str] {
    let [first @ .., _] = &TYPES;
    if minor >= 31 { &TYPES } else { first }
}

fn decide<const MINOR: u32>(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let types = se_linux_types(MINOR);
    let (mut bad_types, mut user, mut role) = (vec![], false, false);
    let mut is_bad = |options: &SeLinuxOptions<'_>, path: &dyn Fn(&str) -> Path| {
        let mut bad = false;
        if !types.contains(&&*options.kind) {
            bad = true;
            bad_types.push(options.kind.to_string());
            fixes.push(|| path("type").remove());
        }
        if !options.user.is_empty() {
            (user, bad) = (true, true);
            fixes.push(|| path("user").remove());
        }
        if !options.role.is_empty() {
            (role, bad) = (true, true);
            fixes.push(|| path("role").remove());
        }
        bad
    };

    let of_pod = pod.context().and_then(|context| context.se_linux_options.as_ref());
    let bad_pod = of_pod
        .is_some_and(|options| is_bad(options, &|field| Path::spec(format!("securityContext.seLinuxOptions.{field}"))));
    let mut bad = vec![];
    for (kind, index, container) in pod.containers() {
        let options = container.context().and_then(|context| context.se_linux_options.as_ref());
        let path = |field: &str| Path::container(kind, index, format!("securityContext.seLinuxOptions.{field}"));
        if options.is_some_and(|options| is_bad(options, &path)) {
            bad.push(&*container.name);
        }
    }
    let who = pod_and(bad_pod, &bad)?;
    let mut what = vec![];
    if !bad_types.is_empty() {
        let bad_types = set(bad_types);
        what.push(format!("{} {}", plural(bad_types.len(), "type", "types"), quoted(&bad_types)));
    }
    if user {
        what.push("user may not be set".into());
    }
    if role {
        what.push("role may not be set".into());
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    Some(check.violation("seLinuxOptions", detail))
}
