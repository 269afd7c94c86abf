//! Only local seccomp profiles of a list are used.

use rampart_pss::Path;

use super::{About, CONTAINERS, Complaint, Part, Pod, Rule, pod::Profile, told_or_none};
use crate::{
    api,
    hardening::cel::{string, strings},
};

pub(super) static ABOUT: About = About {
    id: "seccomp.localhostProfiles",
    title: "Only local seccomp profiles of a list are used",
    windows: false,
    depends_on: None,
    values: None,
};

#[derive(Debug)]
struct LocalProfiles(Vec<String>);

const FIELD: &str = "securityContext.seccompProfile.localhostProfile";

pub(super) fn parse(wire: &api::Rules) -> Option<Box<dyn Rule>> {
    let rule = wire.seccomp.as_ref()?;
    Some(Box::new(LocalProfiles(rule.localhost_profiles.clone())))
}

impl LocalProfiles {
    /// The local profile, where it is not of the list.
    fn refused<'p>(&self, profile: Option<&'p Profile>) -> Option<&'p str> {
        let profile = profile.filter(|profile| profile.kind.as_deref() == Some("Localhost"))?;
        let name = profile.localhost_profile.as_deref().unwrap_or_default();
        (!self.0.iter().any(|ok| ok == name)).then_some(name)
    }

    fn wanted(&self) -> String {
        format!(", allowed: {}", told_or_none(&self.0))
    }
}

impl Rule for LocalProfiles {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let text = |found: &str| format!("must not set {FIELD} to {found}{}", self.wanted());
        let of_pod = self.refused(pod.context().and_then(|context| context.seccomp_profile.as_ref()));
        let of_containers = pod.containers().filter_map(|it| {
            let context = it.context();
            let found = self.refused(context.and_then(|context| context.seccomp_profile.as_ref()))?;
            Some(Complaint::container(it, FIELD, &text(found)))
        });
        let of_pod = of_pod.map(|found| Complaint::pod(format!("pod {}", text(found)), Path::spec(FIELD)));
        of_pod.into_iter().chain(of_containers).collect()
    }

    fn form(&self) -> Vec<Part> {
        let profile = |of: &str, field: &str| format!("{of}.?securityContext.?seccompProfile.?{field}.orValue('')");
        let bad = |of: &str| {
            let name = profile(of, "localhostProfile");
            format!("({} == 'Localhost' && !({name} in {}))", profile(of, "type"), strings(&self.0))
        };
        let text = |of: &str| {
            format!("'must not set {FIELD} to ' + {} + {}", profile(of, "localhostProfile"), string(&self.wanted()))
        };
        vec![
            Part::pod(bad("object.spec"), format!("'pod ' + {}", text("object.spec"))),
            Part::containers(CONTAINERS, bad("c"), text("c")),
        ]
    }
}
