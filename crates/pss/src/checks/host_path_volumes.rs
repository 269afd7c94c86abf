//! A pod mounts no directory of its node.

use crate::{
    Level, Path, Violation,
    check::Check,
    text::named,
    view::{Fixes, View},
};

pub(crate) static CHECK: Check =
    Check { id: "hostPathVolumes", level: Level::Baseline, overrides: &[], since: &[(0, decide)], exempt: None };

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let bad = pod.volumes().iter().enumerate().filter(|(_, volume)| volume.is_host_path());
    let detail = named(("volume", "volumes"), bad.clone().map(|(_, volume)| &*volume.name))?;
    fixes.extend(bad.map(|(index, _)| Path::volume(index, "hostPath").remove()));
    Some(check.violation("hostPath volumes", detail))
}
