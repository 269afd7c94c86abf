//! `rampart-pss` beside the reference evaluator, on the same pods, one after the other, on one core.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rampart_e2e::{judges, pods::Pods};
use rampart_pss::{Level, Pod, Version, aggregate, evaluate, reasons};
use serde_json::Value;

use super::{at_least, median};

const PODS: u32 = 2_000;
/// As many as the judge makes.
const ROUNDS: u32 = 25;
const PASSES: u32 = 7;

fn judge(pod: &Pod<'_>) {
    let violations = evaluate(Level::Restricted, Version::LATEST, pod);
    black_box((reasons(&violations), aggregate(&violations)));
}

fn nanoseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(ROUNDS * PODS)
}

/// What both need for a pod, in nanoseconds, in one pass that times one after the other.
struct Pass {
    decoded: [f64; 2],
    json: [f64; 2],
}

impl Pass {
    fn time(lines: &[String], pods: &[Pod<'_>]) -> Result<Self> {
        let answer = judges::ask(&judges::pss()?, &["bench", "restricted"], lines.to_vec())?.concat();
        let reference: Value = serde_json::from_str(&answer)?;
        let theirs = |field: &str| reference[field].as_f64().context("the judge names no time");
        let began = Instant::now();
        for _ in 0..ROUNDS {
            pods.iter().for_each(judge);
        }
        let decoded = nanoseconds(began.elapsed());
        let began = Instant::now();
        for _ in 0..ROUNDS {
            for line in lines {
                judge(&serde_json::from_slice(line.as_bytes())?);
            }
        }
        let json = nanoseconds(began.elapsed());
        Ok(Self { decoded: [decoded, theirs("decoded")?], json: [json, theirs("json")?] })
    }
}

/// Times both, again and again: the speed of a shared machine changes within seconds. The median of the
/// ratios counts.
pub(super) fn bench() -> Result<bool> {
    let lines: Vec<String> = Pods::new(7).take(PODS as usize).map(|made| made.pod.to_string()).collect();
    let bytes: usize = lines.iter().map(String::len).sum();
    let pods: Vec<Pod<'_>> = lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let passes: Vec<Pass> = (0..PASSES).map(|_| Pass::time(&lines, &pods)).collect::<Result<_>>()?;

    println!(
        "{PODS} mixed pods of {} bytes at restricted:latest, verdict and text, {PASSES} passes",
        bytes / lines.len()
    );
    let mut good = true;
    for (what, times) in [
        ("decoded", passes.iter().map(|pass| pass.decoded).collect::<Vec<_>>()),
        ("from JSON", passes.iter().map(|pass| pass.json).collect()),
    ] {
        let [ours, theirs] = [0, 1].map(|who| median(times.iter().map(|pair| pair[who])));
        println!("  {what}: {ours:.0} ns a pod, the reference {theirs:.0} ns");
        let ratio = median(times.iter().map(|[ours, theirs]| theirs / ours));
        good &= at_least(&format!("rampart-pss against the reference, {what}"), ratio, 3.0, "times as fast");
    }
    Ok(good)
}
