//! AppArmor confines containers: by the runtime's profile or by a local one.

use crate::{
    Level, Path, Violation,
    check::Check,
    pod::RUNTIME_DEFAULT,
    text::{go_quoted, plural, pod_and, push_quoted, set},
    view::{Fixes, Placed, View},
};

pub(crate) static CHECK: Check = Check {
    id: "appArmorProfile",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide)],
    exempt: None,
    values: None,
};

/// What names the profile of a container before Kubernetes 1.30.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const FIELD: &str = "securityContext.appArmorProfile";

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let of_pod = pod.context().and_then(|context| context.app_armor_profile.as_ref()?.unconfined());
    let bad = pod.containers().filter(|it| unconfined(*it).is_some());
    let annotations = pod.annotations().filter(|(key, value)| key.starts_with(ANNOTATION) && !confines(value));
    let mut detail = pod_and(of_pod.is_some(), bad.clone()).unwrap_or_default();
    let annotated = match annotations.clone().take(2).count() {
        0 if detail.is_empty() => return None,
        0 => "",
        1 => "annotation",
        _ => "annotations",
    };
    if !annotated.is_empty() {
        detail.push_str(if detail.is_empty() { "" } else { " and " });
        detail.push_str(annotated);
    }
    fixes.extend(of_pod.map(|_| Path::spec(FIELD).set(RUNTIME_DEFAULT)));
    fixes.extend(bad.clone().map(|it| it.field(FIELD).set(RUNTIME_DEFAULT)));
    fixes.extend(annotations.clone().map(|(key, _)| Path::annotation(key).remove()));

    let kinds = set(of_pod.into_iter().chain(bad.filter_map(unconfined)));
    let settings = set(annotations.map(|(key, value)| format!("{key}={}", go_quoted(value))));
    let values = kinds.iter().copied().chain(settings.iter().map(String::as_str));
    let reason = plural(values.clone().count(), "forbidden AppArmor profile", "forbidden AppArmor profiles");
    detail.push_str(" must not set AppArmor profile type to ");
    push_quoted(&mut detail, values);
    Some(check.violation(reason, detail))
}

fn unconfined<'p>(it: Placed<'p, '_>) -> Option<&'p str> {
    it.context()?.app_armor_profile.as_ref()?.unconfined()
}

fn confines(annotation: &str) -> bool {
    annotation.is_empty() || annotation == "runtime/default" || annotation.starts_with("localhost/")
}
