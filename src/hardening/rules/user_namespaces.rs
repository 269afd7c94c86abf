//! Every pod has a user namespace of its own (KEP-127).

use rampart_pss::Path;

use super::{About, Complaint, Part, Pod, Rule};
use crate::api;

pub(super) static ABOUT: About = About {
    id: "userNamespaces",
    title: "Pods have a user namespace of their own",
    windows: false,
    depends_on: None,
    values: None,
};

const TEXT: &str = "pod must set hostUsers=false";

#[derive(Debug)]
struct OwnUsers;

pub(super) fn parse(wire: &api::Rules) -> Option<Box<dyn Rule>> {
    wire.user_namespaces.map(|_| Box::new(OwnUsers) as Box<dyn Rule>)
}

impl Rule for OwnUsers {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        if pod.spec().and_then(|spec| spec.host_users) == Some(false) {
            return vec![];
        }
        let complaint = Complaint::pod(TEXT, Path::spec("hostUsers"));
        // The API server takes no pod that has both.
        let is_refused = pod.shares_host_namespaces() || pod.has_volume_devices();
        vec![if is_refused { complaint } else { complaint.fixed_by("false") }]
    }

    fn form(&self) -> Vec<Part> {
        vec![Part::pod("object.spec.?hostUsers.orValue(true)", format!("'{TEXT}'"))]
    }
}
