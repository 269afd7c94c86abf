//! Connections to a server: how many may be open, and how long each may take for what.
//!
//! Whoever comes gets a place, as long as somebody who has one asks nothing; only where all are being answered does the
//! next one wait. No address has more than half of the places. What is counted for a request is its connection's own.

mod open;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{either::Either, io::InspectReader, sync::CancellationToken};
use tower::BoxError;

pub(super) use self::open::UNUSED;
use self::open::{Open, Place, Reason, UnderWay};
use crate::runtime::metrics::ConnectionMetrics;

/// It takes milliseconds.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The largest head over HTTP/1.1 of who asks in a body, or asks little.
pub(super) const MAX_HEAD: usize = 16 << 10;
/// The largest over HTTP/2, where the question is a body.
const HTTP2_HEAD: u32 = 16 << 10;
/// Over HTTP/2: who is gone without a word does not answer a ping.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);
/// Requests at once on a connection of HTTP/2.
const STREAMS: u32 = 1000;
/// How often somebody looks who is late.
const LOOK: Duration = Duration::from_secs(1);
/// Descriptors that are missing are not there again at once.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What a server speaks: one language, since telling two apart takes as long as the client likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// With heads of at most so many bytes, for which a connection keeps room as long as it is open.
    Http1(usize),
    Http2,
}

impl Protocol {
    fn builder(self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        match self {
            Self::Http1(max_head) => {
                // Its own timer would be one more for every request, and not tell a slow head from none.
                builder.http1().header_read_timeout(None::<Duration>).max_buf_size(max_head);
                builder.http1_only()
            }
            Self::Http2 => {
                builder
                    .http2()
                    .timer(TokioTimer::new())
                    .keep_alive_interval(Some(PING))
                    .keep_alive_timeout(PONG)
                    .max_concurrent_streams(Some(STREAMS))
                    .max_header_list_size(HTTP2_HEAD);
                builder.http2_only()
            }
        }
    }
}

/// Where connections come from.
pub(super) trait Listener: Send + 'static {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one. What is dropped meanwhile has lost none.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        // Answers are written whole. Who is gone already is noticed when it is read from.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }
}

/// Whether one client alone is gone, and the next can be accepted.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A server of one port.
pub(super) struct Server {
    /// What metrics call it.
    pub(super) name: &'static str,
    pub(super) protocol: Protocol,
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// How many connections may be open.
    pub(super) places: u16,
    /// For how long one may ask nothing that has asked before.
    pub(super) idle: Duration,
}

impl Server {
    /// Serves until the process stops, and then what is under way.
    pub(super) async fn serve<L, F, A, B>(
        self,
        mut listener: L,
        metrics: &ConnectionMetrics,
        stopped: CancellationToken,
        answer: F,
    ) where
        L: Listener,
        F: Fn(Request<Incoming>, SocketAddr) -> A + Clone + Send + 'static,
        A: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let open = Arc::new(Open::new(self.places, self.idle, metrics.of(self.name)));
        let (protocol, tls) = (self.protocol, self.tls.map(TlsAcceptor::from));
        let way = Arc::new(Way { protocol, builder: protocol.builder(), tls });
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped.cancelled() => break,
                _ = looks.tick() => {
                    open.end_late();
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let place = tokio::select! {
                        biased;
                        () = stopped.cancelled() => break,
                        place = open.place(peer.ip()) => place,
                    };
                    if let Some(place) = place {
                        tokio::spawn(Arc::clone(&way).serve(stream, peer, place, answer.clone()));
                    }
                }
                Err(error) if is_of_one(&error) => {}
                Err(error) => {
                    tracing::error!(%error, server = self.name, "no connection can be accepted");
                    let _ = timeout(ACCEPT_PAUSE, stopped.cancelled()).await;
                }
            }
        }
        drop(listener);
        open.end_all().await;
    }
}

/// How a server speaks with everybody.
struct Way {
    protocol: Protocol,
    builder: Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
}

impl Way {
    /// Serves a connection until either side ends it.
    async fn serve<Io, F, A, B>(self: Arc<Self>, io: Io, peer: SocketAddr, mut place: Place, answer: F)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Fn(Request<Incoming>, SocketAddr) -> A + Send + 'static,
        A: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let io = match &self.tls {
            None => Either::Right(io),
            Some(tls) => {
                let agreed = tokio::select! {
                    biased;
                    agreed = timeout(HANDSHAKE, tls.accept(io)) => agreed,
                    _ = &mut place.told => return,
                };
                match agreed {
                    Ok(Ok(stream)) => Either::Left(stream),
                    Ok(Err(_)) => return,
                    Err(_) => return place.count_closed(Reason::Handshake),
                }
            }
        };
        // A ping would be taken for the beginning of a head.
        let hears = matches!(self.protocol, Protocol::Http1(_));
        let activity = Arc::clone(&place.activity);
        let io = InspectReader::new(io, move |bytes: &[u8]| {
            if hears && !bytes.is_empty() {
                activity.hear();
            }
        });
        let activity = Arc::clone(&place.activity);
        let service = service_fn(move |request| {
            let under_way = UnderWay::begin(&activity);
            let answering = answer(request, peer);
            async move {
                let answered = answering.await;
                drop(under_way);
                answered
            }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(io), service));
        let told = tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            told = &mut place.told => told,
        };
        connection.as_mut().graceful_shutdown();
        let _ = timeout(place.grace(told.unwrap_or_default()), connection).await;
    }
}
