//! A pod mounts only kinds of volumes that do not reach into its node.

use crate::{
    Level, Path, Violation,
    check::Check,
    text::{plural, quoted, set},
    view::{Fixes, View},
    volume::UNKNOWN,
};

pub(crate) static CHECK: Check = Check {
    id: "restrictedVolumes",
    level: Level::Restricted,
    overrides: &["hostPathVolumes"],
    since: &[(0, decide)],
    exempt: None,
};

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let (mut names, mut kinds) = (vec![], vec![]);
    for (index, volume) in pod.volumes().iter().enumerate() {
        if let Some(kind) = volume.restricted_kind() {
            names.push(&*volume.name);
            kinds.push(kind);
            fixes.push(|| match kind {
                UNKNOWN => Path::volume(index, "emptyDir").set("{}"),
                kind => Path::volume(index, kind).remove(),
            });
        }
    }
    if names.is_empty() {
        return None;
    }
    let kinds = set(kinds);
    let (noun, uses) = (plural(names.len(), "volume", "volumes"), plural(names.len(), "uses", "use"));
    let types = plural(kinds.len(), "restricted volume type", "restricted volume types");
    let detail = format!("{noun} {} {uses} {types} {}", quoted(&names), quoted(&kinds));
    Some(check.violation("restricted volume types", detail))
}
