//! `/healthz`, `/readyz` and `/metrics`, on a port of their own.

use std::net::SocketAddr;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::connections::{MAX_HEAD, Protocol, Server, UNUSED};
use crate::runtime::{metrics::Metrics, readiness::Readiness};

#[derive(Clone)]
struct Shared {
    readiness: Readiness,
    metrics: Metrics,
}

/// Open connections: a probe finds a place, whoever else comes here.
const PLACES: u16 = 64;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until the process stops.
///
/// # Errors
/// When the address can't be bound.
pub async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    metrics: Metrics,
    stopped: CancellationToken,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let connections = metrics.connections.clone();
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(text))
        .with_state(Shared { readiness, metrics });
    let protocol = Protocol::Http1(MAX_HEAD);
    let server = Server { name: "admin", protocol, tls: None, places: PLACES, idle: UNUSED };
    server.serve(listener, &connections, stopped, move |request, _| router.clone().call(request)).await;
    Ok(())
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let missing = shared.readiness.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
}

async fn text(State(shared): State<Shared>) -> impl IntoResponse {
    match shared.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
