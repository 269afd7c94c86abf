//! AppArmor confines containers: by the runtime's profile or by a local one.

use crate::{
    Level, Path, Violation,
    check::Check,
    text::{containers, go_quoted, plural, quoted, set},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check =
    Check { id: "appArmorProfile", level: Level::Baseline, overrides: &[], since: &[(0, decide)], exempt: None };

/// What names the profile of a container before Kubernetes 1.30.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const FIELD: &str = "securityContext.appArmorProfile";
const DEFAULT: &str = r#"{"type":"RuntimeDefault"}"#;

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let (mut setters, mut kinds) = (vec![], vec![]);
    let of_pod = pod.context().and_then(|context| context.app_armor_profile.as_ref());
    if let Some(profile) = of_pod.filter(|profile| !profile.confines()) {
        setters.push("pod".into());
        kinds.push(&*profile.kind);
        fixes.push(|| Path::spec(FIELD).set(DEFAULT));
    }
    let mut bad = vec![];
    for (kind, index, container) in pod.containers() {
        let profile = container.context().and_then(|context| context.app_armor_profile.as_ref());
        if let Some(profile) = profile.filter(|profile| !profile.confines()) {
            bad.push(&*container.name);
            kinds.push(&*profile.kind);
            fixes.push(|| Path::container(kind, index, FIELD).set(DEFAULT));
        }
    }
    if !bad.is_empty() {
        setters.push(containers(&bad));
    }
    let mut annotations = vec![];
    for (key, value) in pod.annotations().filter(|(key, value)| key.starts_with(ANNOTATION) && !confines(value)) {
        annotations.push(format!("{key}={}", go_quoted(value)));
        fixes.push(|| Path::annotation(key).remove());
    }
    if !annotations.is_empty() {
        setters.push(plural(annotations.len(), "annotation", "annotations").into());
    }
    if setters.is_empty() {
        return None;
    }
    let values: Vec<String> = set(kinds).into_iter().map(String::from).chain(set(annotations)).collect();
    let reason = plural(values.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles");
    let detail = format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values));
    Some(check.violation(reason, detail))
}

fn confines(annotation: &str) -> bool {
    annotation.is_empty() || annotation == "runtime/default" || annotation.starts_with("localhost/")
}
