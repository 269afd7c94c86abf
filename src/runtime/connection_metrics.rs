//! Metrics of the connections to a process' servers.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::metric_names::Names;

/// Label of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServerLabel {
    /// `webhook`, `grpc` or `http` (the verifier's), or `admin`.
    pub server: &'static str,
}

/// Labels of a connection that the server ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClosedLabels {
    /// Name of the server.
    pub server: &'static str,
    /// `handshake`, `head` or `idle`: the client was late; `room`: another one needed the place; `share`: its address
    /// had half of all.
    pub reason: &'static str,
}

/// Those of all servers.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    open: Family<ServerLabel, Gauge>,
    full: Family<ServerLabel, Counter>,
    closed: Family<ClosedLabels, Counter>,
}

/// Those of one server.
#[derive(Debug, Clone)]
pub struct ServerConnections {
    server: &'static str,
    /// Open connections.
    pub open: Gauge,
    /// Those that found no place free.
    pub full: Counter,
    closed: Family<ClosedLabels, Counter>,
}

impl ConnectionMetrics {
    /// Those of a server.
    #[must_use]
    pub fn of(&self, server: &'static str) -> ServerConnections {
        let label = ServerLabel { server };
        ServerConnections {
            server,
            open: self.open.get_or_create_owned(&label),
            full: self.full.get_or_create_owned(&label),
            closed: self.closed.clone(),
        }
    }

    /// Names them in a registry, under the prefix that it has.
    pub(super) fn register(&self, of: &mut Names<'_>) {
        of.register("connections", "Open connections by server", self.open.clone());
        of.register("connections_full", "Connections that found every place of a server taken", self.full.clone());
        of.register("connections_closed", "Connections that a server ended, by reason", self.closed.clone());
    }
}

impl ServerConnections {
    /// Those that were ended for a reason.
    #[must_use]
    pub fn closed(&self, reason: &'static str) -> Counter {
        self.closed.get_or_create_owned(&ClosedLabels { server: self.server, reason })
    }

    /// Counts one that was ended.
    pub fn count_closed(&self, reason: &'static str) {
        self.closed(reason).inc();
    }
}
