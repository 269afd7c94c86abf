//! What is made of the token that the user supplies.

use jiff::Timestamp;

use super::{
    Spec,
    import::{Import, Token, TokenProblem},
    seen::Observed,
};
use crate::api::{ApiKeyStatus, VersionState, VersionStatus, labels::TOKEN_EXPIRES_AT};

/// What is to be made of what the user's Secret holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer<'a> {
    /// A token that was never seen here.
    New(&'a Token),
    /// The one that is in use.
    Current,
    /// The one that is on its way to be.
    UnderWay,
    /// One of before: the number of its version.
    Old(i64),
    /// One whose time is over, says its user. What is in use stays: it may be a slip of the pen.
    Over(Timestamp),
    /// None that can be taken.
    Refused(&'a TokenProblem),
}

impl<'a> Offer<'a> {
    /// What is offered; none to a key that is not imported.
    pub(super) fn of(seen: &'a Observed, now: Timestamp) -> Option<Self> {
        let token = match seen.supplied.as_ref()? {
            Ok(token) => token,
            Err(problem) => return Some(Self::Refused(problem)),
        };
        let status = &seen.status;
        let over = token.ends.filter(|end| *end <= now);
        let known = status.versions.iter().find(|version| is_of(seen, token, version));
        Some(match (known, over) {
            (Some(version), Some(end)) if is_current(version) && end < version.expires_at.0 => Self::Over(end),
            (Some(version), _) if is_current(version) => Self::Current,
            (Some(version), _) => Self::Old(version.n),
            (None, Some(end)) => Self::Over(end),
            (None, None) if status.next_version.is_some_and(|n| is_copy(seen, token, n)) => Self::UnderWay,
            (None, None) => Self::New(token),
        })
    }
}

fn is_current(version: &VersionStatus) -> bool {
    version.state == VersionState::Current
}

/// Whether the Secret of a version has the token. By the digest too: ids change with the MAC key.
fn is_copy(seen: &Observed, token: &Token, n: i64) -> bool {
    seen.secrets.get(&n).is_some_and(|it| it.id == token.id || it.digest == token.digest)
}

fn is_of(seen: &Observed, token: &Token, version: &VersionStatus) -> bool {
    version.id == token.id || is_copy(seen, token, version.n)
}

/// When the system that issued it ends the token of a version, if the user tells of it and that is to come.
pub(super) fn end_of(seen: &Observed, version: &VersionStatus, now: Timestamp) -> Option<Timestamp> {
    let token = seen.supplied.as_ref()?.as_ref().ok().filter(|token| is_of(seen, token, version))?;
    token.ends.filter(|end| *end > now)
}

/// Reason of the condition Rotating while the successor of a token is due.
pub const ROTATION_DUE: &str = "RotationDue";

/// What the user of an imported key is asked to do, if anything: a stable reason, and how.
pub(super) fn asked(
    spec: &Spec,
    seen: &Observed,
    status: &ApiKeyStatus,
    now: Timestamp,
) -> Option<(&'static str, String)> {
    let Import { secret, entry, .. } = spec.imported.as_ref()?;
    // Nothing is taken any more.
    if spec.hard_expiry.is_some_and(|end| end <= now) {
        return None;
    }
    match Offer::of(seen, now)? {
        Offer::Refused(problem) => Some((problem.reason(), problem.to_string())),
        Offer::Over(end) => Some((
            "TokenEnded",
            format!(
                "the token in entry {entry} of Secret {secret} ended at {end}, as the annotation {TOKEN_EXPIRES_AT} has it: put its successor there, with the end of that, or put the annotation right"
            ),
        )),
        Offer::Old(n) => Some((
            "TokenEnded",
            format!(
                "entry {entry} of Secret {secret} holds the token of version {n}, which was replaced or has ended: put another one there"
            ),
        )),
        Offer::New(_) | Offer::Current | Offer::UnderWay => {
            let due = status.next_rotation_time.as_ref().filter(|due| due.0 <= now)?;
            Some((
                ROTATION_DUE,
                format!(
                    "the token is due to be replaced since {}: put its successor into entry {entry} of Secret {secret}",
                    due.0
                ),
            ))
        }
    }
}
