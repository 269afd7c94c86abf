//! `rampart import psa-labels`: from the labels of Pod Security Admission to policies.

use std::{collections::BTreeMap, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Subcommand};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _, api::ListParams};
use serde::Deserialize as _;

use super::{
    BAD_INPUT,
    connection::{Connection, block_on},
    output::answered,
    source::{self, Found, Object, Unreadable, group_kind},
    terminal::fit,
};
use crate::{
    cluster::error::{call, found},
    hardening::psa_labels,
};

/// What other products hold, as Rampart's policies.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    PsaLabels(PsaLabels),
}

/// Prints SecurityPolicies equal to the Pod Security labels of namespaces: of a cluster, or of manifests.
///
/// Nothing is changed. The labels may stay: both then refuse the same. What the API server's
/// AdmissionConfiguration exempts, or sets for namespaces without labels, can't be read from a cluster.
///
/// Exits 2 when there is no namespace of that name, or something can't be read.
#[derive(Debug, Args)]
pub(super) struct PsaLabels {
    /// Files or directories with Namespaces, or `-`; without any, the cluster is asked.
    paths: Vec<PathBuf>,
    /// This namespace alone; without it, all.
    #[arg(long, short)]
    namespace: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

type Labels = BTreeMap<String, BTreeMap<String, String>>;

impl Command {
    pub(super) fn run(self) -> Result<ExitCode> {
        let Self::PsaLabels(import) = self;
        import.run()
    }
}

impl PsaLabels {
    fn run(self) -> Result<ExitCode> {
        let (mut namespaces, unreadable) =
            if self.paths.is_empty() { (block_on(self.of_cluster())?, vec![]) } else { of_manifests(&self.paths) };
        namespaces.retain(|name, _| self.namespace.as_ref().is_none_or(|only| only == name));
        let mut text = String::new();
        for (namespace, labels) in &namespaces {
            let (policies, remarks) = psa_labels::policies(namespace, labels);
            for policy in policies {
                text.push_str("---\n");
                text.push_str(&serde_saphyr::to_string(&policy)?);
            }
            for remark in remarks {
                eprintln!("{}", fit(&format!("namespace {namespace}: {remark}")));
            }
        }
        let written = std::io::stdout().lock().write_all(text.as_bytes());
        let code = source::complain(&unreadable);
        if let Some(only) = self.namespace.filter(|_| namespaces.is_empty()) {
            eprintln!("rampart: there is no namespace {only}");
            return Ok(ExitCode::from(BAD_INPUT));
        }
        answered(written.map_err(Into::into), code)
    }

    async fn of_cluster(&self) -> Result<Labels> {
        let api: Api<Namespace> = Api::all(self.connection.client(None).await?.0);
        let all = match &self.namespace {
            Some(only) => {
                let read = found(call(|| format!("reading namespace {only}"), api.get_metadata(only)).await)?;
                read.into_iter().collect()
            }
            None => call(|| "listing namespaces".into(), api.list_metadata(&ListParams::default())).await?.items,
        };
        Ok(all.into_iter().map(|it| (it.name_any(), it.labels().clone())).collect())
    }
}

fn of_manifests(paths: &[PathBuf]) -> (Labels, Vec<Unreadable>) {
    let Found { objects, mut unreadable } = source::read_all(paths);
    let mut namespaces = Labels::new();
    for Object { file, line, value, .. } in objects {
        if group_kind(&value) != ("", "Namespace") {
            continue;
        }
        match Namespace::deserialize(&value) {
            Ok(namespace) => drop(namespaces.insert(namespace.name_any(), namespace.labels().clone())),
            Err(error) => unreadable.push(Unreadable { file, line: Some(line), why: error.to_string() }),
        }
    }
    (namespaces, unreadable)
}
