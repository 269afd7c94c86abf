//! Upstream's own suite for a running cluster (`k8s.io/pod-security-admission/test`): its fixtures, as Pods
//! and as Deployments, judged by Rampart in place of Pod Security Admission.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::{ControlPlane, Operator, Options, judges};
use tokio::{process::Command, time::timeout};

use crate::Tests;

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("psa_live::upstreams_suite_passes_with_the_webhook_alone", |_| passes("None"));
    tests.add("psa_live::upstreams_suite_passes_with_admission_policies", |_| passes("Generate"));
}

/// Subtests and pods that were seen on 2026-11-22; fewer would mean that the suite tries less than it did.
const SUBTESTS: usize = 750;
const PODS: usize = 1652;
/// What a failure shows, in lines, and of a line, in characters: some hold whole pods, with the reason behind.
const LINES: usize = 20;
const START: usize = 150;
const END: usize = 300;
/// The judge gives up before that.
const DEADLINE: Duration = Duration::from_mins(16);

async fn passes(admission_policy: &str) -> Result<()> {
    let judge = tokio::task::spawn_blocking(judges::live).await??;
    let plane = ControlPlane::start(&Options { controllers: false, ..Options::default() }).await?;
    let _operator = Operator::install(&plane, &[]).await?;
    let mut suite = Command::new(judge);
    suite.arg(plane.admin_kubeconfig()?).arg(admission_policy).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE, suite.output()).await.context("the suite does not end")??;

    let said = String::from_utf8_lossy(&output.stdout);
    let count = |verdict: &str| said.lines().filter(|line| line.starts_with(&format!("    --- {verdict}"))).count();
    let (passed, failed, skipped) = (count("PASS"), count("FAIL"), count("SKIP"));
    let compared = said.lines().find_map(|line| line.strip_prefix("compared: ")).unwrap_or("0 pods");
    let summary = format!("{passed} subtests passed, {failed} failed, {skipped} were skipped; compared: {compared}");
    println!("admissionPolicy: {admission_policy}: {summary}");
    ensure!(
        output.status.success() && failed + skipped == 0,
        "{summary}\n{}{}",
        findings(&said),
        findings(&String::from_utf8_lossy(&output.stderr))
    );
    let pods: usize = compared.split_whitespace().next().context("how many were compared")?.parse()?;
    ensure!(passed >= SUBTESTS && pods >= PODS, "it used to try more: {summary}");
    Ok(())
}

/// What it says, without what passed.
fn findings(said: &str) -> String {
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("=== ") && !line.contains("--- PASS"))
        .collect();
    let shown: String = lines.iter().take(LINES).map(|line| shortened(line) + "\n").collect();
    let left = lines.len().saturating_sub(LINES);
    if left == 0 { shown } else { format!("{shown}and {left} lines more\n") }
}

fn shortened(line: &str) -> String {
    let characters: Vec<char> = line.chars().collect();
    let Some(end) = characters.len().checked_sub(END).filter(|end| *end > START) else { return line.to_owned() };
    let part = |range: &[char]| range.iter().collect::<String>();
    format!("{} ... {}", part(&characters[..START]), part(&characters[end..]))
}
