//! The Helm chart, and what is rendered from it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{binaries, fixtures};

/// Namespace of every installation.
pub const NAMESPACE: &str = "rampart-system";
/// Name of the release, here and in the docs.
pub const RELEASE: &str = "rampart";

/// Everything that can be on, on; and the opposite; but for kinds that not every API server has.
pub const SHAPES: [&[&str]; 3] = [
    &[
        "metrics.dashboard.enabled=true",
        "network.clusterCidrs={10.0.0.0/8}",
        "verifier.adminPaths={/admin}",
        "features.openReports=true",
    ],
    &["webhook.hostNetwork=true", "webhook.port=10260", "networkPolicy.apiServer.cidrs={10.0.0.1/32}"],
    &[
        "features.apiKeys=false",
        "features.retention=false",
        "features.hardening=false",
        "features.network=false",
        "verifier.enabled=false",
        "networkPolicy.enabled=false",
        "podDisruptionBudget.enabled=false",
        "topologySpread.enabled=false",
        "priorityClassName=",
    ],
];

/// With kinds of prometheus-operator.
pub const MONITORED: [&[&str]; 2] = [
    &[
        "metrics.podMonitor.enabled=true",
        "metrics.prometheusRule.enabled=true",
        "metrics.prometheusRule.labels.release=prometheus",
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring",
    ],
    &["metrics.serviceMonitor.enabled=true", "metrics.dashboard.enabled=true"],
];

/// Helm, with no configuration of the user's.
pub struct Helm {
    program: PathBuf,
    home: tempfile::TempDir,
    kubeconfig: Option<PathBuf>,
}

impl Helm {
    /// For rendering alone.
    ///
    /// # Errors
    /// When Helm can't be built.
    pub fn new() -> Result<Self> {
        Ok(Self { program: binaries::ensure_helm()?, home: tempfile::tempdir()?, kubeconfig: None })
    }

    /// For the cluster of a kubeconfig.
    ///
    /// # Errors
    /// When Helm can't be built.
    pub fn of_cluster(kubeconfig: &Path) -> Result<Self> {
        Ok(Self { kubeconfig: Some(kubeconfig.to_owned()), ..Self::new()? })
    }

    /// What it prints.
    ///
    /// # Errors
    /// When it refuses; the text is its own.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(args).env("HOME", self.home.path());
        for name in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "HELM_NAMESPACE", "KUBECONFIG"] {
            command.env_remove(name);
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let output = command.output().context("running helm")?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            // It tells of each link in the chart.
            let told: Vec<&str> = told.lines().filter(|line| !line.starts_with("level=INFO")).collect();
            bail!("helm {}: {}", args.first().unwrap_or(&""), told.join("\n"));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The chart, rendered with values of the form `a.b=c`.
    ///
    /// # Errors
    /// When Helm refuses the values.
    pub fn template(&self, values: &[&str]) -> Result<String> {
        let chart = directory().display().to_string();
        let mut args = vec!["template", RELEASE, &chart, "--namespace", NAMESPACE, "--kube-version", "1.37.1"];
        args.extend(values.iter().flat_map(|value| ["--set", *value]));
        self.run(&args)
    }

    /// What `manifests/install.yaml` must be: the install namespace, which Helm makes, and the chart without hooks, which
    /// nobody would run. Nothing twice, which kustomize, and so Flux, refuses.
    ///
    /// # Errors
    /// When Helm refuses.
    pub fn install_yaml(&self) -> Result<String> {
        let namespaces = fs::read_to_string(fixtures::repository().join("manifests/namespaces.yaml"))?;
        let install = namespaces.split("---\n").next().unwrap_or_default();
        let rendered = self.template(&["uninstall.hook=false"])?;
        Ok(format!(
            "# Rampart without Helm: kubectl apply --server-side -f install.yaml (docs/install.md).\n\
             # Rendered from charts/rampart by `make generate`; do not edit.\n{install}{rendered}"
        ))
    }
}

/// Where the chart is.
#[must_use]
pub fn directory() -> PathBuf {
    fixtures::repository().join("charts/rampart")
}
