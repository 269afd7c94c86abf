//! Reports go on a clock of their own, also when their policy is gone: the oldest first.

use std::time::Duration;

use jiff::Timestamp;
use kube::Api;

use super::rollup::roll_up;
use crate::{
    api::RetentionReport,
    cluster::{
        Result,
        leader::Leadership,
        retention_reports::{Listed, list, read, remove},
        server_clock::{MOST_SKEW, skew},
    },
    controllers::Context,
    runtime::clock,
};

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
        let reports = match list(&context.client).await {
            Ok(reports) => reports,
            Err(error) => {
                tracing::warn!(reason = error.reason(), %error, "reports could not be listed");
                continue;
            }
        };
        if let Err(error) = remove_expired(&context, &reports).await {
            tracing::warn!(reason = error.reason(), %error, "reports whose time is over could not be removed");
        }
        roll_up(&context, &reports).await;
    }
}

async fn remove_expired(context: &Context, reports: &[Listed]) -> Result<()> {
    if skew(&context.client).await?.abs() > MOST_SKEW {
        return Ok(());
    }
    let now = clock::now();
    // One that does not say when, or not any more, is asked.
    let mut old: Vec<&Listed> = reports.iter().filter(|it| it.expires_at.is_none_or(|at| at <= now)).collect();
    old.sort_by_key(|it| it.expires_at);
    for Listed { namespace, name, .. } in old {
        let api: Api<RetentionReport> = Api::namespaced(context.client.clone(), namespace);
        match remove_if_over(&api, name, now).await {
            Ok(true) => tracing::info!(namespace, report = name, "a report was removed, since its time is over"),
            Ok(false) => {}
            // One that is held, say, keeps no other.
            Err(error) => {
                tracing::warn!(namespace, report = name, reason = error.reason(), %error, "a report could not be removed");
            }
        }
    }
    Ok(())
}

/// Whether its time is over, and it was removed. An annotation is anybody's: what counts is what was written once.
async fn remove_if_over(api: &Api<RetentionReport>, name: &str, now: Timestamp) -> Result<bool> {
    let report = read(api, name).await?.filter(|report| report.spec.record.expires_at.0 <= now);
    let Some(report) = report else { return Ok(false) };
    remove(api, &report).await?;
    Ok(true)
}
