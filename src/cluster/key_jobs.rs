//! Jobs of a rotation: the built-in test, and hooks that are made from the user's own CronJobs.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::{Api, ResourceExt as _, api::PostParams};

use super::{
    Result,
    error::{call, found},
    key_store::KeyStore,
};
use crate::keys::{HookProblem, JobSeen, KeyJob, check_hook, hook_job, hook_of, selftest_job};

/// How a Job fares: nothing but its end is waited for.
#[must_use]
pub fn fares(job: &Job) -> JobSeen {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let has = |kind| conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True");
    match (has("Complete"), has("Failed")) {
        (_, true) => JobSeen::Failed,
        (true, false) => JobSeen::Succeeded,
        (false, false) => JobSeen::Running,
    }
}

/// The CronJob of a hook, or what stands in its way: that it may not be read, too, or nothing else of the key went on.
async fn read_hook(api: &Api<CronJob>, name: &str) -> Result<std::result::Result<CronJob, HookProblem>> {
    let read = call(|| format!("reading CronJob {name}"), api.get(name)).await;
    if matches!(&read, Err(error) if error.code() == Some(403)) {
        return Ok(Err(HookProblem::Forbidden(name.to_owned())));
    }
    Ok(match found(read)? {
        None => Err(HookProblem::NotFound(name.to_owned())),
        Some(cron) => check_hook(&cron).map(|()| cron),
    })
}

impl KeyStore<'_> {
    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.clone(), &self.spec.namespace)
    }

    /// How a Job fares; none where it was not made, and could be.
    pub(super) async fn job_seen(&self, job: &KeyJob) -> Result<Option<JobSeen>> {
        let name = job.name(self.spec);
        let Some(live) = found(call(|| format!("reading Job {name}"), self.jobs().get(&name)).await)? else {
            return Ok(self.hook(job).await?.and_then(std::result::Result::err).map(JobSeen::Impossible));
        };
        let ours = self.job_labels(job).iter().all(|(key, value)| live.labels().get(key) == Some(value));
        // Everything else about the key goes on.
        Ok(Some(if ours { fares(&live) } else { JobSeen::Impossible(HookProblem::ForeignJob(name)) }))
    }

    /// The CronJob that a Job is made from; none where it is the built-in test.
    async fn hook(&self, job: &KeyJob) -> Result<Option<std::result::Result<CronJob, HookProblem>>> {
        let Some(hook) = hook_of(self.spec, job.step) else { return Ok(None) };
        let api = Api::namespaced(self.client.clone(), &self.spec.namespace);
        read_hook(&api, &hook.cron_job_name).await.map(Some)
    }

    fn job_labels(&self, job: &KeyJob) -> std::collections::BTreeMap<String, String> {
        if job.id.is_empty() {
            let mut labels = self.version_labels(job.n, "");
            labels.remove(crate::api::labels::KEY_ID);
            return labels;
        }
        self.version_labels(job.n, &job.id)
    }

    /// Starts a Job, and returns whether it did: one that was started before stands.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn start_job(&self, job: &KeyJob, image: &str, verifier: Option<&str>) -> Result<bool> {
        let labels = self.job_labels(job);
        let made = match self.hook(job).await? {
            None => selftest_job(self.spec, job, (image, verifier), labels),
            Some(Ok(cron)) => hook_job(self.spec, job, &cron, labels),
            // Gone since it was looked at: the next look tells.
            Some(Err(_)) => return Ok(false),
        };
        let name = made.name_any();
        match call(|| format!("creating Job {name}"), self.jobs().create(&PostParams::default(), &made)).await {
            Err(error) if error.code() == Some(409) => Ok(false),
            created => created.map(|_| true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::client::tests::forbidden;

    #[tokio::test]
    async fn a_hook_that_may_not_be_read_is_a_problem_of_its_own() {
        let problem = read_hook(&Api::namespaced(forbidden(), "n"), "h").await.unwrap().unwrap_err();
        assert_eq!((problem.reason(), problem.to_string().contains("features.apiKeyHooks")), ("FeatureDisabled", true));
    }
}
