//! Pods have volumes of listed types only.

use rampart_pss::{Values, values};

use super::{About, Complaint, INJECTED, Part, Pod, Rule, pod::ROOT_CERTIFICATES, told_or_none};
use crate::{
    api::{self, Invalid},
    hardening::{
        cel::{string, strings},
        value::volume_in_cel,
    },
};

pub(super) static ABOUT: About = About {
    id: "volumes.allow",
    title: "Pods have volumes of listed types only",
    windows: true,
    depends_on: None,
    values: Some(Values::Volume),
};

#[derive(Debug)]
struct Allow(Vec<String>);

pub(super) fn parse(wire: &api::Rules) -> Result<Option<Box<dyn Rule>>, Invalid> {
    let Some(allow) = wire.volumes.as_ref().and_then(|volumes| volumes.allow.as_ref()) else { return Ok(None) };
    if let Some((index, unknown)) = allow.iter().enumerate().find(|(_, kind)| !types().any(|known| known == **kind)) {
        let known = types().collect::<Vec<_>>().join(", ");
        let problem = format!("{unknown:?} is no type of volume: use one of {known}");
        return Err(Invalid::at(format!("spec.hardening.rules.volumes.allow[{index}]"), problem));
    }
    Ok(Some(Box::new(Allow(allow.clone()))))
}

/// Every type of volume that Kubernetes has.
pub(in crate::hardening) fn types() -> impl Iterator<Item = &'static str> {
    values::VOLUMES_RESTRICTED.into_iter().chain(values::VOLUMES_REFUSED)
}

impl Allow {
    fn wanted(&self) -> String {
        format!(", allowed types: {}", told_or_none(&self.0))
    }
}

impl Rule for Allow {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        pod.volumes()
            .filter(|(_, volume)| !self.0.iter().any(|kind| volume.is(kind)))
            .filter(|(_, volume)| !(volume.name().starts_with(INJECTED) && volume.is_access_to_the_api()))
            .map(|(index, volume)| {
                let kind = types().find(|kind| volume.is(kind)).unwrap_or(values::VOLUME_UNKNOWN);
                Complaint::volume(index, volume, kind, &format!("is of the type {kind}{}", self.wanted()))
                    .of_value(values::volume_excepted_as(volume.host_path(), kind))
            })
            .collect()
    }

    fn form(&self) -> Vec<Part> {
        let mut good = vec![format!(
            "c.name.startsWith('{INJECTED}') && has(c.projected) && c.projected.?sources.orValue([]).all(s, \
             has(s.serviceAccountToken) || has(s.downwardAPI) || s.?configMap.?name.orValue('') in {})",
            strings(ROOT_CERTIFICATES)
        )];
        good.extend(self.0.iter().map(|kind| format!("has(c.{kind})")));
        let kind = types().map(|kind| format!("has(c.{kind}) ? '{kind}' : ")).collect::<Vec<_>>().concat();
        let kind = kind + &string(values::VOLUME_UNKNOWN);
        let text = format!("'is of the type ' + ({kind}) + {}", string(&self.wanted()));
        let value = volume_in_cel("c", &kind);
        vec![Part::volumes(format!("!({})", good.join(" || ")), text).of_value(&value)]
    }
}
