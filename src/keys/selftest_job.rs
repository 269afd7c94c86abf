//! The built-in test of a new version: a Job in the key's namespace that reads the mounted Secret.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Capabilities, Container, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements,
            SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use super::{Spec, grant::Grant, jobs::KeyJob};
use crate::api::Verb;

/// Where the Secret is mounted.
pub const MOUNT: &str = "/key";
/// How long a test may take.
const DEADLINE_SECONDS: i64 = 120;
/// How long a finished test is kept for a look at its log.
const KEPT_SECONDS: i32 = 3600;
const USER: i64 = 65_532;

/// The Job, hardened to the restricted Pod Security Standard.
#[must_use]
pub fn selftest_job(
    spec: &Spec,
    job: &KeyJob,
    (image, verifier): (&str, Option<&str>),
    labels: BTreeMap<String, String>,
) -> Job {
    let metadata = ObjectMeta {
        name: Some(job.name(spec)),
        namespace: Some(spec.namespace.clone()),
        labels: Some(labels.clone()),
        ..ObjectMeta::default()
    };
    let pod = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
        spec: Some(pod(&spec.secret_name(job.n), image, args(spec, verifier))),
    };
    Job {
        metadata,
        spec: Some(JobSpec {
            active_deadline_seconds: Some(DEADLINE_SECONDS),
            backoff_limit: Some(0),
            ttl_seconds_after_finished: Some(KEPT_SECONDS),
            template: pod,
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

/// What the Job does: it looks at the mounted key, and asks the verifier, if there is one, whether it is admitted.
fn args(spec: &Spec, verifier: Option<&str>) -> Vec<String> {
    let mut args = ["keys", "selftest", "--dir", MOUNT].map(String::from).to_vec();
    if let (Some(verifier), Some(audience), Some(asked)) =
        (verifier, spec.audiences.first(), spec.grant.as_ref().map_or(Some(vec![]), asked))
    {
        args.extend(["--verifier", verifier, "--audience", audience].map(String::from));
        args.extend(asked);
    }
    args
}

/// What a key may do for certain; none where that is the work of administrators alone, on paths that nobody knows here.
fn asked(grant: &Grant) -> Option<Vec<String>> {
    if grant.verbs.contains(&Verb::Read) {
        return Some(vec![]);
    }
    if let Some(permission) = grant.permissions.first() {
        let named = permission.strip_suffix('*').map_or_else(|| permission.clone(), |above| format!("{above}selftest"));
        return Some(vec!["--permission".into(), named]);
    }
    let methods = [(Verb::Write, "POST"), (Verb::Delete, "DELETE")];
    let (_, method) = methods.into_iter().find(|(verb, _)| grant.verbs.contains(verb))?;
    Some(vec!["--method".into(), method.into()])
}

fn pod(secret: &str, image: &str, args: Vec<String>) -> PodSpec {
    let container = Container {
        name: "selftest".into(),
        image: Some(image.into()),
        args: Some(args),
        resources: Some(ResourceRequirements {
            requests: Some([("cpu", "10m"), ("memory", "16Mi")].map(quantity).into()),
            limits: Some([("memory", "64Mi")].map(quantity).into()),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: "key".into(),
            mount_path: MOUNT.into(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    };
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some("Never".into()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        volumes: Some(vec![Volume {
            name: "key".into(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.into()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        }]),
        containers: vec![container],
        ..PodSpec::default()
    }
}

fn quantity((name, value): (&str, &str)) -> (String, Quantity) {
    (name.into(), Quantity(value.into()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::role(&[Verb::Read, Verb::Write], &["a.b"], Some(""))]
    #[case::no_role(&[], &["a.b"], Some("--permission a.b"))]
    #[case::wildcard(&[], &["a.*"], Some("--permission a.selftest"))]
    #[case::writes(&[Verb::Write, Verb::Delete], &[], Some("--method POST"))]
    #[case::deletes(&[Verb::Delete], &[], Some("--method DELETE"))]
    #[case::writes_and_has_a_permission(&[Verb::Write], &["a.b"], Some("--permission a.b"))]
    #[case::administrates(&[Verb::Admin], &[], None)]
    fn a_key_is_asked_about_as_it_may_be_used(
        #[case] verbs: &[Verb],
        #[case] permissions: &[&str],
        #[case] wanted: Option<&str>,
    ) {
        let permissions = permissions.iter().map(|it| (*it).to_owned()).collect();
        let grant = Grant { verbs: verbs.to_vec(), permissions, ..Grant::nothing() };
        assert_eq!(asked(&grant).map(|args| args.join(" ")).as_deref(), wanted);
    }
}
