//! SELinux confines containers: by the types made for them, and with no user or role of their own.

use crate::{
    Level, Path, Violation,
    check::Check,
    pod::SeLinuxOptions,
    text::{pod_and, push_named, set},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check = Check {
    id: "seLinuxOptions",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide::<0>), (31, decide::<31>)],
    exempt: None,
    values: None,
};

/// What is judged of SELinux labels.
const FIELDS: [&str; 3] = ["type", "user", "role"];
const TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Types that are allowed since version 1.`minor`.
#[must_use]
pub fn se_linux_types(minor: u32) -> &'static [&'static str] {
    let [first @ .., _] = &TYPES;
    if minor >= 31 { &TYPES } else { first }
}

fn decide<const MINOR: u32>(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let types = se_linux_types(MINOR);
    let wrong = |options: &SeLinuxOptions<'_>| {
        let wrong = [!types.contains(&&*options.kind), !options.user.is_empty(), !options.role.is_empty()];
        FIELDS.into_iter().zip(wrong).filter_map(|(field, wrong)| wrong.then_some(field))
    };
    let of_pod = pod.context().and_then(|context| context.se_linux_options.as_ref());
    let of_pod = of_pod.filter(|options| wrong(options).next().is_some());
    let bad = pod.containers().filter_map(|it| {
        let options = it.context()?.se_linux_options.as_deref()?;
        wrong(options).next().is_some().then_some((it, options))
    });
    let mut detail = pod_and(of_pod.is_some(), bad.clone().map(|(it, _)| it))?;
    let path = |field| format!("securityContext.seLinuxOptions.{field}");
    fixes.extend(of_pod.into_iter().flat_map(wrong).map(|field| Path::spec(path(field)).remove()));
    fixes.extend(bad.clone().flat_map(|(it, options)| wrong(options).map(move |field| it.field(path(field)).remove())));

    let all = || of_pod.into_iter().chain(bad.clone().map(|(_, options)| options));
    let bad_types = set(all().map(|options| &*options.kind).filter(|kind| !types.contains(kind)));
    let mut what = vec![];
    if !bad_types.is_empty() {
        let mut named = String::new();
        push_named(&mut named, ("type", "types"), bad_types.into_iter());
        what.push(named);
    }
    if all().any(|options| !options.user.is_empty()) {
        what.push("user may not be set".into());
    }
    if all().any(|options| !options.role.is_empty()) {
        what.push("role may not be set".into());
    }
    detail.push_str(" set forbidden securityContext.seLinuxOptions: ");
    detail.push_str(&what.join("; "));
    Some(check.violation("seLinuxOptions", detail))
}
