//! Programs of other people that judge ours: small Go mains in `e2e/judges` around published modules,
//! built once into the cache of [`crate::binaries`].

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{binaries, fetch, fixtures};

/// The reference evaluator of the Pod Security Standards.
const PSS_MODULE: &str = "k8s.io/pod-security-admission";

/// A fault to seed into a copy of the reference evaluator.
#[derive(Debug, Deserialize)]
pub struct Fault {
    /// What is wrong then.
    pub name: String,
    file: String,
    find: String,
    replace: String,
}

fn sources(judge: &str) -> PathBuf {
    fixtures::repository().join("e2e/judges").join(judge)
}

/// The judge of the Pod Security Standards.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn pss() -> Result<PathBuf> {
    build("pss", &[])
}

/// Upstream's suite for a running cluster.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn live() -> Result<PathBuf> {
    build("live", &[])
}

/// The reference as a webhook of its own.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn webhook() -> Result<PathBuf> {
    build("webhook", &[])
}

/// The cases of cyclonus and its simulated engine.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn network() -> Result<PathBuf> {
    build("network", &[])
}

/// Health and differences as Argo CD sees them.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn argocd() -> Result<PathBuf> {
    build("argocd", &[])
}

/// Health as kstatus and Flux see it.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn flux() -> Result<PathBuf> {
    build("flux", &[])
}

/// Where the reference evaluator's module is unpacked: its fixtures are there.
///
/// # Errors
/// When Go is missing or the module can't be had.
pub fn pss_module() -> Result<PathBuf> {
    let go = fetch::output(binaries::go(&sources("pss")).args(["mod", "download", "-json", PSS_MODULE]))?;
    let answer: Value = serde_json::from_slice(&go.stdout)?;
    Ok(answer["Dir"].as_str().with_context(|| format!("no directory of {PSS_MODULE}: {answer}"))?.into())
}

/// The faults that are seeded into copies of the reference evaluator.
///
/// # Errors
/// When the list can't be read.
pub fn pss_faults() -> Result<Vec<Fault>> {
    let path = sources("pss").join("faults.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(serde_saphyr::from_str(&text)?)
}

/// The judge, with a faulty copy of the evaluator beside it for each fault.
///
/// # Errors
/// When a fault does not fit the evaluator's source, or the build fails.
pub fn pss_with_faults(faults: &[Fault]) -> Result<PathBuf> {
    let policy = pss_module()?.join("policy");
    let mut sources = vec![];
    for entry in fs::read_dir(&policy)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.extension().is_some_and(|it| it == "go") && !name.ends_with("_test.go") {
            sources.push((name, fs::read_to_string(path)?));
        }
    }
    let mut files = vec![];
    let (mut imports, mut registered) = (String::new(), String::new());
    for (number, fault) in faults.iter().enumerate() {
        writeln!(imports, "\tf{number} \"rampart.dev/e2e/judges/pss/f{number}\"")?;
        writeln!(
            registered,
            "\tif e, err := f{number}.NewEvaluator(f{number}.DefaultChecks(), nil); err != nil {{ must(err) }} else {{ \
             faulty[{:?}] = func(lv api.LevelVersion, m *metav1.ObjectMeta, s *corev1.PodSpec) (bool, string, string) {{ \
             all := f{number}.AggregateCheckResults(e.EvaluatePod(lv, m, s)); \
             return all.Allowed, all.ForbiddenReason(), all.ForbiddenDetail() }} }}",
            fault.name
        )?;
        let mut seeded = false;
        for (name, text) in &sources {
            let is_it = *name == fault.file && text.contains(&fault.find);
            seeded |= is_it;
            let text = if is_it { text.replace(&fault.find, &fault.replace) } else { text.clone() };
            files.push((format!("f{number}/{name}"), text));
        }
        ensure!(seeded, "fault {:?}: {} does not hold {:?}", fault.name, fault.file, fault.find);
    }
    let list = format!(
        "package main\n\nimport (\n\tcorev1 \"k8s.io/api/core/v1\"\n\tmetav1 \"k8s.io/apimachinery/pkg/apis/meta/v1\"\n\
         \t\"k8s.io/pod-security-admission/api\"\n{imports})\n\nfunc init() {{\n{registered}}}\n"
    );
    files.push(("faults.go".into(), list));
    build("pss", &files)
}

/// Builds a judge with files added to its sources.
fn build(judge: &str, added: &[(String, String)]) -> Result<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(sources(judge))? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "go" || it == "mod" || it == "sum") {
            let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
            files.push((name.to_owned(), fs::read_to_string(&path)?));
        }
    }
    files.sort();
    files.extend_from_slice(added);
    let mut key = Sha256::new();
    for (name, text) in &files {
        key.update(format!("{name}\0{text}\0"));
    }
    let key = hex::encode(key.finalize().iter().take(6).copied().collect::<Vec<u8>>());
    let cache = binaries::cache_dir()?;
    fs::create_dir_all(&cache)?;
    let target = cache.join(format!("judge-{judge}-{key}"));
    let lock = fs::File::create(cache.join("judges.lock"))?;
    lock.lock()?;
    if target.exists() {
        return Ok(target);
    }
    let scratch = tempfile::tempdir()?;
    for (name, text) in files {
        let path = scratch.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(path, text)?;
    }
    let partial = target.with_extension("partial");
    let go = ["build", "-ldflags", binaries::STRIPPED, "-o"];
    let go = fetch::output(binaries::go(scratch.path()).args(go).arg(&partial))?;
    if !go.status.success() {
        bail!("building the judge {judge}: {}", String::from_utf8_lossy(&go.stderr));
    }
    fs::rename(partial, &target)?;
    Ok(target)
}

/// Runs a judge over lines, and returns the lines that it answers.
///
/// # Errors
/// When it can't be run, or exits with an error.
pub fn ask(judge: &Path, args: &[&str], lines: Vec<String>) -> Result<Vec<String>> {
    let mut child = Command::new(judge).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("standard input of the judge")?;
    let writer = std::thread::spawn(move || {
        lines.iter().try_for_each(|line| input.write_all(line.as_bytes()).and_then(|()| input.write_all(b"\n")))
    });
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{} {args:?}: {}", judge.display(), output.status);
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    Ok(String::from_utf8(output.stdout)?.lines().map(ToOwned::to_owned).collect())
}
