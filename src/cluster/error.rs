//! What can go wrong with the API server, and what to do about it.

use std::{future::Future, time::Duration};

use kube::core::Status;
use thiserror::Error;

/// Longest wait for one answer of the API server.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Who or what has to change before another try makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The user: wait for a change.
    User,
    /// Nobody: try again, less and less often.
    Transient,
}

/// A failed action on the cluster.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("{doing}: {}", said(source))]
    Api {
        /// What was tried.
        doing: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
    /// The same, about a Secret: the answer is left out, since it could quote what was sent.
    #[error("{doing}: the API server answered {code} {reason}")]
    Secret {
        /// What was tried.
        doing: String,
        /// HTTP status code, 0 without an answer.
        code: u16,
        /// Machine-readable reason.
        reason: String,
    },
    /// No answer in time.
    #[error("{doing}: no answer in {CALL_DEADLINE:?}")]
    Deadline {
        /// What was tried.
        doing: String,
    },
    /// An object of a wanted name is somebody else's.
    #[error(
        "{kind} {name} exists and was not made for this resource: rename one of them, or delete it if nobody uses it"
    )]
    Foreign {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// What is held could not be found out, so anything may be.
    #[error("legal holds could not be read, so nothing is deleted: {0}")]
    Holds(Box<Error>),
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    Random(#[from] getrandom::Error),
    /// An object lacks what the API server always sets.
    #[error("{0}")]
    Unexpected(String),
}

/// What the API server said, without kube's dump of its whole answer.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

/// Result of an action on the cluster.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Stable name for metrics and events.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_conflict() => "Conflict",
                kube::Error::Api(status) if status.is_forbidden() => "Forbidden",
                kube::Error::Api(status) if status.is_not_found() => "NotFound",
                kube::Error::Api(status) if status.is_invalid() => "Refused",
                kube::Error::Api(_) => "ApiError",
                _ => "Unreachable",
            },
            Self::Secret { .. } => "SecretError",
            Self::Deadline { .. } => "Deadline",
            Self::Foreign { .. } => "Conflicted",
            Self::Holds(_) => "HoldsUnknown",
            Self::Random(_) => "NoRandomness",
            Self::Unexpected(_) => "Unexpected",
        }
    }

    /// Who or what has to change.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Foreign { .. } => Class::User,
            _ => Class::Transient,
        }
    }

    /// The API server's status code, if it answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::Secret { code, .. } => (*code != 0).then_some(*code),
            _ => None,
        }
    }

    /// Whether nothing can be made any more in the namespace, because it is gone or being deleted
    /// (`k8s.io/api/core/v1`, NamespaceTerminatingCause).
    #[must_use]
    pub fn is_of_ending_namespace(&self) -> bool {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => status.is_not_found() || is_ending(status),
                _ => false,
            },
            Self::Secret { reason, .. } => reason == ENDING,
            _ => false,
        }
    }

    /// Whether the API server has no such kind: of an object that is not there, it tells the name.
    #[must_use]
    pub fn is_of_unknown_kind(&self) -> bool {
        let Self::Api { source, .. } = self else { return false };
        let kube::Error::Api(status) = source.as_ref() else { return false };
        status.code == 404 && status.details.as_ref().is_none_or(|details| details.name.is_empty())
    }

    /// Whether the API server, a quota or an admission webhook takes nothing of what was sent, and the same again would
    /// fare no better.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self.code(), Some(400 | 403 | 413 | 422)) && !self.is_of_ending_namespace()
    }

    /// The API server's own words about a refusal, without what was tried.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(&status.message),
                _ => None,
            },
            _ => None,
        }
    }

    /// The error of an action about a Secret.
    fn about_secret(doing: String, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let reason = if is_ending(status) { ENDING.into() } else { status.reason.clone() };
                Self::Secret { doing, code: status.code, reason }
            }
            _ => Self::Secret { doing, code: 0, reason: "Unreachable".into() },
        }
    }
}

const ENDING: &str = "NamespaceTerminating";

fn is_ending(status: &Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == ENDING)
}

/// One call, under the deadline.
///
/// # Errors
/// When it fails or takes longer.
pub async fn call<T>(doing: impl FnOnce() -> String, call: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Error::Api { doing: doing(), source: Box::new(error) }),
        Err(_) => Err(Error::Deadline { doing: doing() }),
    }
}

/// One call about a Secret, whose error says nothing of its content.
///
/// # Errors
/// When it fails or takes longer.
pub async fn secret_call<T>(doing: impl FnOnce() -> String, call: impl Future<Output = kube::Result<T>>) -> Result<T> {
    match tokio::time::timeout(CALL_DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Error::about_secret(doing(), &error)),
        Err(_) => Err(Error::Deadline { doing: doing() }),
    }
}

/// `None` where the API server says that there is no such object.
///
/// # Errors
/// Every other error.
pub fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_told_from_what_may_come_true() {
        let error =
            |status: Status| Error::Api { doing: String::new(), source: Box::new(kube::Error::Api(Box::new(status))) };
        let refused = |code| error(Status::failure("no", "No").with_code(code)).is_refusal();
        assert_eq!([400, 403, 413, 422].map(refused), [true; 4]);
        assert_eq!([401, 404, 409, 429, 500, 503].map(refused), [false; 6]);
        let ending = serde_json::json!({"status": "Failure", "code": 403, "reason": "Forbidden",
            "details": {"causes": [{"reason": "NamespaceTerminating", "message": "", "field": ""}]}});
        let ending: Status = serde_json::from_value(ending).unwrap();
        assert!(!error(ending.clone()).is_refusal());
        let of_secret = |status: Status| Error::about_secret(String::new(), &kube::Error::Api(Box::new(status)));
        assert!(!of_secret(ending).is_refusal());
        assert!(of_secret(Status::failure("exceeded quota", "Forbidden").with_code(403)).is_refusal());
    }

    #[test]
    fn a_refusal_is_told_in_the_api_servers_words() {
        let status = Status::failure("pods is forbidden: no", "Forbidden").with_code(403);
        let error = Error::Api { doing: "listing pods".into(), source: Box::new(kube::Error::Api(Box::new(status))) };
        assert_eq!(error.to_string(), "listing pods: pods is forbidden: no");
    }
}
