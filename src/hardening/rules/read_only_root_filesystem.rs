//! Containers can't write to their own root filesystem.

use super::{About, Complaint, LASTING, Part, Pod, Rule};
use crate::api;

pub(super) static ABOUT: About = About {
    id: "readOnlyRootFilesystem",
    title: "Containers run with a read-only root filesystem",
    windows: false,
    depends_on: None,
    values: None,
};

const FIELD: &str = "securityContext.readOnlyRootFilesystem";
const TEXT: &str = "must set securityContext.readOnlyRootFilesystem=true";

#[derive(Debug)]
struct ReadOnly;

pub(super) fn parse(wire: &api::Rules) -> Option<Box<dyn Rule>> {
    wire.read_only_root_filesystem.map(|_| Box::new(ReadOnly) as Box<dyn Rule>)
}

impl Rule for ReadOnly {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let is_read_only = |context: &super::pod::Context| context.read_only_root_filesystem == Some(true);
        pod.lasting()
            .filter(|it| !it.context().is_some_and(is_read_only))
            .map(|it| Complaint::container(it, FIELD, TEXT).fixed_by("true"))
            .collect()
    }

    fn form(&self) -> Vec<Part> {
        let bad = "!c.?securityContext.?readOnlyRootFilesystem.orValue(false)";
        vec![Part::containers(LASTING, bad, format!("'{TEXT}'"))]
    }
}
