//! Jobs at the steps of a rotation: one a key, version and step, by its name.

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{CONFLICTED, Spec};
use crate::api::{ApiKeyStatus, Hook, VersionState, condition::FEATURE_DISABLED};

/// The step that a Job belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobStep {
    /// Before a version is made.
    PreRotate,
    /// Before it is handed out.
    Test,
    /// When consumers have it.
    PostPromote,
    /// Before it goes.
    Destroy,
}

impl JobStep {
    /// Its name, as in the name of the Job.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreRotate => "pre",
            Self::Test => "test",
            Self::PostPromote => "post",
            Self::Destroy => "destroy",
        }
    }
}

/// A Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyJob {
    /// What it is for.
    pub step: JobStep,
    /// Number of the version.
    pub n: i64,
    /// Public id of its key; empty before there is one.
    pub id: String,
    /// Tells tries apart; the first is 0.
    pub attempt: i64,
}

/// The longest name that a pod's label can carry.
const LONGEST: usize = 63;

impl KeyJob {
    /// Its name: the same for whoever asks, so that it runs once, and never that of a Job of another key. Before there is an id
    /// the ApiKey's own UID tells it from Jobs that one of its name left, which was deleted.
    #[must_use]
    pub fn name(&self, spec: &Spec) -> String {
        let mut name = format!("{}-v{}", spec.name, self.n);
        let attempt = if self.attempt == 0 { String::new() } else { self.attempt.to_string() };
        let uid = spec.uid.get(..8).unwrap_or(&spec.uid);
        let id = if self.id.is_empty() { uid } else { &self.id };
        for part in [id, self.step.as_str(), &attempt] {
            if !part.is_empty() {
                name.push('-');
                name.push_str(part);
            }
        }
        if name.len() > LONGEST {
            let digest = hex::encode(Sha256::digest(&name));
            name.truncate(LONGEST - 9);
            let kept = name.trim_end_matches('-').to_owned();
            name = format!("{kept}-{}", digest.get(..8).unwrap_or_default());
        }
        name
    }
}

/// How a Job fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobSeen {
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Failed.
    Failed,
    /// Not there, and it can't be made.
    Impossible(HookProblem),
}

/// Why a Job can't be run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HookProblem {
    /// No such CronJob.
    #[error("there is no CronJob {0} in this namespace: create it, suspended, or take the hook out of spec.hooks")]
    NotFound(String),
    /// Its owner did not agree.
    #[error("CronJob {0} is no hook: give it the annotation rampart.dev/key-hook: \"true\"")]
    NotAnnotated(String),
    /// It would run by itself.
    #[error("CronJob {0} is not suspended, so it runs by itself: set its spec.suspend to true")]
    NotSuspended(String),
    /// The operator may not read it.
    #[error(
        "CronJob {0} can't be read: the operator has no right to, so hooks are switched off: set features.apiKeyHooks \
         of the chart to true, or take the hook out of spec.hooks"
    )]
    Forbidden(String),
    /// A Job of its name was made by somebody else.
    #[error("Job {0} exists and was not made for this key: delete it")]
    ForeignJob(String),
}

impl HookProblem {
    /// Stable name.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "HookNotFound",
            Self::NotAnnotated(_) | Self::NotSuspended(_) => "HookNotPermitted",
            Self::Forbidden(_) => FEATURE_DISABLED,
            Self::ForeignJob(_) => CONFLICTED,
        }
    }
}

/// The hook of a step, if one is asked for.
#[must_use]
pub fn hook_of(spec: &Spec, step: JobStep) -> Option<&Hook> {
    match step {
        JobStep::PreRotate => spec.hooks.pre_rotate.as_ref(),
        JobStep::Test => spec.hooks.test.as_ref(),
        JobStep::PostPromote => spec.hooks.post_promote.as_ref(),
        JobStep::Destroy => spec.hooks.destroy.as_ref(),
    }
}

/// The Job that the version under way comes to next, given the id of its key where it has one.
#[must_use]
pub fn job_under_way(status: &ApiKeyStatus, pending: Option<&str>) -> Option<KeyJob> {
    let n = status.next_version?;
    let promoted = status.versions.iter().find(|version| version.n == n);
    let (step, id) = match (promoted, pending) {
        (Some(version), _) => (JobStep::PostPromote, version.id.as_str()),
        (None, Some(id)) => (JobStep::Test, id),
        (None, None) => (JobStep::PreRotate, ""),
    };
    Some(KeyJob { step, n, id: id.into(), attempt: status.failed_attempts.unwrap_or_default().into() })
}

/// Whether there is a Job at a step: a hook, or the built-in test, which knows keys of our own alone.
#[must_use]
pub fn has_job(spec: &Spec, step: JobStep) -> bool {
    hook_of(spec, step).is_some() || (step == JobStep::Test && spec.imported.is_none())
}

/// The Jobs that the machine may ask about, given the id of the version that is being made.
#[must_use]
pub fn jobs_that_matter(spec: &Spec, status: &ApiKeyStatus, pending: Option<&str>) -> Vec<KeyJob> {
    let is_run = |job: &KeyJob| has_job(spec, job.step);
    let mut jobs: Vec<KeyJob> = job_under_way(status, pending).filter(is_run).into_iter().collect();
    if spec.hooks.destroy.is_some() {
        let leaving = status.versions.iter().filter(|version| version.state == VersionState::Deprecated);
        jobs.extend(leaving.filter_map(|version| {
            // Each time that it is put off there is another Job.
            let attempt = version.destroy_at.as_ref()?.0.as_second();
            Some(KeyJob { step: JobStep::Destroy, n: version.n, id: version.id.clone(), attempt })
        }));
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::ApiKey, keys::Caps};

    #[test]
    fn names_differ_by_everything_and_fit_into_a_label() {
        let named = |name: &str| {
            let key: ApiKey = serde_json::from_value(serde_json::json!({
                "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": name, "namespace": "n"},
                "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "prefix": "ab",
                         "secret": {"name": "s"}},
            }))
            .unwrap();
            Spec::parse(&key, &Caps::default()).unwrap()
        };
        let job = |step, id: &str, attempt| KeyJob { step, n: 12, id: id.into(), attempt };
        let spec = named("orders");
        assert_eq!(job(JobStep::Test, "0123abcd", 0).name(&spec), "orders-v12-0123abcd-test");
        assert_eq!(job(JobStep::Test, "0123abcd", 3).name(&spec), "orders-v12-0123abcd-test-3");
        assert_eq!(job(JobStep::PreRotate, "", 0).name(&spec), "orders-v12-pre");
        let of = |uid: &str| Spec { uid: uid.into(), ..spec.clone() };
        let made = of("67e55044-10b1-426f-9247-bb680e5fe0c8");
        assert_eq!(job(JobStep::PreRotate, "", 0).name(&made), "orders-v12-67e55044-pre");
        let anew = job(JobStep::PreRotate, "", 0).name(&of("f9168c5e-ceb2-4faa-b6bf-329bf39fa1e4"));
        assert_eq!(anew, "orders-v12-f9168c5e-pre", "the Job of a deleted ApiKey of its name counts");
        assert_eq!(job(JobStep::Test, "0123abcd", 0).name(&made), "orders-v12-0123abcd-test");
        let long = named(&"a".repeat(40));
        let one = job(JobStep::Destroy, "0123abcd", 1_800_000_000).name(&long);
        let two = job(JobStep::Destroy, "0123abcd", 1_800_000_001).name(&long);
        assert!(one.len() <= LONGEST && two.len() <= LONGEST && one != two, "{one} {two}");
    }
}
