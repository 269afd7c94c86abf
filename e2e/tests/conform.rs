//! Everything that Rampart ships or renders for a cluster, judged by kubeconform: no field that its kind has not, on the
//! newest Kubernetes and on the oldest that is supported.

use std::{
    fs, iter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::{
    binaries::{DEFAULT_KUBERNETES, OLDEST_KUBERNETES},
    chart::{self, Helm},
    conform::{Judge, Summary, Told},
    fixtures, operator,
};

/// What is no manifest: test data of Argo CD.
const OTHERS: [&str; 1] = ["health_test.yaml"];

/// What `rampart render` makes something of.
const RENDERED: [&str; 6] = [
    "packs",
    "samples/00-namespace.yaml",
    "samples/securitypolicy.yaml",
    "samples/01-clustersecuritypolicy.yaml",
    "samples/legalhold.yaml",
    "samples/clusterlegalhold.yaml",
];

/// Puts everything into a directory, a file a source.
fn gather(directory: &Path) -> Result<()> {
    let helm = Helm::new()?;
    for (nth, values) in iter::once::<&[&str]>(&[]).chain(chart::SHAPES).chain(chart::MONITORED).enumerate() {
        fs::write(directory.join(format!("chart-{nth}.yaml")), helm.template(values)?)?;
    }
    for root in ["manifests", "crds"] {
        for path in files(&fixtures::repository().join(root))? {
            let shown = path.strip_prefix(fixtures::repository())?.display().to_string();
            fs::copy(&path, directory.join(shown.replace('/', "-")))?;
        }
    }
    for (name, flags) in [("rendered", &[][..]), ("static", &["--static"])] {
        let mut command = Command::new(operator::binary()?);
        command.args(["render", "--network-cluster-cidrs=10.0.0.0/8"]).args(flags);
        let output = command.args(RENDERED.map(|it| fixtures::repository().join("manifests").join(it))).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::write(directory.join(format!("{name}.yaml")), output.stdout)?;
    }
    Ok(())
}

/// Every manifest below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|it| it == "yaml") && !OTHERS.iter().any(|name| path.ends_with(name)) {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn everything_that_is_shipped_or_rendered_conforms() -> Result<()> {
    let directory = tempfile::tempdir()?;
    gather(directory.path())?;
    let documents: Vec<usize> =
        files(directory.path())?.iter().map(|path| Ok(fixtures::documents(path)?.len())).collect::<Result<_>>()?;
    ensure!(documents.iter().all(|count| *count > 0), "a file without a document");
    for kubernetes in [DEFAULT_KUBERNETES, OLDEST_KUBERNETES] {
        let Told { resources, summary } = Judge::new(kubernetes)?.told(directory.path())?;
        ensure!(resources.is_empty(), "Kubernetes {kubernetes}: {resources:#?}");
        // Each was looked at, and none for want of a schema passed over.
        let all = Summary { valid: documents.iter().sum(), invalid: 0, errors: 0, skipped: 0 };
        ensure!(summary == all, "{summary:?}, of {all:?}");
        println!("Kubernetes {kubernetes}: {} documents of {} files conform", all.valid, documents.len());
    }
    Ok(())
}

/// A file, what is broken in it, and what the judge names then.
const BROKEN: [(&str, &str, &str, &str); 9] = [
    ("install.yaml", "  replicas: 2", "  replica: 2", "replica"),
    ("install.yaml", "  replicas: 2", "  replicas: two", "replicas"),
    ("install.yaml", "  replicas: 2", "  replicas: 2\n  replicas: 2", "already set"),
    ("install.yaml", "kind: Deployment", "kind: Deploymnt", "could not find schema for Deploymnt"),
    ("install.yaml", "  failurePolicy: Fail", "  failurePolicies: Fail", "failurePolicies"),
    ("samples/securitypolicy.yaml", "  hardening:", "  hardning:", "hardning"),
    ("samples/apikey.yaml", "  owner:", "  owners:", "owner"),
    ("packs/baseline.yaml", "mode: Warn", "mode: Warned", "mode"),
    ("packs/baseline.yaml", "metadata:", "metadata:\n  labelz: {a: b}", "labelz"),
];

#[test]
fn what_is_broken_does_not() -> Result<()> {
    let judge = Judge::new(DEFAULT_KUBERNETES)?;
    for (file, find, replace, named) in BROKEN {
        let text = fs::read_to_string(fixtures::repository().join("manifests").join(file))?;
        ensure!(text.contains(find), "{file} has no {find:?}");
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("broken.yaml"), text.replacen(find, replace, 1))?;
        let Told { resources, .. } = judge.told(directory.path())?;
        let told = resources.first().with_context(|| format!("{file} with {replace:?} conforms"))?;
        ensure!(resources.len() == 1 && told.msg.contains(named), "{file} with {replace:?}: {resources:#?}");
    }
    Ok(())
}
