//! What alerts and dashboard ask, against what the three processes of an installation serve.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use rampart::runtime::metrics::Metrics;
use rampart_e2e::{
    Verifier,
    alerts::{Promtool, rules, standing_still},
    chart,
    metrics::value_of,
};
use serde_json::{Value, json};

/// Served once something was counted; the rest is served from the start.
const COUNTED_LATER: [&str; 2] = [
    "controller_runtime_reconcile_errors", /* nothing fails here */
    "rampart_drift_reverted",              /* nor changes */
];
/// Only of one process, so that its absence says something.
const OF_ONE: [(&str, &str); 3] = [
    ("webhook", "rampart_webhook_certificate_expiration_timestamp_seconds"),
    ("verifier", "rampart_apikey_index_heard_timestamp_seconds"),
    ("controller", "leader_election_master_status"),
];

/// Names and types of what a process serves.
fn types(metrics: &str) -> BTreeMap<&str, &str> {
    metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// The names of metrics in a text: words that begin like ours.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let begin = ["rampart_", "controller_runtime_", "leader_election_", "rest_client_", "pod_security_"];
    words.filter(|word| begin.iter().any(|it| word.starts_with(it))).collect()
}

/// The name without what the text format adds to that of a counter or a histogram.
fn bare(name: &str) -> &str {
    ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

/// Every metric that is asked is one that a process serves, and what is served is documented.
pub(crate) fn what_is_asked_is_served(served: &[(&str, String)]) -> Result<()> {
    let all: BTreeMap<&str, &str> = served.iter().flat_map(|(_, metrics)| types(metrics)).collect();
    let files = chart::directory().join("files");
    let asked = [files.join("alerts.yaml"), files.join("dashboard.json")].map(std::fs::read_to_string);
    let [alerts, dashboard] = asked;
    let text = format!("{}\n{}", alerts?, dashboard?);
    let names = metrics_in(&text);
    let missing: Vec<&&str> =
        names.iter().filter(|it| !all.contains_key(bare(it)) && !COUNTED_LATER.contains(&bare(it))).collect();
    ensure!(names.len() > 20 && missing.is_empty(), "nobody serves {missing:?} of the {} that are asked", names.len());

    let known = Metrics::default().names()?;
    let known: BTreeMap<&str, &str> = known.iter().map(|it| (bare(&it.name), it.form.as_str())).collect();
    for name in COUNTED_LATER {
        ensure!(known.contains_key(name), "{name} is not registered");
    }
    let unknown: Vec<_> = all.iter().filter(|(name, form)| known.get(*name) != Some(form)).collect();
    ensure!(unknown.is_empty(), "not in docs/reference/metrics.md: {unknown:?}");
    for (of, name) in OF_ONE {
        let serving: Vec<&str> =
            served.iter().filter(|(_, metrics)| types(metrics).contains_key(name)).map(|(pod, _)| *pod).collect();
        ensure!(serving == [of], "{name} is served by {serving:?}");
    }
    Ok(())
}

/// When a verifier last heard of the API server, Unix seconds.
pub(crate) async fn heard(verifier: &Verifier) -> Result<i64> {
    let (_, metrics) = verifier.admin("/metrics").await?;
    value_of(&metrics, "rampart_apikey_index_heard_timestamp_seconds").context("it does not say when it heard")
}

/// No alert fires, however long an installation stays as it is.
pub(crate) fn a_healthy_installation_alerts_of_nothing(served: &[(&str, String)]) -> Result<()> {
    let Some(promtool) = Promtool::named() else {
        println!("skipped: RAMPART_PROMTOOL does not name a promtool (Debian: prometheus)");
        return Ok(());
    };
    let now = Timestamp::now().as_second();
    let series: Vec<Value> = served.iter().flat_map(|(pod, metrics)| standing_still(metrics, pod, now)).collect();
    let rules = rules()?;
    let groups = rules["groups"].as_array().context("no groups")?;
    let names = groups.iter().filter_map(|it| it["rules"].as_array()).flatten().map(|it| &it["alert"]);
    let silent =
        |name: &Value| ["20m", "1h", "25h"].map(|at| json!({"eval_time": at, "alertname": name, "exp_alerts": []}));
    let tests = json!({
        "rule_files": ["rules.yaml"], "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": names.flat_map(silent).collect::<Vec<_>>()}],
    });
    promtool.test(&rules, &tests.to_string()).context("a healthy installation alerts")
}
