//! Which objects hold a pod, and where.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Operation, Request};
use crate::hardening::Subject;

/// An object that holds a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A pod, or a subresource that changes one.
    Pod,
    /// An object with a pod template: where the template stands.
    Template(&'static [&'static str]),
}

const AT_SPEC: &[&str] = &["spec", "template"];
const AT_ROOT: &[&str] = &["template"];
const AT_JOB: &[&str] = &["spec", "jobTemplate", "spec", "template"];

/// Subresources of pods that change what runs in them. Every other one is left alone.
const POD_SUBRESOURCES: [&str; 2] = ["ephemeralcontainers", "resize"];

/// Kinds with a pod template: group, kind, plural, and where the template stands.
pub(super) const TEMPLATES: [(&str, &str, &str, &[&str]); 8] = [
    ("", "PodTemplate", "podtemplates", AT_ROOT),
    ("", "ReplicationController", "replicationcontrollers", AT_SPEC),
    ("apps", "ReplicaSet", "replicasets", AT_SPEC),
    ("apps", "Deployment", "deployments", AT_SPEC),
    ("apps", "StatefulSet", "statefulsets", AT_SPEC),
    ("apps", "DaemonSet", "daemonsets", AT_SPEC),
    ("batch", "Job", "jobs", AT_SPEC),
    ("batch", "CronJob", "cronjobs", AT_JOB),
];

/// Where the pod of a kind stands in its objects: nowhere else than at the root for a Pod; `None` for a
/// kind without pods.
#[must_use]
pub fn template_path(group: &str, kind: &str) -> Option<&'static [&'static str]> {
    if (group, kind) == ("", "Pod") {
        return Some(&[]);
    }
    let template = TEMPLATES.iter().find(|(of_group, of_kind, ..)| (*of_group, *of_kind) == (group, kind));
    template.map(|(.., path)| *path)
}

impl Target {
    /// What a request is about, or `None` when it is nothing to judge.
    #[must_use]
    pub fn of(request: &Request<'_>) -> Option<Self> {
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return None;
        }
        let (group, kind) = (&*request.kind.group, &*request.kind.kind);
        let subresource = request.sub_resource.as_deref().unwrap_or_default();
        if (group, kind) == ("", "Pod") {
            return (subresource.is_empty() || POD_SUBRESOURCES.contains(&subresource)).then_some(Self::Pod);
        }
        template_path(group, kind).filter(|_| subresource.is_empty()).map(Self::Template)
    }

    /// How it is judged.
    #[must_use]
    pub const fn subject(self) -> Subject {
        match self {
            Self::Pod => Subject::Pod,
            Self::Template(_) => Subject::Template,
        }
    }

    /// The pod in an object, or `None` where the object has no template.
    ///
    /// # Errors
    /// When the JSON has not the shape of the kind.
    pub fn pod<'a, P: Deserialize<'a>>(self, object: &'a str) -> serde_json::Result<Option<P>> {
        match self {
            Self::Pod => serde_json::from_str(object).map(Some),
            Self::Template(path) => {
                let mut found = Some(object);
                for key in path {
                    found = match found {
                        Some(text) => field(text, key)?,
                        None => None,
                    };
                }
                found.map(serde_json::from_str).transpose()
            }
        }
    }
}

/// The text of one field of a JSON object.
fn field<'a>(object: &'a str, key: &str) -> serde_json::Result<Option<&'a str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Step<'a> {
        #[serde(borrow, default)]
        spec: Option<&'a RawValue>,
        #[serde(borrow, default)]
        template: Option<&'a RawValue>,
        #[serde(borrow, default)]
        job_template: Option<&'a RawValue>,
    }
    let step: Step<'a> = serde_json::from_str(object)?;
    let found = match key {
        "spec" => step.spec,
        "template" => step.template,
        _ => step.job_template,
    };
    Ok(found.map(RawValue::get))
}
