//! `rampart verifier`: the server that admits API keys.

mod records;

use std::{net::SocketAddr, num::NonZero, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Result;
use clap::Args;
use http::HeaderName;
use ipnet::IpNet;
use tokio::sync::watch;

use super::process::Process;
use crate::{
    cluster::{client, key_index::Following, verifier_report::Reporting},
    keys::verify::Verifier,
    runtime::{metrics::Metrics, readiness::Readiness, tasks::Tasks},
    serve::verifier::{Desk, Proxies, serve_grpc, serve_http},
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
    /// Networks of the proxies that ask. Where they are given, whoever asks from elsewhere is not believed about the
    /// address of the client: wrong keys count for its own. Without any, everybody is.
    #[arg(long, env = "RAMPART_PROXIES", value_delimiter = ',', value_name = "CIDR")]
    proxies: Vec<IpNet>,
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
                let keys = records::read(path, &verifier)?;
                tracing::info!(keys, file = %path.display(), "serving from a file");
                metrics.verifier.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
            }
            None => self.follow(&verifier, &metrics, &readiness, &mut tasks).await?,
        }
        let audit_sample = NonZero::new(self.audit_sample);
        let proxies = Proxies::new(self.proxies);
        let desk = Desk { verifier, metrics: metrics.verifier.clone(), audit_sample, proxies };
        let stopped = tasks.stopped();
        let (grpc, http) = (readiness.gate("grpc"), readiness.gate("http"));
        let (grpc_source, connections) = (self.grpc_source_header, metrics.connections);
        let serving =
            serve_grpc(self.grpc_address, desk.clone(), grpc_source, grpc, connections.clone(), stopped.clone());
        tasks.spawn("grpc", serving);
        tasks.spawn("http", serve_http(self.http_address, desk, self.source_header, http, connections, stopped));
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
        let (failed, failures) = watch::channel(None);
        let following = Following {
            verifier: verifier.clone(),
            revision,
            failed,
            synced: readiness.gate("key-records"),
            metrics: metrics.clone(),
        };
        let reporting = Reporting {
            verifier: verifier.clone(),
            revision: revisions,
            failed: failures,
            name: self.process.identity('-'),
            namespace: self.process.keys_namespace.clone(),
            heard: metrics.verifier.heard.clone(),
            told: metrics.verifier.told.clone(),
        };
        let namespace = self.process.keys_namespace.clone();
        tasks.spawn("key-records", following.run(client.clone(), namespace, tasks.stopped()));
        tasks.spawn("report", reporting.run(client, tasks.stopped()));
        Ok(())
    }
}
