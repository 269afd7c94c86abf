//! `rampart-pss` beside the reference evaluator, on random pods of a new seed each run and on the
//! reference's own fixtures. No difference is allowed, in verdict, reason or detail.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::{fixtures, judges, pods::Pods};
use rampart_pss::{Level, Pod, Version, aggregate, evaluate, reasons};
use serde::Deserialize;
use serde_json::{Value, json};

/// Pods a run; times 2 levels and 39 versions.
const PODS: usize = 20_000;
/// Pods within which the generator must find every seeded fault.
const PODS_FOR_FAULTS: usize = 3_000;
/// The index of `latest` after v1.0 to v1.37.
const LATEST: u32 = 38;

/// What the reference says from a version on.
#[derive(Debug, Deserialize, PartialEq)]
struct Verdict {
    since: u32,
    allowed: bool,
    reason: String,
    detail: String,
}

#[derive(Debug, Deserialize)]
struct Verdicts {
    baseline: Vec<Verdict>,
    restricted: Vec<Verdict>,
}

fn version(index: u32) -> Version {
    if index == LATEST { Version::LATEST } else { Version::minor(index) }
}

/// Compares at both levels and all versions; returns how many comparisons were made.
fn compare(text: &str, reference: &str) -> Result<usize> {
    let reference: Verdicts = serde_json::from_str(reference)?;
    let pod: Pod<'_> = serde_json::from_str(text).with_context(|| text.to_owned())?;
    let mut compared = 0;
    for (level, wanted) in [(Level::Baseline, reference.baseline), (Level::Restricted, reference.restricted)] {
        for index in 0..=LATEST {
            let violations = evaluate(level, version(index), &pod);
            let wanted = wanted.iter().rev().find(|verdict| verdict.since <= index).context("no verdict")?;
            let ours = (violations.is_empty(), reasons(&violations), aggregate(&violations));
            let theirs = (wanted.allowed, wanted.reason.clone(), wanted.detail.clone());
            ensure!(ours == theirs, "{level}:{}\n  ours      {ours:?}\n  reference {theirs:?}\n{text}", version(index));
            compared += 1;
        }
    }
    Ok(compared)
}

fn compare_all(pods: &[String]) -> Result<usize> {
    let answers = judges::ask(&judges::pss()?, &["eval"], pods.to_vec())?;
    ensure!(answers.len() == pods.len(), "{} answers for {} pods", answers.len(), pods.len());
    pods.iter().zip(&answers).map(|(pod, answer)| compare(pod, answer)).sum()
}

fn random_pods(number: usize) -> Vec<String> {
    Pods::new(rampart_e2e::seed()).take(number).map(|made| made.pod.to_string()).collect()
}

#[test]
fn agrees_with_the_reference_on_random_pods() -> Result<()> {
    let compared = compare_all(&random_pods(PODS))?;
    println!("{compared} comparisons of verdict, reason and detail");
    ensure!(compared == PODS * 2 * 39);
    Ok(())
}

#[test]
fn the_generator_finds_every_seeded_fault() -> Result<()> {
    let faults = judges::pss_faults()?;
    ensure!(faults.len() >= 50, "only {} faults are listed", faults.len());
    let answer = judges::ask(&judges::pss_with_faults(&faults)?, &["faults"], random_pods(PODS_FOR_FAULTS))?;
    let found: Value = serde_json::from_str(&answer.concat())?;
    let found = found.as_object().context("an object")?;
    ensure!(found.len() == faults.len(), "{} of {} faults were tried", found.len(), faults.len());
    let missed: Vec<_> = found.iter().filter(|(_, pod)| pod.as_i64() == Some(-1)).map(|(name, _)| name).collect();
    let mut late: Vec<_> = found.iter().map(|(name, pod)| (pod.as_i64().unwrap_or_default(), name)).collect();
    late.sort();
    println!("found last: {:?}", late.iter().rev().take(3).collect::<Vec<_>>());
    ensure!(missed.is_empty(), "not found in {PODS_FOR_FAULTS} pods: {missed:#?}");
    Ok(())
}

/// What the crate's own tests compare with, without Go: made here, when `RAMPART_UPDATE` is set.
#[test]
fn the_corpus_of_the_crate_is_what_the_reference_says() -> Result<()> {
    const SEED: u64 = 1;
    const NUMBER: usize = 160;
    let pods: Vec<String> = Pods::new(SEED).take(NUMBER).map(|made| made.pod.to_string()).collect();
    let answers = judges::ask(&judges::pss()?, &["eval"], pods.clone())?;
    let lines: Vec<String> =
        pods.iter().zip(&answers).map(|(pod, answer)| format!("{{\"pod\":{pod},\"reference\":{answer}}}\n")).collect();
    let path = fixtures::repository().join("crates/pss/tests/corpus.jsonl");
    if std::env::var_os("RAMPART_UPDATE").is_some() {
        fs::write(&path, lines.concat())?;
    }
    ensure!(fs::read_to_string(&path)? == lines.concat(), "{} is stale: RAMPART_UPDATE=1", path.display());
    Ok(())
}

/// Volumes of a pod as the API server stores them: without a source they are `emptyDir`.
fn default_volumes(pod: &mut Value) {
    for volume in pod["spec"]["volumes"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        if volume.keys().all(|key| key == "name") {
            volume.insert("emptyDir".into(), json!({}));
        }
    }
}

fn yaml_files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            yaml_files(&path, found)?;
        } else if path.extension().is_some_and(|it| it == "yaml") {
            found.push(path);
        }
    }
    Ok(())
}

/// The fixtures lie in `testdata/LEVEL/vVERSION/{pass,fail}`.
#[test]
fn agrees_with_the_reference_on_its_fixtures() -> Result<()> {
    let root = judges::pss_module()?.join("test/testdata");
    let mut files = vec![];
    yaml_files(&root, &mut files)?;
    ensure!(files.len() == 4_537, "{} fixtures", files.len());
    let mut pods = vec![];
    for file in &files {
        let mut pod = fixtures::documents(file)?.pop().with_context(|| format!("{} is empty", file.display()))?;
        default_volumes(&mut pod);
        pods.push(pod.to_string());
    }
    compare_all(&pods)?;
    for (file, text) in files.iter().zip(&pods) {
        let parts: Vec<_> = file.strip_prefix(&root)?.iter().filter_map(|part| part.to_str()).collect();
        let [level, version, wanted, _] = parts.as_slice() else { anyhow::bail!("{}", file.display()) };
        let pod: Pod<'_> = serde_json::from_str(text)?;
        let violations = evaluate(level.parse()?, version.parse()?, &pod);
        ensure!(violations.is_empty() == (*wanted == "pass"), "{}: {violations:?}", file.display());
    }
    Ok(())
}
