//! `rampart verifier`: the server that admits API keys.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use axum::http::HeaderName;
use clap::Args;
use tokio::sync::watch;

use super::process::Process;
use crate::{
    api::KeyRecord,
    cluster::{client, key_index::Following, verifier_report::Reporting},
    keys::verify::{Builder, Verifier},
    runtime::{metrics::Metrics, readiness::Readiness, tasks::Tasks},
    serve::verifier::{Desk, serve_grpc, serve_http},
};

/// The verifier of API keys: Envoy's external authorisation (gRPC), and forward authentication (HTTP).
#[derive(Debug, Clone, Args)]
pub struct VerifierOptions {
    #[command(flatten)]
    process: Process,
    /// Address of `envoy.service.auth.v3.Authorization`.
    #[arg(long, env = "RAMPART_GRPC_ADDRESS", default_value = "0.0.0.0:9001")]
    grpc_address: SocketAddr,
    /// Address of `/check` and `/auth_request`.
    #[arg(long, env = "RAMPART_HTTP_ADDRESS", default_value = "0.0.0.0:9002")]
    http_address: SocketAddr,
    /// Paths that are for administrators, with all below them.
    #[arg(long, env = "RAMPART_ADMIN_PATHS", value_delimiter = ',')]
    admin_paths: Vec<String>,
    /// Header in which the proxy writes the address of the client; it must overwrite what clients send under this
    /// name. (HTTP alone: Envoy states it over gRPC.)
    #[arg(long, env = "RAMPART_SOURCE_HEADER", default_value = "x-rampart-source")]
    source_header: HeaderName,
    /// Serves from KeyRecords in this file, one a line as JSON, instead of a cluster.
    #[arg(long, env = "RAMPART_INDEX")]
    index: Option<PathBuf>,
}

impl VerifierOptions {
    pub(super) fn run(self) -> Result<ExitCode> {
        self.process.log()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(self.serve())?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self) -> Result<()> {
        let (metrics, readiness) = (Metrics::default(), Readiness::default());
        let mut tasks = self.process.tasks(&readiness, &metrics);
        let verifier = Arc::new(Verifier::new(self.admin_paths.clone()));
        match &self.index {
            Some(path) => {
                let index = read(path)?.index();
                tracing::info!(keys = index.len(), file = %path.display(), "serving from a file");
                metrics.verifier.keys.set(i64::try_from(index.len()).unwrap_or(i64::MAX));
                verifier.put(index);
            }
            None => self.follow(&verifier, &metrics, &readiness, &mut tasks).await?,
        }
        let desk = Desk { verifier, metrics: metrics.verifier.clone() };
        let stopped = tasks.stopped();
        tasks.spawn("grpc", serve_grpc(self.grpc_address, desk.clone(), stopped.clone().cancelled_owned()));
        tasks.spawn("http", serve_http(self.http_address, desk, self.source_header, stopped));
        tasks.run().await
    }

    async fn follow(
        &self,
        verifier: &Arc<Verifier>,
        metrics: &Metrics,
        readiness: &Readiness,
        tasks: &mut Tasks,
    ) -> Result<()> {
        let config = client::config(self.process.kubeconfig.as_deref(), self.process.context.as_deref()).await?;
        let client = client::client(config, metrics)?;
        let (revision, revisions) = watch::channel(None);
        let following = Following {
            verifier: verifier.clone(),
            revision,
            synced: readiness.gate("key-records"),
            metrics: metrics.clone(),
        };
        let reporting = Reporting {
            verifier: verifier.clone(),
            revision: revisions,
            name: self.process.identity('-'),
            namespace: self.process.keys_namespace.clone(),
        };
        let namespace = self.process.keys_namespace.clone();
        tasks.spawn("key-records", following.run(client.clone(), namespace, tasks.stopped()));
        tasks.spawn("report", reporting.run(client, tasks.stopped()));
        Ok(())
    }
}

/// Reads KeyRecords, one a line. A record that can't be used is told and left out.
fn read(path: &Path) -> Result<Builder> {
    let file = File::open(path).with_context(|| format!("{} can't be read", path.display()))?;
    let mut builder = Builder::default();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let at = || format!("{}:{}", path.display(), number + 1);
        let line = line.with_context(at)?;
        if line.trim().is_empty() {
            continue;
        }
        let record: KeyRecord = serde_json::from_str(&line).with_context(at)?;
        let name = record.metadata.name.unwrap_or_default();
        if let Err(problem) = builder.apply(&name, &record.spec) {
            tracing::warn!(line = number + 1, id = name, %problem, "a KeyRecord can't be used: its key is refused");
        }
    }
    Ok(builder)
}
