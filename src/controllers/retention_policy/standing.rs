//! How RetentionPolicies stand, for metrics.

use kube::ResourceExt as _;

use crate::{
    api::{
        RetentionPolicy,
        condition::{Type, is_true},
    },
    runtime::metrics::{ObjectLabels, RetentionStanding},
};

pub(super) fn stand(policy: &RetentionPolicy) -> Option<RetentionStanding> {
    let status = policy.status.as_ref()?;
    let plan = status.plan.as_ref();
    Some(RetentionStanding {
        labels: ObjectLabels { namespace: policy.namespace().unwrap_or_default(), name: policy.name_any() },
        candidates: plan.map_or(0, |plan| plan.candidates),
        tripped: is_true(&status.conditions, Type::BlastRadiusExceeded),
        oldest: plan.and_then(|plan| plan.oldest_too_old_since.as_ref()).map(|time| time.0.as_second()),
    })
}
