//! Pods mount no service account token, or say that they do.

use rampart_pss::Path;

use super::{About, Complaint, INJECTED, Part, Pod, Rule};
use crate::api::{self, rules::ServiceAccountToken};

pub(super) static ABOUT: About = About {
    id: "serviceAccountToken",
    title: "Pods mount no service account token, or say that they do",
    windows: true,
    depends_on: None,
    values: None,
};

const FIELD: &str = "automountServiceAccountToken";
const FORBIDDEN: &str = "pod must set automountServiceAccountToken=false";
const EXPLICIT: &str = "pod must set automountServiceAccountToken to true or false";
const PROJECTED: &str = "must not project a serviceAccountToken";

#[derive(Debug)]
struct Token(ServiceAccountToken);

pub(super) fn parse(wire: &api::Rules) -> Option<Box<dyn Rule>> {
    wire.service_account_token.map(|asked| Box::new(Token(asked)) as Box<dyn Rule>)
}

impl Rule for Token {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let said = pod.spec().and_then(|spec| spec.automount_service_account_token);
        let of_pod = |text: &str| Complaint::pod(text, Path::spec(FIELD));
        match self.0 {
            ServiceAccountToken::Explicit => said.is_none().then(|| of_pod(EXPLICIT)).into_iter().collect(),
            ServiceAccountToken::Forbidden => {
                let mounted = said != Some(false);
                let mounts = mounted.then(|| of_pod(FORBIDDEN).fixed_by("false"));
                // What follows from the first is not told twice.
                let follows = |name: &str| mounted && name.starts_with(INJECTED);
                let projected = pod.volumes().filter(|(_, volume)| volume.has_token() && !follows(volume.name()));
                let projected =
                    projected.map(|(index, volume)| Complaint::volume(index, volume, "projected", PROJECTED));
                mounts.into_iter().chain(projected).collect()
            }
        }
    }

    fn form(&self) -> Vec<Part> {
        match self.0 {
            ServiceAccountToken::Explicit => {
                vec![Part::pod(format!("!has(object.spec.{FIELD})"), format!("'{EXPLICIT}'"))]
            }
            ServiceAccountToken::Forbidden => vec![
                Part::pod(format!("object.spec.?{FIELD}.orValue(true)"), format!("'{FORBIDDEN}'")),
                Part::volumes(
                    format!(
                        "c.?projected.?sources.orValue([]).exists(s, has(s.serviceAccountToken)) && \
                         !(object.spec.?{FIELD}.orValue(true) && c.name.startsWith('{INJECTED}'))"
                    ),
                    format!("'{PROJECTED}'"),
                ),
            ],
        }
    }
}
