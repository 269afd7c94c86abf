//! What kubeconform says of manifests: by schemas that are made here of sources that Go verifies, and of our own CRDs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{binaries, fixtures, schemas};

/// Kinds of other projects that our manifests hold: a module, its hash, and the definition in it.
const FOREIGN: [(&str, &str, &str); 4] = [
    (PROMETHEUS.0, PROMETHEUS.1, "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"),
    (PROMETHEUS.0, PROMETHEUS.1, "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"),
    (PROMETHEUS.0, PROMETHEUS.1, "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"),
    (FLUX.0, FLUX.1, "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml"),
];
const PROMETHEUS: (&str, &str) =
    ("github.com/prometheus-operator/prometheus-operator@v0.85.0", "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=");
const FLUX: (&str, &str) =
    ("github.com/fluxcd/kustomize-controller@v1.9.6", "h1:XB+G3A0mky0j5uVHZWv4oSlS2RvZBoNIUhstIvY0JKE=");

/// kubeconform, with the schemas of one Kubernetes version.
pub struct Judge {
    program: PathBuf,
    schemas: tempfile::TempDir,
}

/// What it found.
#[derive(Debug, Deserialize)]
pub struct Told {
    /// Documents that are not as they should be.
    pub resources: Vec<Resource>,
    /// How many are what.
    pub summary: Summary,
}

/// A document that is not as it should be.
#[derive(Debug, Deserialize)]
pub struct Resource {
    /// File that it stands in.
    pub filename: String,
    /// What is wrong.
    pub msg: String,
}

/// Counts of documents.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub struct Summary {
    pub valid: usize,
    pub invalid: usize,
    pub errors: usize,
    pub skipped: usize,
}

impl Judge {
    /// By the kinds of a Kubernetes version, ours, and those of others that we use.
    ///
    /// # Errors
    /// When kubeconform can't be built, or a source of schemas can't be had.
    pub fn new(kubernetes: &str) -> Result<Self> {
        let (program, schemas) = (binaries::ensure_kubeconform()?, tempfile::tempdir()?);
        schemas::of_kubernetes(kubernetes, schemas.path())?;
        for entry in fs::read_dir(fixtures::repository().join("crds"))? {
            schemas::of_crds(&fs::read_to_string(entry?.path())?, kubernetes, schemas.path())?;
        }
        for (module, hash, file) in FOREIGN {
            schemas::of_crds(&binaries::foreign_file(module, hash, file)?, kubernetes, schemas.path())?;
        }
        Ok(Self { program, schemas })
    }

    /// Judges every YAML file of a directory.
    ///
    /// # Errors
    /// When kubeconform can't be run, or answers nothing that can be read.
    pub fn told(&self, directory: &Path) -> Result<Told> {
        let location = format!("{}/{}", self.schemas.path().display(), schemas::TEMPLATE);
        let mut command = Command::new(&self.program);
        command.args(["-strict", "-summary", "-output", "json", "-schema-location", &location]).arg(directory);
        let output = command.output().context("running kubeconform")?;
        let read = serde_json::from_slice(&output.stdout);
        read.with_context(|| format!("kubeconform: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
