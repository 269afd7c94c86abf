//! Exceptions, and when they end.

use jiff::Timestamp;
use serde::Serialize;

use crate::api::{ExceptionState, PolicyException};

/// A PolicyException.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Policies that it is about.
    pub policies: Vec<String>,
    /// Rules that may be violated.
    pub rules: Vec<String>,
    /// Images that may.
    pub images: Vec<String>,
    /// Why, in the words of who made it.
    pub reason: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Whether it is in force.
    pub state: ExceptionStanding,
    /// Pods that rely on it, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_relying: Option<u32>,
}

/// Whether an exception is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ExceptionStanding {
    /// It is.
    Active,
    /// Its end has come.
    Expired,
    /// No ClusterSecurityPolicy permits it.
    NotPermitted,
    /// The operator has not seen it as it is now.
    Unseen,
}

/// All of them, the next to end first, those that have ended last.
pub(super) fn exceptions(all: &[PolicyException], now: Timestamp) -> Vec<Exception> {
    let mut told: Vec<Exception> = all.iter().map(|it| exception(it, now)).collect();
    let order = |it: &Exception| (it.expires_at <= now, it.expires_at, it.namespace.clone(), it.name.clone());
    told.sort_by_key(order);
    told
}

fn exception(exception: &PolicyException, now: Timestamp) -> Exception {
    let (spec, status) = (&exception.spec, exception.status.clone().unwrap_or_default());
    let is_seen = status.observed_generation == exception.metadata.generation;
    let state = match status.state.filter(|_| is_seen) {
        // It ends by the clock, whether the operator saw it or not.
        _ if spec.expires_at.0 <= now => ExceptionStanding::Expired,
        Some(ExceptionState::Active) => ExceptionStanding::Active,
        Some(ExceptionState::NotPermitted) => ExceptionStanding::NotPermitted,
        // By another clock, which is ahead.
        Some(ExceptionState::Expired) => ExceptionStanding::Expired,
        None => ExceptionStanding::Unseen,
    };
    Exception {
        namespace: exception.metadata.namespace.clone().unwrap_or_default(),
        name: exception.metadata.name.clone().unwrap_or_default(),
        policies: spec.policies.iter().map(|it| format!("{:?} {}", it.kind, it.name)).collect(),
        rules: spec.rules.clone(),
        images: spec.images.clone(),
        reason: spec.reason.clone(),
        expires_at: spec.expires_at.0,
        state,
        pods_relying: status.pods_relying,
    }
}
