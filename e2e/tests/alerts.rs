//! The alerts, judged by promtool: unit tests in `e2e/judges/alerts`, and faults that these must find.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::{
    alerts::{Promtool, rules},
    fixtures,
};
use serde_json::{Value, json};

/// The files of unit tests, by name.
fn files() -> Result<BTreeMap<String, String>> {
    let directory = fixtures::repository().join("e2e/judges/alerts");
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "yaml") {
            files.insert(path.display().to_string(), fs::read_to_string(&path)?);
        }
    }
    ensure!(!files.is_empty(), "no unit tests");
    Ok(files)
}

fn promtool() -> Result<Promtool> {
    Promtool::named().context("RAMPART_PROMTOOL does not name a promtool (make test-judges)")
}

fn each<'a>(of: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of[field].as_array().into_iter().flatten()
}

/// The names of all alerts, with the minutes that they wait.
fn alerts(rules: &Value) -> Result<Vec<(String, i64)>> {
    let all = each(rules, "groups").flat_map(|group| each(group, "rules"));
    all.map(|rule| {
        let wait = rule["for"].as_str().context("no for")?;
        let minutes = match wait.strip_suffix('h') {
            Some(hours) => hours.parse::<i64>()? * 60,
            None => wait.strip_suffix('m').context("neither hours nor minutes")?.parse()?,
        };
        Ok((rule["alert"].as_str().context("no name")?.to_owned(), minutes))
    })
    .collect()
}

#[test]
fn alerts_fire_when_they_must_and_not_before() -> Result<()> {
    let (promtool, rules) = (promtool()?, rules()?);
    promtool.check(&rules)?;
    for (name, tests) in files()? {
        promtool.test(&rules, &tests).with_context(|| name)?;
    }
    Ok(())
}

#[test]
fn every_alert_is_seen_to_fire_and_to_be_silent() -> Result<()> {
    let mut seen = BTreeMap::<String, (usize, usize)>::new();
    for text in files()?.values() {
        let tests: Value = serde_saphyr::from_str(text)?;
        for test in each(&tests, "tests").flat_map(|test| each(test, "alert_rule_test")) {
            let (loud, silent) = seen.entry(test["alertname"].as_str().unwrap_or_default().into()).or_default();
            let fires = test["exp_alerts"].as_array().is_some_and(|it| !it.is_empty());
            *if fires { loud } else { silent } += 1;
        }
    }
    for (alert, _) in alerts(&rules()?)? {
        let (loud, silent) = seen.remove(&alert).unwrap_or_default();
        ensure!(loud > 0 && silent > 0, "{alert}: {loud} tests where it fires, {silent} where it does not");
    }
    ensure!(seen.is_empty(), "tests of alerts that are not there: {seen:?}");
    Ok(())
}

/// The rule of one alert alone, changed.
fn faulty(rules: &Value, alert: &str, change: impl Fn(&mut Value)) -> Value {
    let all = each(rules, "groups").flat_map(|group| each(group, "rules"));
    let mut rule: Vec<Value> = all.filter(|it| it["alert"] == alert).cloned().collect();
    rule.iter_mut().for_each(change);
    json!({"groups": [{"name": "faulty", "rules": rule}]})
}

/// What the unit tests say of one alert.
fn about(files: &BTreeMap<String, String>, alert: &str) -> Result<String> {
    let mut tests = vec![];
    for text in files.values() {
        let all: Value = serde_saphyr::from_str(text)?;
        for mut test in each(&all, "tests").cloned() {
            let of = test["alert_rule_test"].as_array_mut().context("a test of nothing")?;
            of.retain(|it| it["alertname"] == alert);
            if !of.is_empty() {
                tests.push(test);
            }
        }
    }
    Ok(json!({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}).to_string())
}

/// A test that holds whatever the rule says is none: each fault must be found.
#[test]
fn faults_in_the_rules_are_found() -> Result<()> {
    let (promtool, rules, files) = (promtool()?, rules()?, files()?);
    let mut missed = vec![];
    for (alert, minutes) in alerts(&rules)? {
        let tests = about(&files, &alert)?;
        let whole = faulty(&rules, &alert, |_| {});
        promtool.test(&whole, &tests).with_context(|| alert.clone())?;
        let faults = [
            ("never fires", faulty(&rules, &alert, |rule| rule["expr"] = json!("vector(1) > 2"))),
            ("always fires", faulty(&rules, &alert, |rule| rule["expr"] = json!("vector(1)"))),
            ("waits longer", faulty(&rules, &alert, |rule| rule["for"] = json!(format!("{}m", minutes + 1)))),
            ("waits less", faulty(&rules, &alert, |rule| rule["for"] = json!(format!("{}m", (minutes - 1).max(0))))),
            ("has another severity", faulty(&rules, &alert, |rule| rule["labels"]["severity"] = json!("none"))),
            ("leads nowhere", faulty(&rules, &alert, |rule| rule["annotations"]["runbook_url"] = json!("#"))),
        ];
        for (fault, faulty) in faults.into_iter().filter(|(_, faulty)| *faulty != whole) {
            if promtool.test(&faulty, &tests).is_ok() {
                missed.push(format!("{alert} {fault}"));
            }
        }
    }
    ensure!(missed.is_empty(), "not found: {missed:?}");
    Ok(())
}
