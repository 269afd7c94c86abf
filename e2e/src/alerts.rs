//! The alerts of the chart, and promtool, which judges them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{chart::Helm, fixtures};

/// Where the runbook is published in `e2e/judges/alerts`.
const RUNBOOK: &str = "metrics.prometheusRule.runbookUrl=https://example.com/alerts#";

/// The rules of the chart's PrometheusRule as a rule file, with everything that Helm makes of them.
///
/// # Errors
/// When Helm refuses, or nothing is rendered.
pub fn rules() -> Result<Value> {
    let objects = fixtures::parse(&Helm::new()?.template(&["metrics.prometheusRule.enabled=true", RUNBOOK])?)?;
    let rule = objects.iter().find(|it| it["kind"] == "PrometheusRule").context("no PrometheusRule is rendered")?;
    Ok(rule["spec"].clone())
}

/// Debian's `promtool`.
pub struct Promtool(PathBuf);

impl Promtool {
    /// The program that `RAMPART_PROMTOOL` names, if it names one.
    #[must_use]
    pub fn named() -> Option<Self> {
        std::env::var_os("RAMPART_PROMTOOL").map(|path| Self(path.into()))
    }

    /// Whether the rules are rules.
    ///
    /// # Errors
    /// What promtool says of them.
    pub fn check(&self, rules: &Value) -> Result<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("rules.yaml");
        fs::write(&file, rules.to_string())?;
        self.run("check", &file)
    }

    /// Whether the rules do what a file of unit tests says; it names them `rules.yaml`.
    ///
    /// # Errors
    /// What promtool says of them.
    pub fn test(&self, rules: &Value, tests: &str) -> Result<()> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("rules.yaml"), rules.to_string())?;
        let file = directory.path().join("tests.yaml");
        fs::write(&file, tests)?;
        self.run("test", &file)
    }

    fn run(&self, verb: &str, file: &Path) -> Result<()> {
        let output = Command::new(&self.0).args([verb, "rules"]).arg(file).output().context("running promtool")?;
        if output.status.success() {
            return Ok(());
        }
        bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

/// What a process serves, as series of a unit test that stay as they are for 25 hours. There, time begins at 0; so
/// moments are told from `now`, and one that is renewed goes on being renewed.
#[must_use]
pub fn standing_still(metrics: &str, pod: &str, now: i64) -> Vec<Value> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    let series = samples.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let comma = if labels == "}" { "" } else { "," };
        let value = value.parse::<f64>().ok()?;
        let value = if name.ends_with("_timestamp_seconds") { value - f64::from(i32::try_from(now).ok()?) } else { value };
        let step = if name.ends_with("_heard_timestamp_seconds") { 60 } else { 0 };
        Some(json!({"series": format!("{name}{{pod=\"{pod}\"{comma}{labels}"), "values": format!("{value}+{step}x1500")}))
    });
    series.collect()
}
