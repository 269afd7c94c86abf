//! A pod mounts no directory of its node.

use crate::{
    Level, Path, Violation,
    check::{Check, Values},
    text::named,
    view::{Fixes, View},
    volume::Volume,
};

pub(crate) static CHECK: Check = Check {
    id: "hostPathVolumes",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide)],
    exempt: None,
    values: Some(Values::Directory),
};

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let is_bad = |volume: &Volume<'_>| volume.host_path().is_some_and(|path| !pod.excepts(path));
    let bad = pod.volumes().iter().enumerate().filter(|(_, volume)| is_bad(volume));
    let detail = named(("volume", "volumes"), bad.clone().map(|(_, volume)| &*volume.name))?;
    fixes.extend(bad.map(|(index, _)| Path::volume(index, "hostPath").remove()));
    Some(check.violation("hostPath volumes", detail))
}
