//! `rampart-pss` beside the reference evaluator, on the same pods, one after the other, on one core.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Result;
use rampart_e2e::{judges, pods::Pods};
use rampart_pss::{Level, Pod, Version, aggregate, evaluate, reasons};
use serde_json::Value;

use super::at_least;

const PODS: u32 = 2_000;
/// As many as the judge makes.
const ROUNDS: u32 = 25;

fn judge(pod: &Pod<'_>) {
    let violations = evaluate(Level::Restricted, Version::LATEST, pod);
    black_box((reasons(&violations), aggregate(&violations)));
}

fn nanoseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(ROUNDS * PODS)
}

/// Times both.
pub(super) fn bench() -> Result<bool> {
    let lines: Vec<String> = Pods::new(7).take(PODS as usize).map(|made| made.pod.to_string()).collect();
    let bytes: usize = lines.iter().map(String::len).sum();
    let answer = judges::ask(&judges::pss()?, &["bench", "restricted"], lines.clone())?.concat();
    let reference: Value = serde_json::from_str(&answer)?;

    let pods: Vec<Pod<'_>> = lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let began = Instant::now();
    for _ in 0..ROUNDS {
        pods.iter().for_each(judge);
    }
    let decoded = nanoseconds(began.elapsed());
    let began = Instant::now();
    for _ in 0..ROUNDS {
        for line in &lines {
            judge(&serde_json::from_slice(line.as_bytes())?);
        }
    }
    let json = nanoseconds(began.elapsed());

    println!("{PODS} mixed pods of {} bytes at restricted:latest, verdict and text", bytes / lines.len());
    let mut good = true;
    for (what, ours, field) in [("decoded", decoded, "decoded"), ("from JSON", json, "json")] {
        let theirs = reference[field].as_f64().unwrap_or_default();
        println!("  {what}: {ours:.0} ns a pod, the reference {theirs:.0} ns");
        good &= at_least(&format!("rampart-pss against the reference, {what}"), theirs / ours, 3.0, "times as fast");
    }
    Ok(good)
}
