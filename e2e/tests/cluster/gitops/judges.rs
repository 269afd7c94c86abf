//! The judges, asked.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use rampart_e2e::{fixtures, judges};
use serde::Deserialize;
use serde_json::Value;

/// Programs around the code of Argo CD, Flux and kstatus.
pub(super) struct Judges {
    argocd: PathBuf,
    flux: PathBuf,
}

/// What each says of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Argo CD, with the health checks of `manifests/gitops/argocd`.
    pub(super) argocd: String,
    /// kstatus, without any configuration.
    pub(super) kstatus: String,
    /// Flux' fork of it, likewise.
    pub(super) flux: String,
    /// Flux, with the expressions of `manifests/gitops/flux`.
    pub(super) expressions: String,
}

#[derive(Deserialize)]
struct OfFlux {
    kstatus: String,
    flux: String,
    expressions: String,
}

fn shipped(path: &str) -> String {
    fixtures::repository().join("manifests/gitops").join(path).display().to_string()
}

impl Judges {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { argocd: judges::argocd()?, flux: judges::flux()? })
    }

    pub(super) fn health(&self, objects: &[Value]) -> Result<Vec<Verdict>> {
        let lines = || objects.iter().map(ToString::to_string).collect();
        let argocd = judges::ask(&self.argocd, &["health", &shipped("argocd/argocd-cm.yaml")], lines())?;
        let flux = judges::ask(&self.flux, &[&shipped("flux/kustomization.yaml")], lines())?;
        ensure!(argocd.len() == objects.len() && flux.len() == objects.len(), "a judge has not answered each line");
        let told = argocd.iter().zip(&flux).map(|(argocd, flux)| {
            let argocd: Value = serde_json::from_str(argocd)?;
            let OfFlux { kstatus, flux, expressions } = serde_json::from_str(flux)?;
            let argocd = argocd["status"].as_str().unwrap_or_default().to_owned();
            Ok(Verdict { argocd, kstatus, flux, expressions })
        });
        told.collect()
    }

    /// What Argo CD would show as different, by its older method and by its newer one, of what was applied, is there, and
    /// would be there.
    pub(super) fn differences(&self, asked: &[Value]) -> Result<Vec<Value>> {
        let told = judges::ask(&self.argocd, &["diff"], asked.iter().map(ToString::to_string).collect())?;
        ensure!(told.len() == asked.len(), "{} answers to {} questions", told.len(), asked.len());
        told.iter().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// The health check with its test data, as Argo CD's own repository would test it.
    pub(super) fn tests_of_argo_cd(&self) -> Result<()> {
        let told =
            judges::ask(&self.argocd, &["tests", &shipped("argocd/resource_customizations/rampart.dev/_")], vec![])?;
        ensure!(told.first().is_some_and(|count| count.parse().is_ok_and(|count: usize| count >= 5)), "{told:?}");
        Ok(())
    }
}
