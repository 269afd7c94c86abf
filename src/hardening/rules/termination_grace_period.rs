//! Pods stop within a time.

use rampart_pss::Path;

use super::{About, Complaint, Part, Pod, Rule};
use crate::api;

pub(super) static ABOUT: About = About {
    id: "terminationGracePeriod",
    title: "Pods stop within a time",
    windows: true,
    depends_on: None,
    values: None,
};

const FIELD: &str = "terminationGracePeriodSeconds";
/// What the API server sets where it is absent (`SetDefaults_PodSpec`), in seconds.
const DEFAULT: i64 = 30;

/// The longest, in seconds.
#[derive(Debug)]
struct Longest(i64);

pub(super) fn parse(wire: &api::Rules) -> Option<Box<dyn Rule>> {
    let seconds = wire.termination_grace_period.as_ref()?.max.get().as_secs();
    Some(Box::new(Longest(i64::try_from(seconds).unwrap_or(i64::MAX))))
}

impl Longest {
    fn wanted(&self) -> String {
        format!(", at most {}", self.0)
    }
}

impl Rule for Longest {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let seconds = pod.spec().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(DEFAULT);
        let text = format!("pod must not set {FIELD} to {seconds}{}", self.wanted());
        if seconds > self.0 { vec![Complaint::pod(text, Path::spec(FIELD))] } else { vec![] }
    }

    fn form(&self) -> Vec<Part> {
        let seconds = format!("object.spec.?{FIELD}.orValue({DEFAULT})");
        let text = format!("'pod must not set {FIELD} to ' + string({seconds}) + '{}'", self.wanted());
        vec![Part::pod(format!("{seconds} > {}", self.0), text)]
    }
}
