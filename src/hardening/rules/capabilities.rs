//! Containers add no capability but those of a list.

use rampart_pss::Values;

use super::{About, Complaint, Part, Pod, Rule, told_or_none};
use crate::{
    api,
    hardening::cel::{string, strings},
};

pub(super) static ABOUT: About = About {
    id: "capabilities.allowAdd",
    title: "Containers add no capability but those of a list",
    windows: false,
    depends_on: None,
    values: Some(Values::Capability),
};

#[derive(Debug)]
struct AllowAdd(Vec<String>);

pub(super) fn parse(wire: &api::Rules) -> Option<Box<dyn Rule>> {
    let rule = wire.capabilities.as_ref()?;
    Some(Box::new(AllowAdd(rule.allow_add.clone())))
}

impl AllowAdd {
    fn wanted(&self) -> String {
        format!(" in securityContext.capabilities.add, allowed: {}", told_or_none(&self.0))
    }
}

impl Rule for AllowAdd {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let added = pod.containers().flat_map(|it| it.container.added().enumerate().map(move |added| (it, added)));
        added
            .filter(|(_, (_, name))| !self.0.iter().any(|ok| ok == name))
            .map(|(it, (place, name))| {
                let text = format!("must not include {name}{}", self.wanted());
                let field = format!("securityContext.capabilities.add[{place}]");
                Complaint::container(it, field, &text).of_value(name)
            })
            .collect()
    }

    fn form(&self) -> Vec<Part> {
        vec![Part::Values {
            list: "c.?securityContext.?capabilities.?add.orValue([])",
            value: "string(n)",
            bad: format!("!(n in {})", strings(&self.0)),
            text: format!("'must not include ' + n + {}", string(&self.wanted())),
        }]
    }
}
