//! Pods mount listed directories of their node only, read-only where that is asked.

use super::{About, Complaint, Part, Pod, Rule, told_or_none};
use crate::{
    api::{self, Invalid, rules::HostPath},
    hardening::cel::string,
};

pub(super) static ABOUT: About = About {
    id: "volumes.hostPaths",
    title: "Pods mount listed directories of their node only",
    windows: true,
    depends_on: None,
};

#[derive(Debug)]
struct HostPaths(Vec<Directory>);

#[derive(Debug)]
struct Directory {
    /// Without a slash at the end; empty for the root.
    path: String,
    read_only: bool,
}

pub(super) fn parse(wire: &api::Rules) -> Result<Option<Box<dyn Rule>>, Invalid> {
    let Some(paths) = wire.volumes.as_ref().and_then(|volumes| volumes.host_paths.as_ref()) else { return Ok(None) };
    let directory = |(index, path): (usize, &HostPath)| {
        let at = || format!("spec.hardening.rules.volumes.hostPaths[{index}].prefix");
        if !path.prefix.starts_with('/') || path.prefix.split('/').any(|step| step == ".." || step == ".") {
            return Err(Invalid::at(at(), format!("{:?} must be an absolute path without . and ..", path.prefix)));
        }
        let read_only = path.read_only == Some(true);
        Ok(Directory { path: path.prefix.trim_end_matches('/').into(), read_only })
    };
    let directories = paths.iter().enumerate().map(directory).collect::<Result<_, _>>()?;
    Ok(Some(Box::new(HostPaths(directories))))
}

impl Directory {
    fn holds(&self, path: &str) -> bool {
        let below = path.strip_prefix(&self.path);
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }
}

impl HostPaths {
    fn wanted(&self) -> String {
        let directory = |it: &Directory| {
            let path = if it.path.is_empty() { "/" } else { &it.path };
            if it.read_only { format!("{path} read-only") } else { path.into() }
        };
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
            path.contains("..") || !self.0.iter().any(|it| it.holds(path) && !(it.read_only && writable))
        };
        pod.volumes()
            .filter_map(|(index, volume)| Some((index, volume, volume.host_path()?)))
            .filter(|(_, volume, path)| refused(volume.name(), path))
            .map(|(index, volume, path)| {
                let text = format!("must not show the node's {path}{}", self.wanted());
                Complaint::volume(index, volume, "hostPath", &text)
            })
            .collect()
    }

    fn form(&self) -> Vec<Part> {
        let path = "c.hostPath.path";
        let writable = "variables.every.exists(k, k.?volumeMounts.orValue([]).exists(m, m.name == c.name && \
                        !m.?readOnly.orValue(false)))";
        let good = |it: &Directory| {
            let below = string(&format!("{}/", it.path));
            let held = format!("({path} == {} || {path}.startsWith({below}))", string(&it.path));
            if it.read_only { format!("{held} && !{writable}") } else { held }
        };
        let mut good: Vec<String> = self.0.iter().map(good).collect();
        good.push("false".into());
        let bad = format!("has(c.hostPath) && ({path}.contains('..') || !({}))", good.join(" || "));
        let text = format!("'must not show the node\\'s ' + {path} + {}", string(&self.wanted()));
        vec![Part::volumes(bad, text)]
    }
}
