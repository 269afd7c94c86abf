//! `rampart retention verify`: whether the evidence is whole.

use std::{collections::BTreeMap, fmt::Write as _, io::Write as _, process::ExitCode};

use anyhow::Result;
use clap::Args;
use kube::{Api, ResourceExt, api::ListParams};

use super::{
    super::{BAD_INPUT, FOUND, connection::block_on, output::answered},
    Place,
};
use crate::{
    api::{
        RetentionReport,
        labels::{OWNER_KIND, OWNER_NAME},
    },
    cluster::pages,
    retention::chain::{Verified, verify},
    runtime::clock,
};

/// Reports of one page: each may name a thousand objects.
const PAGE: u32 = 20;

/// Checks the RetentionReports of a RetentionPolicy: that each says what was written, that each run follows the one
/// before, and that none is missing before its time. The policy may be gone.
///
/// The digest that it prints is also in the operator's log and in the policy's status: who may rewrite every report may
/// compute every digest anew, so keep one where nobody may. Exits 1 with the first report that is changed or missing.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    #[command(flatten)]
    place: Place,
}

impl Verify {
    pub(super) fn run(self) -> Result<ExitCode> {
        block_on(async {
            let (client, namespace) = self.place.client().await?;
            let name = &self.place.name;
            let policy = self.place.policy(&client, &namespace).await?;
            let api: Api<RetentionReport> = Api::namespaced(client, &namespace);
            // By policy: one that was made anew under its name has a chain of its own.
            let mut chains: BTreeMap<String, Vec<RetentionReport>> = BTreeMap::new();
            let ours = format!("{OWNER_KIND}=RetentionPolicy,{OWNER_NAME}={name}");
            let params = ListParams::default().labels(&ours).limit(PAGE);
            pages::each(&api, params, "RetentionReports", |report: RetentionReport| {
                chains.entry(report.spec.record.policy.uid.clone()).or_default().push(report);
            })
            .await?;
            if let Some(uid) = policy.as_ref().and_then(ResourceExt::uid) {
                chains.entry(uid).or_default();
            }
            if chains.is_empty() {
                eprintln!("rampart: there is no RetentionPolicy {name} in namespace {namespace}, and no report of one");
                return Ok(ExitCode::from(BAD_INPUT));
            }
            let mut code = ExitCode::SUCCESS;
            let mut text = String::new();
            for (uid, reports) in chains {
                let live = policy.as_ref().filter(|policy| policy.uid().as_ref() == Some(&uid));
                let last = live.and_then(|policy| policy.status.as_ref()?.last_run.as_ref());
                match verify(&reports, last, clock::now()) {
                    Ok(verified) => writeln!(text, "{namespace}/{name} ({uid}): {}", told(&verified))?,
                    Err(broken) => {
                        writeln!(text, "{namespace}/{name} ({uid}): broken at {}: {}", broken.report, broken.problem)?;
                        code = ExitCode::from(FOUND);
                    }
                }
            }
            answered(std::io::stdout().lock().write_all(text.as_bytes()).map_err(Into::into), code)
        })
    }
}

fn told(verified: &Verified) -> String {
    let Some((first, last)) = verified.runs else {
        return format!("no run has done anything yet; {} plans are as they were written", verified.plans);
    };
    let unfinished = if verified.unfinished { "; the last is not finished" } else { "" };
    format!(
        "runs {first} to {last} are whole, {} objects were deleted, and the digest is {}{unfinished}",
        verified.deleted,
        verified.digest.as_deref().unwrap_or("not there yet")
    )
}
