//! Every container runs under AppArmor: the profile of the runtime, or a local one of a list.

use super::{About, CONTAINERS, Complaint, Part, Pod, Rule, pod::Profile};
use crate::{
    api,
    hardening::cel::{string, strings},
};

pub(super) static ABOUT: About = About {
    id: "appArmor",
    title: "Containers run under an AppArmor profile",
    windows: false,
    depends_on: None,
    values: None,
};

const FIELD: &str = "securityContext.appArmorProfile";

/// The local profiles that may be used.
#[derive(Debug)]
struct Confined(Vec<String>);

pub(super) fn parse(wire: &api::Rules) -> Option<Box<dyn Rule>> {
    let rule = wire.app_armor.as_ref()?;
    Some(Box::new(Confined(rule.localhost_profiles.clone())))
}

impl Confined {
    fn accepts(&self, profile: Option<&Profile>) -> bool {
        let name = |profile: &Profile| profile.localhost_profile.clone().unwrap_or_default();
        profile.is_some_and(|profile| match profile.kind.as_deref() {
            Some("RuntimeDefault") => true,
            Some("Localhost") => self.0.contains(&name(profile)),
            _ => false,
        })
    }

    fn text(&self) -> String {
        let locals = self.0.iter().map(|name| format!(" or Localhost {name}")).collect::<Vec<_>>().concat();
        format!("must set {FIELD} to RuntimeDefault{locals}")
    }
}

impl Rule for Confined {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let of_pod = pod.context().and_then(|context| context.app_armor_profile.as_ref());
        let effective = |it: &super::Placed<'_>| {
            let context = it.context();
            self.accepts(context.and_then(|context| context.app_armor_profile.as_ref()).or(of_pod))
        };
        pod.containers()
            .filter(|it| !effective(it))
            .map(|it| Complaint::container(it, FIELD, &self.text()).fixed_by(r#"{"type":"RuntimeDefault"}"#))
            .collect()
    }

    fn form(&self) -> Vec<Part> {
        let profile = "c.?securityContext.?appArmorProfile.or(object.spec.?securityContext.?appArmorProfile)";
        let of = |field: &str| format!("{profile}.?{field}.orValue('')");
        let (kind, name) = (of("type"), of("localhostProfile"));
        let good = format!("{kind} == 'RuntimeDefault' || {kind} == 'Localhost' && {name} in {}", strings(&self.0));
        vec![Part::containers(CONTAINERS, format!("!({good})"), string(&self.text()))]
    }
}
