//! `/healthz`, `/readyz` and `/metrics`, on a port of their own.

use std::{future::ready, net::SocketAddr, sync::Arc};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    Answered, TEXT, answered,
    connections::{MAX_HEAD, Protocol, Server, UNUSED},
    wrong_method,
};
use crate::runtime::{metrics::Metrics, readiness::Readiness};

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
    let shared = Arc::new(Shared { readiness, metrics });
    let answer = move |request: Request<Incoming>, _| ready(Ok(shared.answer(&request)));
    let protocol = Protocol::Http1(MAX_HEAD);
    let server = Server { name: "admin", protocol, tls: None, places: PLACES, idle: UNUSED };
    server.serve(listener, &connections, stopped, answer).await;
    Ok(())
}

impl Shared {
    fn answer<B>(&self, request: &Request<B>) -> Answered {
        let page: fn(&Self) -> Answered = match request.uri().path() {
            "/healthz" => |_| answered(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => Self::ready,
            "/metrics" => Self::text,
            _ => return answered(StatusCode::NOT_FOUND, TEXT, ""),
        };
        if [Method::GET, Method::HEAD].contains(request.method()) {
            return page(self);
        }
        wrong_method("GET, HEAD", "")
    }

    fn ready(&self) -> Answered {
        let missing = self.readiness.missing();
        if missing.is_empty() {
            return answered(StatusCode::OK, TEXT, "ok\n");
        }
        answered(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {}\n", missing.join(", ")))
    }

    fn text(&self) -> Answered {
        match self.metrics.text() {
            Ok(text) => answered(StatusCode::OK, OPENMETRICS, text),
            Err(_) => answered(StatusCode::INTERNAL_SERVER_ERROR, TEXT, ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::alive(Method::GET, "/healthz", 200, TEXT)]
    #[case::ready(Method::GET, "/readyz", 200, TEXT)]
    #[case::metrics(Method::GET, "/metrics", 200, OPENMETRICS)]
    #[case::head(Method::HEAD, "/metrics", 200, OPENMETRICS)]
    #[case::other_method(Method::POST, "/metrics", 405, TEXT)]
    #[case::other(Method::GET, "/", 404, TEXT)]
    fn a_request_is_answered_by_its_path(
        #[case] method: Method,
        #[case] path: &str,
        #[case] status: u16,
        #[case] content_type: &str,
    ) {
        let shared = Shared { readiness: Readiness::default(), metrics: Metrics::default() };
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let answer = shared.answer(&request);
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], content_type);
        assert_eq!(answer.headers().contains_key(header::ALLOW), status == 405);
    }
}
