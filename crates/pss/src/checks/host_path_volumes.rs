//! A pod mounts no directory of its node.

use crate::{
    Level, Path, Violation,
    check::Check,
    text::{plural, quoted},
    view::{Fixes, View},
};

pub(crate) static CHECK: Check =
    Check { id: "hostPathVolumes", level: Level::Baseline, overrides: &[], since: &[(0, decide)], exempt: None };

fn decide(check: &'static Check, pod: &View<'_, '_>, fixes: &mut Fixes) -> Option<Violation> {
    let mut names = vec![];
    for (index, volume) in pod.volumes().iter().enumerate().filter(|(_, volume)| volume.is_host_path()) {
        names.push(&*volume.name);
        fixes.push(|| Path::volume(index, "hostPath").remove());
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} {}", plural(names.len(), "volume", "volumes"), quoted(&names));
    Some(check.violation("hostPath volumes", detail))
}
