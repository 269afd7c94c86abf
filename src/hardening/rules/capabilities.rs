//! Containers add no capability but those of a list.

use super::{About, CONTAINERS, Complaint, Part, Pod, Rule, told_or_none};
use crate::{
    api,
    hardening::cel::{string, strings},
};

pub(super) static ABOUT: About = About {
    id: "capabilities.allowAdd",
    title: "Containers add no capability but those of a list",
    windows: false,
    depends_on: None,
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
        let complaint = |it: super::Placed<'_>| {
            let bad: Vec<&str> = it.container.added().filter(|name| !self.0.iter().any(|ok| ok == name)).collect();
            let text = format!("must not include {}{}", bad.join(", "), self.wanted());
            (!bad.is_empty()).then(|| Complaint::container(it, "securityContext.capabilities.add", &text))
        };
        pod.containers().filter_map(complaint).collect()
    }

    fn form(&self) -> Vec<Part> {
        let (added, bad) =
            ("c.?securityContext.?capabilities.?add.orValue([])", format!("!(n in {})", strings(&self.0)));
        let text = format!(
            "'must not include ' + {added}.filter(n, {bad}).map(n, string(n)).join(', ') + {}",
            string(&self.wanted())
        );
        vec![Part::containers(CONTAINERS, format!("{added}.exists(n, {bad})"), text)]
    }
}
