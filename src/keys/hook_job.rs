//! Hooks: a Job of the user's own, made from a suspended CronJob that agreed to it.
//!
//! Nothing of it comes from the ApiKey but the name of the CronJob: who may write ApiKeys may not thereby run pods
//! as anybody.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{CronJob, Job},
        core::v1::{Container, EnvVar, SecretVolumeSource, Volume, VolumeMount},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    Spec,
    jobs::{HookProblem, JobStep, KeyJob},
};
use crate::api::labels::KEY_HOOK;

/// Where the version's Secret is mounted.
pub const HOOK_MOUNT: &str = "/rampart/key";
const VOLUME: &str = "rampart-key";
const ID: &str = "RAMPART_KEY_ID";
const VERSION: &str = "RAMPART_KEY_VERSION";
/// How long a hook may take that does not say it.
const DEADLINE_SECONDS: i64 = 600;
/// How long a finished one is kept at the least.
const KEPT_SECONDS: i32 = 3600;

/// Whether Jobs may be made of a CronJob.
///
/// # Errors
/// When its owner did not agree, or it runs by itself.
pub fn check_hook(cron: &CronJob) -> Result<(), HookProblem> {
    let name = cron.metadata.name.clone().unwrap_or_default();
    let agreed = cron.metadata.annotations.as_ref().and_then(|all| all.get(KEY_HOOK)).is_some_and(|it| it == "true");
    if !agreed {
        return Err(HookProblem::NotAnnotated(name));
    }
    if cron.spec.suspend == Some(true) { Ok(()) } else { Err(HookProblem::NotSuspended(name)) }
}

