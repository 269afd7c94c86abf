//! What is told of an ApiKey as events: never what a key is, only its id.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use crate::{
    api::{
        ApiKey, ApiKeyStatus, VersionState, VersionStatus,
        condition::{Type, WRITE_REFUSED},
    },
    cluster::events::{Events, Reason},
    keys::{
        CONFLICTED, ConsumerSeen, EndsSoon, JobStep, Observed, ROTATION_DUE, SecretSeen, Spec, Step, deprecated_in_use,
        failed_job, has_job,
    },
    runtime::{clock, metrics::KeyMetrics},
};

/// Tells of what was done.
pub(super) struct Herald<'a> {
    pub(super) events: &'a Events,
    pub(super) metrics: &'a KeyMetrics,
}

impl Herald<'_> {
    async fn normal(&self, key: &ApiKey, name: &'static str, note: &str) {
        self.events.publish(key, Reason::normal(name), note).await;
    }

    /// Tells what a status brought.
    pub(super) async fn remembered(&self, key: &ApiKey, spec: &Spec, seen: &Observed, after: &ApiKeyStatus) {
        let before = &seen.status;
        let is_rotation = before.current_version.is_some();
        if let Some(n) = after.next_version.filter(|n| is_rotation && before.next_version.is_none() && !has(after, *n))
        {
            self.normal(key, "RotationStarted", &format!("version {n} is being made")).await;
        }
        for version in &after.versions {
            let known = before.versions.iter().find(|old| old.n == version.n);
            let put_off = known.and_then(|old| old.destroy_at.as_ref()).zip(version.destroy_at.as_ref());
            if let Some((_, end)) = put_off.filter(|(old, new)| old.0 < new.0) {
                let note =
                    format!("the hook before the end of version {} failed, and is repeated at {}", version.n, end.0);
                self.metrics.count("failed", "hook");
                self.events.publish(key, Reason::warning("RotationFailed"), &note).await;
            }
            let old = known.map(|version| version.state);
            if old != Some(version.state) {
                self.became(key, (old, before.next_version), version, is_rotation).await;
            }
        }
        if let Some(n) =
            before.next_version.filter(|n| after.next_version.is_none() && after.current_version == Some(*n))
        {
            self.metrics.count("success", "completed");
            if let Some(made) = after.versions.iter().find(|version| version.n == n) {
                let took = clock::now().duration_since(made.created_at.0);
                self.metrics.seconds.observe(took.as_secs_f64().max(0.0));
            }
            // A first version is issued; only a later one completes a rotation.
            if after.versions.iter().any(|version| version.n < n) {
                self.normal(key, "RotationCompleted", &format!("version {n} has replaced the one before it")).await;
            }
        }
        if after.failed_attempts > before.failed_attempts
            && let Some(job) = failed_job(seen, after, clock::now())
        {
            let (step, what) = match job.step {
                JobStep::Test => ("test", "the test of the new version failed; the current one stays"),
                JobStep::PostPromote => ("hook", "the hook after the promotion failed; the new version is in use"),
                JobStep::PreRotate | JobStep::Destroy => {
                    ("hook", "the hook before the new version failed; the current one stays")
                }
            };
            self.metrics.count("failed", step);
            let note = format!("{what}: see Job {}", job.name(spec));
            self.events.publish(key, Reason::warning("RotationFailed"), &note).await;
        }
    }

    async fn became(
        &self,
        key: &ApiKey,
        (old, made): (Option<VersionState>, Option<i64>),
        version: &VersionStatus,
        is_rotation: bool,
    ) {
        let VersionStatus { n, id, .. } = version;
        match version.state {
            VersionState::Current if made == Some(*n) => {
                let name = if is_rotation { "RotationPromoted" } else { "KeyIssued" };
                tracing::info!(namespace = key.namespace(), name = key.name_any(), id, event = name, "key");
                self.normal(key, name, &format!("version {n} with id {id} is current")).await;
            }
            VersionState::Deprecated if old.is_some() => {
                let end = version.destroy_at.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
                self.normal(key, "KeyDeprecated", &format!("version {n} with id {id} stays valid until {end}")).await;
            }
            VersionState::Destroyed if old.is_some() => {
                self.normal(key, "KeyDestroyed", &format!("version {n} with id {id} is gone")).await;
            }
            VersionState::Revoked if old.is_some() => {
                tracing::warn!(namespace = key.namespace(), name = key.name_any(), id, event = "KeyRevoked", "key");
                let reason = key.spec.revocation.as_ref().map(|it| it.reason.as_str()).unwrap_or_default();
                let note = format!("version {n} with id {id} was revoked: {reason}");
                self.events.publish(key, Reason::warning("KeyRevoked"), &note).await;
            }
            _ => {}
        }
    }

    /// Tells what a step did that no status shows.
    pub(super) async fn taken(&self, key: &ApiKey, spec: &Spec, seen: &Observed, step: &Step) {
        let next = seen.status.next_version;
        match step {
            Step::StartJob(job) if job.step == JobStep::Test && job.attempt == 0 && spec.imported.is_none() => {
                let verifiers = seen.verifiers.len();
                let note = format!("version {} with id {} is in force at {verifiers} verifiers", job.n, job.id);
                self.normal(key, "KeyDistributed", &note).await;
            }
            Step::WriteConsumer { current: Some(n), .. }
                if next == Some(*n)
                    && seen.status.current_version.is_some()
                    && !has(&seen.status, *n)
                    && has_job(spec, JobStep::Test) =>
            {
                self.normal(key, "RotationTested", &format!("version {n} passed its test")).await;
            }
            Step::WriteConsumer { current: Some(n), .. } if has_drifted(seen, *n) => {
                let note = format!("Secret {} did not hold version {n}, which is current: put back", spec.consumer);
                self.events.publish(key, Reason::warning("SecretDrift"), &note).await;
            }
            _ => {}
        }
    }

    /// Tells of replaced versions that are used on: somebody has not taken the successor.
    pub(super) async fn in_use(&self, key: &ApiKey, after: &ApiKeyStatus, seen: &Observed) {
        for (version, last) in deprecated_in_use(after, seen.status.usage.as_ref(), &seen.uses) {
            let VersionStatus { n, id, .. } = version;
            let end = version.destroy_at.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
            let note =
                format!("version {n} with id {id} was replaced and is still used, last at {last}; it ends at {end}");
            self.events.publish(key, Reason::warning("DeprecatedKeyInUse"), &note).await;
        }
    }

    /// Tells that something of a name that is needed is somebody else's: once, since the condition remembers it.
    pub(super) async fn conflict(&self, key: &ApiKey, before: &[Condition], after: &[Condition]) {
        let of = |list: &[Condition]| {
            let refused = |it: &&Condition| it.type_ == Type::Accepted.as_str() && it.status == "False";
            list.iter().find(refused).filter(|it| it.reason == CONFLICTED).map(|it| it.message.clone())
        };
        if let (Some(message), None) = (of(after), of(before)) {
            self.events.publish(key, Reason::warning("SecretConflict"), &message).await;
        }
    }

    /// Tells what keeps a key from being replaced, and what the user of an imported one is asked to do: once, since the
    /// condition remembers it.
    pub(super) async fn hindered(&self, key: &ApiKey, before: &[Condition], after: &ApiKeyStatus) {
        let refused = |list: &[Condition]| {
            let rotating = list.iter().find(|it| it.type_ == Type::Rotating.as_str() && it.status == "False")?;
            Some((rotating.reason.clone(), rotating.message.clone()))
        };
        let (now, earlier) = (refused(&after.conditions), refused(before));
        let Some((reason, message)) = now.filter(|(reason, _)| earlier.is_none_or(|(before, _)| before != *reason))
        else {
            return;
        };
        let name = match reason.as_str() {
            // Of a Job that failed another event tells.
            "TestFailed" | "HookFailed" => return,
            WRITE_REFUSED => WRITE_REFUSED,
            ROTATION_DUE => ROTATION_DUE,
            reason if reason.starts_with("Token") || reason.starts_with("Secret") => "TokenRefused",
            _ => {
                self.metrics.count("failed", "hook");
                "RotationFailed"
            }
        };
        self.events.publish(key, Reason::warning(name), &message).await;
    }

    /// Tells that the version in use ends soon: once at each threshold, since the condition remembers the last.
    pub(super) async fn ends_soon(&self, key: &ApiKey, before: &[Condition], after: &ApiKeyStatus) {
        let threshold = |list: &[Condition]| {
            let expiring = list.iter().find(|it| it.type_ == Type::Expiring.as_str())?;
            EndsSoon::of_reason(&expiring.reason)
        };
        let (Some(now), earlier) = (threshold(&after.conditions), threshold(before)) else { return };
        if earlier.is_none_or(|earlier| earlier < now) {
            let current = after.current();
            let end = current.map(|current| current.expires_at.0.to_string()).unwrap_or_default();
            let note = format!("the current version ends at {end}, and nothing replaces it before");
            self.events.publish(key, Reason::warning("KeyExpiringSoon"), &note).await;
        }
    }
}

/// Whether consumers had the version, and another hand changed that.
fn has_drifted(seen: &Observed, n: i64) -> bool {
    let holds = |secret: &SecretSeen| match &seen.consumer {
        ConsumerSeen::Ours { current, .. } => current.as_ref() == Some(&secret.digest),
        ConsumerSeen::Absent | ConsumerSeen::Foreign(_) => false,
    };
    seen.status.current_version == Some(n) && !seen.secrets.get(&n).is_some_and(holds)
}

fn has(status: &ApiKeyStatus, n: i64) -> bool {
    status.versions.iter().any(|version| version.n == n)
}
