//! Programs of other people that judge ours, asked; [`rampart_programs::judges`] builds them.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
pub use rampart_programs::judges::{argocd, flux, live, network, pss, pss_module, webhook};
use rampart_programs::judges::{build, sources};
use serde::Deserialize;

/// A fault to seed into a copy of the reference evaluator.
#[derive(Debug, Deserialize)]
pub struct Fault {
    /// What is wrong then.
    pub name: String,
    file: String,
    find: String,
    replace: String,
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
