//! Waiting until a status says so.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::{
    super::{FOUND, terminal::Progress},
    place::Key,
};
use crate::api::{ApiKey, ApiKeyStatus, condition::Type};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// What a look at an ApiKey tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is so.
    Done(String),
    /// It will not be so, and why.
    Failed(String),
    /// Not yet, and how far it is.
    Waiting(String),
}

/// Looks until it is so, it can't be any more, or the time is over.
pub(super) async fn until(key: &Key, timeout: Duration, look: impl Fn(&ApiKey) -> Look) -> Result<ExitCode> {
    let deadline = Instant::now() + timeout;
    let progress = Progress::open("waiting for the operator");
    let (said, code) = loop {
        let Some(live) = key.read().await? else { return Ok(ExitCode::from(FOUND)) };
        match look(&live) {
            Look::Done(said) => break (said, ExitCode::SUCCESS),
            Look::Failed(said) => break (format!("rampart: {said}"), ExitCode::from(FOUND)),
            Look::Waiting(said) if Instant::now() >= deadline => {
                let told = format!("rampart: not done in time, and no longer waited for: {said}");
                break (told, ExitCode::from(FOUND));
            }
            Look::Waiting(said) => progress.says(&said),
        }
        sleep(PAUSE).await;
    };
    drop(progress);
    eprintln!("{said}");
    Ok(code)
}

/// What keeps the operator from going on with the spec of this generation, if it said so.
pub(super) fn refused(status: &ApiKeyStatus, generation: Option<i64>) -> Option<String> {
    let is_bad = |kind: Type, bad: &str| {
        let of_kind = status.conditions.iter().find(|it| it.type_ == kind.as_str() && it.status == bad);
        of_kind.filter(|it| it.observed_generation >= generation).map(|it| format!("{}: {}", it.reason, it.message))
    };
    is_bad(Type::Accepted, "False").or_else(|| is_bad(Type::Stalled, "True"))
}

/// How far it is, in the words of the status.
pub(super) fn state(status: Option<&ApiKeyStatus>, generation: Option<i64>) -> String {
    let Some(status) = status.filter(|it| it.observed_generation >= generation) else {
        return "the operator has not answered yet: it may not run".into();
    };
    let going = status.conditions.iter().find(|it| {
        it.type_ == Type::Rotating.as_str() || (it.type_ == Type::Reconciling.as_str() && it.status == "True")
    });
    going.map_or_else(|| "the operator is at it".into(), |it| format!("{}: {}", it.reason, it.message))
}
