//! From the body of a review to that of its answer, by the policies that are known.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{Path, Shared};
use crate::{
    admission::{BadReview, Preview, Review, decide, decide_api_key, fix, is_of_api_key},
    cluster::{pause::holds, pods},
    hardening::Enforcement,
    runtime::clock,
};

/// For the pods that a change would refuse; Pod Security Admission takes no longer either.
const PREVIEW_DEADLINE: Duration = Duration::from_secs(1);
/// Previews under way at once: each reads up to 3,000 pods.
static PREVIEWS: Semaphore = Semaphore::const_new(4);

/// Why a review was not answered.
pub(super) enum Failure {
    NoReview(BadReview),
    NotListed,
    NoPolicies(crate::cluster::Error),
}

pub(super) async fn answer(shared: &Shared, body: &[u8], path: Path) -> Result<Vec<u8>, Failure> {
    let began = Instant::now();
    let request = Review::parse(body).map_err(Failure::NoReview)?;
    // The Service sends nobody here before, but whoever goes around it must not hear that nothing is asked of a pod.
    let by_policies = if request.kind.group == crate::GROUP { is_of_api_key(&request) } else { shared.hardens };
    if by_policies && !shared.policies.is_listed() {
        return Err(Failure::NotListed);
    }
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let policies = if shared.hardens {
        shared.policies.of_namespace(&shared.client, namespace).await.map_err(Failure::NoPolicies)?
    } else {
        Arc::default()
    };
    let now = clock::now();
    let paused = holds(shared.pauses.borrow().as_ref(), now);
    let enforcement = if paused { Enforcement::Paused } else { Enforcement::InForce };
    let answer = match path {
        Path::Validate if is_of_api_key(&request) => {
            let caps = shared.policies.key_caps(&shared.client, namespace).await.map_err(Failure::NoPolicies)?;
            decide_api_key(&request, &caps)
        }
        Path::Validate => {
            let mut answer = decide(&request, &policies, enforcement, now);
            if answer.allowed
                && shared.hardens
                && let Some(preview) = Preview::of(&request, &shared.policies.known())
            {
                // Rare, and too large to be carried about with every review.
                answer.warnings.extend(Box::pin(previewed(shared, preview, began, now)).await);
            }
            shared.metrics.count_review(&request, &answer, &policies);
            answer
        }
        // The same pod is judged at the other path, too.
        Path::Enforce => decide(&request, &policies, enforcement, now),
        Path::Mutate => {
            let (answer, outcomes) = fix(&request, &policies, enforcement, now);
            shared.metrics.count_fixes(&outcomes);
            answer
        }
    };
    let (kind, namespace, name) = (&*request.kind.kind, request.namespace.as_deref(), request.name.as_deref());
    let (allowed, warnings) = (answer.allowed, answer.warnings.len());
    if !allowed || warnings > 0 {
        tracing::info!(request_id = &*request.uid, kind, namespace, name, allowed, warnings, "judged");
    } else {
        tracing::debug!(request_id = &*request.uid, kind, namespace, name, allowed, "judged");
    }
    answer.to_body(&request.uid).map_err(|error| Failure::NoReview(error.into()))
}

/// What a change of policies or labels would refuse of the pods that are there. That it can't be told is no reason
/// to refuse the change.
async fn previewed(shared: &Shared, mut preview: Preview, began: Instant, now: Timestamp) -> Vec<String> {
    // Pods that are being made must not wait for these.
    let Ok(_turn) = PREVIEWS.try_acquire() else {
        return vec!["existing pods were not checked: too many such changes are under way".into()];
    };
    let namespace = preview.namespace.clone();
    let listed =
        pods::list(&shared.client, namespace.as_deref(), (began + PREVIEW_DEADLINE).into(), |namespace, name, pod| {
            preview.judge((namespace, name), pod, now);
        });
    match listed.await {
        Ok((checked, total)) => preview.warnings(checked, total),
        Err(error) => {
            tracing::warn!(%error, "pods could not be listed for a preview");
            vec![format!("existing pods could not be checked: {error}")]
        }
    }
}
