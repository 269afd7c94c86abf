//! Small Go mains in `e2e/judges` around published modules, built once into the cache of [`crate::binaries`].

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{binaries, fetch};

/// The reference evaluator of the Pod Security Standards.
const PSS_MODULE: &str = "k8s.io/pod-security-admission";

/// Where a judge's main is.
#[must_use]
pub fn sources(judge: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../judges").join(judge)
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

/// Builds a judge with files added to its sources.
///
/// # Errors
/// When Go is missing or the build fails.
pub fn build(judge: &str, added: &[(String, String)]) -> Result<PathBuf> {
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
