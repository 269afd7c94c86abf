//! Reports go on a clock of their own, also when their policy is gone: the oldest first.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt as _, api::ListParams, core::PartialObjectMeta};

use super::rollup::roll_up;
use crate::{
    api::{
        RetentionReport,
        labels::{OWNER_KIND, REPORT_EXPIRES_AT},
    },
    cluster::{
        Result,
        error::{call, found},
        leader::Leadership,
        pages::each,
        retention_reports::remove,
        server_clock::skew,
    },
    controllers::Context,
    runtime::clock,
};

/// Clocks that are further apart tell nothing of an end.
const MOST_SKEW: SignedDuration = SignedDuration::from_mins(2);

/// Rounds of the policies' interval between two looks.
const ROUNDS: u32 = 6;

/// Removes reports whose time is over, and rolls up those that are old, until the process stops.
pub(super) async fn run(context: Context, interval: Duration, mut leadership: Leadership) -> anyhow::Result<()> {
    tokio::select! {
        () = leadership.acquired() => {}
        () = context.stopped.cancelled() => return Ok(()),
    }
    let mut look = tokio::time::interval(interval * ROUNDS);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = context.stopped.cancelled() => return Ok(()),
        }
        if let Err(error) = remove_expired(&context).await {
            tracing::warn!(reason = error.reason(), %error, "reports whose time is over could not be removed");
        }
        if let Err(error) = roll_up(&context).await {
            tracing::warn!(reason = error.reason(), %error, "reports could not be rolled up");
        }
    }
}

async fn remove_expired(context: &Context) -> Result<()> {
    if skew(&context.client).await?.abs() > MOST_SKEW {
        return Ok(());
    }
    let now = clock::now();
    let all: Api<PartialObjectMeta<RetentionReport>> = Api::all(context.client.clone());
    let mut old = vec![];
    let ours = ListParams::default().labels(&format!("{OWNER_KIND}=RetentionPolicy"));
    each(&all, ours, "RetentionReports", |it| {
        let expires_at = it.annotations().get(REPORT_EXPIRES_AT).and_then(|text| text.parse::<Timestamp>().ok());
        old.extend(
            expires_at.filter(|at| *at <= now).map(|at| (at, it.namespace().unwrap_or_default(), it.name_any())),
        );
    })
    .await?;
    old.sort();
    for (_, namespace, name) in old {
        let api: Api<RetentionReport> = Api::namespaced(context.client.clone(), &namespace);
        // An annotation is anybody's: what counts is what was written once.
        let report = found(call(|| format!("reading RetentionReport {name}"), api.get(&name)).await)?;
        if let Some(report) = report.filter(|report| report.spec.record.expires_at.0 <= now) {
            remove(&api, &report).await?;
            tracing::info!(namespace, report = name, "a report was removed, since its time is over");
        }
    }
    Ok(())
}
