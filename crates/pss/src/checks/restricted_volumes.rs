//! A pod mounts only kinds of volumes that do not reach into its node.

use crate::{
    Level, Path, Violation,
    check::{Check, Values},
    text::{named, push_named, set},
    view::{Fixes, View},
    volume::{UNKNOWN, Volume, excepted_as},
};

pub(crate) static CHECK: Check = Check {
    id: "restrictedVolumes",
    level: Level::Restricted,
    overrides: &["hostPathVolumes"],
    since: &[(0, decide)],
    exempt: None,
    values: Some(Values::Volume),
};

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let kind = |volume: &Volume<'_>| {
        let kind = volume.restricted_kind()?;
        (!pod.excepts(excepted_as(volume.host_path(), kind))).then_some(kind)
    };
    let volumes = pod.volumes().iter().enumerate();
    let bad = volumes.filter_map(|(index, volume)| Some((index, &*volume.name, kind(volume)?)));
    let mut detail = named(("volume", "volumes"), bad.clone().map(|(_, name, _)| name))?;
    detail.push_str(if bad.clone().nth(1).is_none() { " uses " } else { " use " });
    let kinds = set(bad.clone().map(|(.., kind)| kind));
    let nouns = ("restricted volume type", "restricted volume types");
    push_named(&mut detail, nouns, kinds.into_iter());
    fixes.extend(bad.map(|(index, _, kind)| match kind {
        UNKNOWN => Path::volume(index, "emptyDir").set("{}"),
        kind => Path::volume(index, kind).remove(),
    }));
    Some(check.violation("restricted volume types", detail))
}
