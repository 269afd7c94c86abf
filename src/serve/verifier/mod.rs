//! The verifier's servers: Envoy's external authorisation over gRPC, and forward authentication over HTTP.
//!
//! Both put the same question to the same [`Verifier`]; whatever breaks on the way is
//! answered with 503.

mod grpc;
mod http;
#[cfg(test)]
mod tests;

use std::{
    net::IpAddr,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

pub use grpc::serve as serve_grpc;
pub use http::serve as serve_http;
use ipnet::IpNet;

use crate::{
    keys::verify::{Answer, Form, Request, Verdict, Verifier, answer},
    runtime::{clock, metrics::VerifierMetrics},
};

/// Longest body of a question, in bytes: headers of 20 kB, twice, and some.
const MAX_QUESTION: usize = 256 << 10;
/// Open connections to a port: each thread of an Envoy has one over gRPC, and one for each question that it waits for
/// over HTTP.
const PLACES: u16 = 2048;
/// More than the hour after which Envoy closes what it does not use: it does not ask again what it asked into a
/// connection that was just closed.
const IDLE: Duration = Duration::from_mins(65);

/// Who is believed about the client for whom it asks: peers in these networks, or, without any, whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Arc<[IpNet]>);

impl Proxies {
    /// Peers in these networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into())
    }

    fn are_known(&self) -> bool {
        !self.0.is_empty()
    }

    /// The address that failures count for: who is no proxy shuts out nobody but itself.
    fn client(&self, peer: Option<IpAddr>, stated: Option<IpAddr>) -> Option<IpAddr> {
        let is_proxy = |peer: IpAddr| self.0.iter().any(|network| network.contains(&peer.to_canonical()));
        if self.are_known() && !peer.is_some_and(is_proxy) { peer } else { stated }
    }
}

/// What answers questions.
#[derive(Clone)]
pub struct Desk {
    /// Decides.
    pub verifier: Arc<Verifier>,
    /// Metrics.
    pub metrics: VerifierMetrics,
    /// Of so many admitted calls one leaves an audit record; none does without it.
    pub audit_sample: Option<NonZero<u64>>,
    /// Who may state a client's address.
    pub proxies: Proxies,
}

impl Desk {
    /// Answers a question, in the words of a protocol. What panics has not admitted.
    fn answer<T>(&self, request: &Request<'_>, form: Form, words: impl Fn(Answer<'_>) -> T) -> T {
        let began = Instant::now();
        let decide = || {
            let (verdict, guesses) = self.verifier.decide(request, clock::now());
            let said = words(answer(&verdict, form));
            (verdict, guesses, said)
        };
        let Ok((verdict, guesses, said)) = catch_unwind(AssertUnwindSafe(decide)) else {
            self.metrics.count("panic");
            return words(answer(&Verdict::Unavailable, form));
        };
        self.tell(request, &verdict, guesses);
        self.metrics.seconds.observe(began.elapsed().as_secs_f64());
        said
    }

    /// Metrics, and an audit record of every refusal and of some admitted calls; never what was presented.
    fn tell(&self, request: &Request<'_>, verdict: &Verdict, guesses: Option<usize>) {
        let (audience, method) = (request.route.audience, request.method);
        let source = request.source.map(tracing::field::display);
        match verdict {
            Verdict::Admitted(admission) => {
                let before = self.metrics.admitted.inc();
                if admission.sunset.is_some() {
                    self.metrics.deprecated.inc();
                }
                let (key, owner) = (admission.id, admission.owner.as_str());
                if let Some(one_of) = self.audit_sample.filter(|one_of| before.is_multiple_of(one_of.get())) {
                    let role = &*admission.access.role;
                    tracing::info!(target: "rampart::audit", one_of, %key, owner, role, source, audience, method, "admitted");
                } else {
                    tracing::debug!(target: "rampart::audit", %key, owner, audience, "admitted");
                }
            }
            Verdict::Refused(refusal) => {
                self.metrics.refused(refusal);
                let (reason, key) = (refusal.reason(), refusal.key().map(tracing::field::display));
                tracing::info!(target: "rampart::audit", reason, key, source, audience, method, "refused");
            }
            Verdict::Misrouted => {
                self.metrics.count("misrouted");
                tracing::error!("a route states no audience, and admits nobody");
            }
            Verdict::Unavailable => self.metrics.count("unavailable"),
        }
        if let (Some(failures), Some(source)) = (guesses, source) {
            self.metrics.blocks.inc();
            let severity = "critical";
            tracing::warn!(target: "rampart::audit", source, failures, severity, "brute force: the address is shut out for an hour");
        }
    }
}

/// An address as proxies write it: alone, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
}
