//! `rampart verifier`: the server that admits API keys.

use std::{
    fs,
    net::SocketAddr,
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread::{self, available_parallelism},
};

use anyhow::{Context as _, Result, bail};
use axum::http::HeaderName;
use clap::Args;
use serde::Deserialize;
use tokio::sync::watch;

use super::process::Process;
use crate::{
    api::KeyRecordSpec,
    cluster::{client, key_index::Following, verifier_report::Reporting},
    keys::verify::{Changes, Verifier},
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
    /// name. (HTTP alone.)
    #[arg(long, env = "RAMPART_SOURCE_HEADER", default_value = "x-rampart-source")]
    source_header: HeaderName,
    /// The same over gRPC; Envoy must overwrite it, too. Without it the address is the one that Envoy's connection comes
    /// from: that of the load balancer, if one stands before Envoy.
    #[arg(long, env = "RAMPART_GRPC_SOURCE_HEADER")]
    grpc_source_header: Option<HeaderName>,
    /// Of so many admitted calls one leaves an audit record; 0 for none. Refused ones leave one each.
    #[arg(long, env = "RAMPART_AUDIT_SAMPLE", default_value_t = 1000)]
    audit_sample: u64,
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
        let (mut tasks, started) = self.process.tasks(&readiness, &metrics);
        let verifier = Arc::new(Verifier::new(self.admin_paths.clone()));
        match &self.index {
            Some(path) => {
                let keys = read(path, &verifier)?;
                tracing::info!(keys, file = %path.display(), "serving from a file");
                metrics.verifier.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
            }
            None => self.follow(&verifier, &metrics, &readiness, &mut tasks).await?,
        }
        let audit_sample = NonZero::new(self.audit_sample);
        let desk = Desk { verifier, metrics: metrics.verifier.clone(), audit_sample };
        let stopped = tasks.stopped();
        let (grpc, http) = (readiness.gate("grpc"), readiness.gate("http"));
        let grpc_source = self.grpc_source_header;
        tasks.spawn("grpc", serve_grpc(self.grpc_address, desk.clone(), grpc_source, grpc, stopped.clone()));
        tasks.spawn("http", serve_http(self.http_address, desk, self.source_header, http, stopped));
        started.open();
        tasks.run().await
    }

    async fn follow(
        &self,
        verifier: &Arc<Verifier>,
        metrics: &Metrics,
        readiness: &Readiness,
        tasks: &mut Tasks,
    ) -> Result<()> {
        let config = self.process.connection.config().await?;
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
            heard: metrics.verifier.heard.clone(),
        };
        let namespace = self.process.keys_namespace.clone();
        tasks.spawn("key-records", following.run(client.clone(), namespace, tasks.stopped()));
        tasks.spawn("report", reporting.run(client, tasks.stopped()));
        Ok(())
    }
}

/// A KeyRecord in a file, as far as it matters.
#[derive(Deserialize)]
struct Line {
    metadata: Named,
    spec: KeyRecordSpec,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Reads KeyRecords, one a line, on all cores. A record that can't be used is told and left out. Returns how many keys
/// there are.
fn read(path: &Path, verifier: &Verifier) -> Result<usize> {
    let text = &*fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
    thread::scope(|scope| {
        let parts = parts(text, available_parallelism().map_or(1, NonZero::get));
        let readers: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(move || take(text, part, verifier.changes()))).collect();
        readers.into_iter().try_for_each(|reader| reader.join().unwrap_or_else(|_| bail!("a reader panicked")))
    })
    .with_context(|| path.display().to_string())?;
    Ok(verifier.changes().commit())
}

/// Takes the records of a part of a text in.
fn take(text: &str, part: &str, mut keys: Changes) -> Result<()> {
    for line in part.lines().filter(|line| !line.trim().is_empty()) {
        let Line { metadata: Named { name }, spec } = parse(text, line)?;
        if let Err(problem) = keys.apply(&name, &spec) {
            tracing::warn!(id = name, %problem, "a KeyRecord can't be used: its key is refused");
        }
    }
    Ok(())
}

fn parse(text: &str, line: &str) -> Result<Line> {
    serde_json::from_str(line).with_context(|| {
        // `line` is a part of `text`.
        let before = line.as_ptr().addr().saturating_sub(text.as_ptr().addr());
        format!("line {}", 1 + text.as_bytes().iter().take(before).filter(|byte| **byte == b'\n').count())
    })
}

/// About equal parts of a text, each of whole lines.
fn parts(text: &str, count: usize) -> Vec<&str> {
    let (mut parts, mut rest) = (vec![], text);
    for left in (1..=count).rev() {
        let middle = rest.len() / left;
        let end = rest
            .as_bytes()
            .iter()
            .skip(middle)
            .position(|byte| *byte == b'\n')
            .map_or(rest.len(), |at| middle + at + 1);
        let (part, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        parts.push(part);
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: usize) -> String {
        let digest = "0".repeat(64);
        format!(
            r#"{{"metadata": {{"name": "{id:08}"}}, "spec": {{"apiKey": {{"namespace": "n", "name": "k", "version": 1}},
            "digest": "sha256:{digest}", "owner": {{"customerId": "n"}}, "expiresAt": "2100-01-01T00:00:00Z",
            "state": "Active", "limits": {{"perSecond": 1, "burst": 1, "perMinute": 1, "perHour": 1, "perDay": 1}}}}}}"#
        )
        .replace('\n', " ")
    }

    fn file(lines: &[String]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), lines.join("\n")).unwrap();
        file
    }

    #[test]
    fn every_record_of_a_file_is_read_once() {
        for count in [0, 1, 2, 3, 5000] {
            let lines: Vec<String> = (0..count).map(record).collect();
            assert_eq!(read(file(&lines).path(), &Verifier::default()).unwrap(), count);
        }
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let mut lines: Vec<String> = (0..100).map(record).collect();
        lines[70] = "{}".into();
        let error = format!("{:#}", read(file(&lines).path(), &Verifier::default()).unwrap_err());
        assert!(error.contains("line 71: missing field `metadata`"), "{error}");
    }
}
