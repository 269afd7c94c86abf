//! Pods mount listed directories of their node only, read-only where that is asked.

use rampart_pss::Values;

use super::{About, Complaint, Part, Pod, Rule, told_or_none};
use crate::{
    api::{self, Invalid, rules::HostPath},
    hardening::{cel::string, directory::Directory},
};

pub(super) static ABOUT: About = About {
    id: "volumes.hostPaths",
    title: "Pods mount listed directories of their node only",
    windows: true,
    depends_on: None,
    values: Some(Values::Directory),
};

#[derive(Debug)]
struct HostPaths(Vec<Allowed>);

#[derive(Debug)]
struct Allowed {
    directory: Directory,
    read_only: bool,
}

pub(super) fn parse(wire: &api::Rules) -> Result<Option<Box<dyn Rule>>, Invalid> {
    let Some(paths) = wire.volumes.as_ref().and_then(|volumes| volumes.host_paths.as_ref()) else { return Ok(None) };
    let allowed = |(index, path): (usize, &HostPath)| {
        let at = || format!("spec.hardening.rules.volumes.hostPaths[{index}].prefix");
        let directory = Directory::parse(&path.prefix).map_err(|problem| Invalid::at(at(), problem))?;
        Ok(Allowed { directory, read_only: path.read_only == Some(true) })
    };
    let allowed = paths.iter().enumerate().map(allowed).collect::<Result<_, Invalid>>()?;
    Ok(Some(Box::new(HostPaths(allowed))))
}

impl HostPaths {
    fn wanted(&self) -> String {
        let directory = |it: &Allowed| format!("{}{}", it.directory, if it.read_only { " read-only" } else { "" });
        let told = told_or_none(self.0.iter().map(directory));
        format!(", allowed: {told}")
    }
}

impl Rule for HostPaths {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let refused = |name: &str, path: &str| {
            let writable = pod.is_mounted_writable(name);
            !self.0.iter().any(|it| it.directory.holds(path) && !(it.read_only && writable))
        };
        pod.volumes()
            .filter_map(|(index, volume)| Some((index, volume, volume.host_path()?)))
            .filter(|(_, volume, path)| refused(volume.name(), path))
            .map(|(index, volume, path)| {
                let text = format!("must not show the node's {path}{}", self.wanted());
                Complaint::volume(index, volume, "hostPath", &text).of_value(path)
            })
            .collect()
    }

    fn form(&self) -> Vec<Part> {
        let path = "c.hostPath.path";
        let writable = "variables.every.exists(k, k.?volumeMounts.orValue([]).exists(m, m.name == c.name && \
                        !m.?readOnly.orValue(false)))";
        let good = |it: &Allowed| {
            let held = it.directory.holds_in_cel(path);
            if it.read_only { format!("{held} && !{writable}") } else { held }
        };
        let good: Vec<String> = self.0.iter().map(good).chain(["false".into()]).collect();
        let bad = format!("has(c.hostPath) && !({})", good.join(" || "));
        let text = format!("'must not show the node\\'s ' + {path} + {}", string(&self.wanted()));
        vec![Part::volumes(bad, text).of_value(path)]
    }
}
