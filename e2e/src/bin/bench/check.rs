//! `rampart check` over many manifests, beside only parsing them: whole processes, in turn.

use std::{
    fs,
    hint::black_box,
    num::NonZero,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::operator;
use serde_json::{Value, json};

use super::{figure, median, pod::pod};

/// The argument with which the bench only parses.
pub(crate) const PARSE: &str = "parse-manifests";

const MANIFESTS: usize = 10_000;
const RUNS: usize = 11;

pub(super) fn bench() -> Result<bool> {
    let dir = tempfile::tempdir()?;
    let mut bytes = 0;
    for nth in 0..MANIFESTS {
        let text = serde_saphyr::to_string(&manifest(nth))?;
        bytes += text.len();
        fs::write(dir.path().join(format!("{nth:05}.yaml")), text)?;
    }
    let check = || time(Command::new(operator::binary()?).arg("check").arg(dir.path()), 1);
    let parse = || time(Command::new(std::env::current_exe()?).arg(PARSE).arg(dir.path()), 0);
    // Once before it counts: the files are in memory then.
    check()?;
    parse()?;
    let runs: Vec<(f64, f64)> = (0..RUNS).map(|_| Ok((check()?, parse()?))).collect::<Result<_>>()?;
    println!(
        "{MANIFESTS} manifests of {} bytes, {RUNS} runs in turn: check {:.2} s, only parsing {:.2} s",
        bytes / MANIFESTS,
        median(runs.iter().map(|(check, _)| *check)),
        median(runs.iter().map(|(_, parse)| *parse))
    );
    let ratio = median(runs.iter().map(|(check, parse)| check / parse));
    Ok(figure("rampart check against only parsing", ratio, 1.3, "times"))
}

/// Seconds that a process takes, which must exit with this code.
fn time(command: &mut Command, code: i32) -> Result<f64> {
    let began = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.code() == Some(code), "{command:?}: {status}");
    Ok(began.elapsed().as_secs_f64())
}

/// What is in a shop's repository: most of it workloads, one in ten of them not as restricted asks.
fn manifest(nth: usize) -> Value {
    let (name, pod) = (format!("app-{nth}"), pod());
    let mut template = json!({"metadata": {"labels": pod["metadata"]["labels"]}, "spec": pod["spec"]});
    let of = |version: &str, kind: &str, mut rest: Value| {
        rest["apiVersion"] = json!(version);
        rest["kind"] = json!(kind);
        rest["metadata"] = json!({"name": name, "namespace": "shop", "labels": {"app.kubernetes.io/name": name}});
        rest
    };
    match nth % 10 {
        0 => {
            for container in template["spec"]["containers"].as_array_mut().into_iter().flatten() {
                container["securityContext"] = json!({"privileged": true});
            }
        }
        7 => {
            return of(
                "batch/v1",
                "CronJob",
                json!({"spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": template}}}}),
            );
        }
        8 => {
            let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
            return of(
                "v1",
                "Service",
                json!({"spec": {"selector": {"app.kubernetes.io/name": name}, "ports": ports}}),
            );
        }
        9 => {
            let config = "listen: :8080\nupstream:\n  host: postgres.shop.svc\n  pool: 16\n".repeat(12);
            return of("v1", "ConfigMap", json!({"data": {"config.yaml": config}}));
        }
        _ => {}
    }
    let selector = json!({"matchLabels": {"app.kubernetes.io/name": "checkout"}});
    of("apps/v1", "Deployment", json!({"spec": {"replicas": 2, "selector": selector, "template": template}}))
}

/// Parses every manifest of a directory, on as many threads as `rampart check` takes.
pub(crate) fn parse(dir: &str) -> Result<bool> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            files.chunks(files.len().div_ceil(cores).max(1)).map(|share| scope.spawn(|| parse_share(share))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    Ok(true)
}

fn parse_share(files: &[impl AsRef<Path>]) -> Result<()> {
    for file in files {
        let text = fs::read_to_string(file)?;
        let value: Value = serde_saphyr::from_str(&text).with_context(|| file.as_ref().display().to_string())?;
        black_box(value);
    }
    Ok(())
}