/// The Job of a step.
#[must_use]
pub fn hook_job(spec: &Spec, job: &KeyJob, cron: &CronJob, labels: BTreeMap<String, String>) -> Job {
    let template = cron.spec.job_template.clone();
    let mut metadata = ObjectMeta {
        name: Some(job.name(spec)),
        namespace: Some(spec.namespace.clone()),
        ..template.metadata.unwrap_or_default()
    };
    metadata.labels.get_or_insert_default().extend(labels.clone());
    let mut of = template.spec.unwrap_or_default();
    // The API server makes them for each Job.
    of.selector = None;
    of.manual_selector = None;
    of.active_deadline_seconds.get_or_insert(DEADLINE_SECONDS);
    // One that is gone before its end was seen would be run again.
    let kept = of.ttl_seconds_after_finished.get_or_insert(KEPT_SECONDS);
    *kept = (*kept).max(KEPT_SECONDS);
    of.template.metadata.get_or_insert_default().labels.get_or_insert_default().extend(labels);
    let pod = of.template.spec.get_or_insert_default();
    // Before a version is made there is nothing to mount.
    let mounted = job.step != JobStep::PreRotate;
    for container in pod.init_containers.iter_mut().flatten().chain(&mut pod.containers) {
        equip(container, job, mounted);
    }
    let volumes = pod.volumes.get_or_insert_default();
    volumes.retain(|volume| volume.name != VOLUME);
    if mounted {
        volumes.push(Volume {
            name: VOLUME.into(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(spec.secret_name(job.n)),
                default_mode: Some(0o444),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    Job { metadata, spec: Some(of), ..Job::default() }
}

fn equip(container: &mut Container, job: &KeyJob, mounted: bool) {
    let env = container.env.get_or_insert_default();
    env.retain(|entry| entry.name != ID && entry.name != VERSION);
    let mut put = |name: &str, value: String| {
        env.push(EnvVar { name: name.into(), value: Some(value), ..EnvVar::default() });
    };
    put(VERSION, job.n.to_string());
    if mounted {
        put(ID, job.id.clone());
    }
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.retain(|mount| mount.name != VOLUME && mount.mount_path != HOOK_MOUNT);
    if mounted {
        mounts.push(VolumeMount {
            name: VOLUME.into(),
            mount_path: HOOK_MOUNT.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{api::ApiKey, keys::Caps};

    fn cron(annotation: &str, suspend: bool) -> CronJob {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "migrate", "namespace": "n", "annotations": {KEY_HOOK: annotation}},
            "spec": {"schedule": "0 0 1 1 *", "suspend": suspend, "jobTemplate": {"spec": {
                "backoffLimit": 2,
                "template": {"metadata": {"labels": {"app": "migrate"}}, "spec": {
                    "serviceAccountName": "migrator", "restartPolicy": "Never",
                    "initContainers": [{"name": "first", "image": "a"}],
                    "containers": [{"name": "main", "image": "b", "env": [{"name": "RAMPART_KEY_ID", "value": "mine"}]}],
                }},
            }}},
        }))
        .unwrap()
    }

    fn spec() -> Spec {
        let key: ApiKey = serde_json::from_value(serde_json::json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "ApiKey", "metadata": {"name": "k", "namespace": "n"},
            "spec": {"owner": {"customerId": "n"}, "audiences": ["a"], "role": "Viewer", "prefix": "ab",
                     "secret": {"name": "s"}},
        }))
        .unwrap();
        Spec::parse(&key, &Caps::default()).unwrap()
    }

    #[test]
    fn only_a_suspended_and_annotated_cron_job_is_a_hook() {
        assert_eq!(check_hook(&cron("true", true)), Ok(()));
        assert_eq!(check_hook(&cron("true", false)).unwrap_err().reason(), "HookNotPermitted");
        assert_eq!(check_hook(&cron("yes", true)), Err(HookProblem::NotAnnotated("migrate".into())));
    }

    #[rstest]
    #[case(Some(0), KEPT_SECONDS)]
    #[case(None, KEPT_SECONDS)]
    #[case(Some(86_400), 86_400)]
    fn a_finished_one_is_kept_until_its_end_was_seen(#[case] asked: Option<i32>, #[case] wanted: i32) {
        let mut cron = cron("true", true);
        cron.spec.job_template.spec.as_mut().unwrap().ttl_seconds_after_finished = asked;
        let job = KeyJob { step: JobStep::Test, n: 4, id: "0123abcd".into(), attempt: 0 };
        let made = hook_job(&spec(), &job, &cron, BTreeMap::new());
        assert_eq!(made.spec.unwrap().ttl_seconds_after_finished, Some(wanted));
    }

    #[test]
    fn a_hook_is_the_cron_jobs_own_with_the_version_added() {
        let job = KeyJob { step: JobStep::Test, n: 4, id: "0123abcd".into(), attempt: 0 };
        let labels: BTreeMap<String, String> = [("ours".to_owned(), "yes".to_owned())].into();
        let made = hook_job(&spec(), &job, &cron("true", true), labels);
        assert_eq!(made.metadata.name.as_deref(), Some("k-v4-0123abcd-test"));
        let of = made.spec.unwrap();
        assert_eq!(
            (of.backoff_limit, of.active_deadline_seconds, of.ttl_seconds_after_finished),
            (Some(2), Some(600), Some(3600))
        );
        let labels = of.template.metadata.unwrap().labels.unwrap();
        assert_eq!((labels["app"].as_str(), labels["ours"].as_str()), ("migrate", "yes"));
        let pod = of.template.spec.unwrap();
        assert_eq!(pod.service_account_name.as_deref(), Some("migrator"));
        for container in pod.init_containers.unwrap().iter().chain(&pod.containers) {
            let env: Vec<(String, Option<String>)> =
                container.env.clone().unwrap().into_iter().map(|it| (it.name, it.value)).collect();
            let wanted =
                [(VERSION, "4"), (ID, "0123abcd")].map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
            assert_eq!(env, wanted);
            let mount = &container.volume_mounts.as_ref().unwrap()[0];
            assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/rampart/key", Some(true)));
        }
        assert_eq!(pod.volumes.unwrap()[0].secret.as_ref().unwrap().secret_name.as_deref(), Some("k-v4"));
        let before = KeyJob { step: JobStep::PreRotate, n: 4, id: String::new(), attempt: 0 };
        let pod = hook_job(&spec(), &before, &cron("true", true), BTreeMap::new()).spec.unwrap().template.spec.unwrap();
        assert!(pod.volumes.unwrap().is_empty());
    }
}
