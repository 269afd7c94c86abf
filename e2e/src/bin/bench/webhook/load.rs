//! Load from one thread that stays on its core: as many connections as wanted, TLS, keep-alive, and as
//! little work of its own as may be, so that the server is what is measured.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::super::process;

const CONNECTIONS: usize = 64;
/// Connections are made and caches filled before anything counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// Whom to ask, and what.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) pid: u32,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    /// Head and body.
    pub(crate) request: Arc<[u8]>,
}

/// What came of a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Share of the round in which the server ran.
    pub(crate) busy: f64,
}

impl Round {
    /// What the server's core spent on a request, in microseconds.
    pub(crate) fn cost(&self) -> f64 {
        1e6 * self.busy / self.rate
    }
}

/// A connection that is kept.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    request: Arc<[u8]>,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(target.address.ip().into());
        let stream = TlsConnector::from(target.tls.clone()).connect(name, stream).await?;
        Ok(Self { stream, request: target.request.clone(), answer: vec![] })
    }

    /// Asks once; the answer is whole, and its status 200.
    pub(crate) async fn ask(&mut self) -> Result<&[u8]> {
        self.stream.write_all(&self.request).await?;
        self.stream.flush().await?;
        self.answer.clear();
        while !is_whole(&self.answer) {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the server closed the connection");
        }
        ensure!(self.answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&self.answer));
        Ok(&self.answer)
    }
}

/// Whether an answer of HTTP/1.1 is all there. Nothing follows it, since nothing more was asked.
fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let (head, body) = answer.split_at(head + 4);
    match length(head) {
        Some(length) => body.len() >= length,
        // A long answer comes in chunks.
        None => body.ends_with(b"0\r\n\r\n"),
    }
}

fn length(head: &[u8]) -> Option<usize> {
    let name = b"content-length: ";
    let line = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))?;
    std::str::from_utf8(&line[name.len()..]).ok()?.trim().parse().ok()
}

/// On this thread, which should be pinned: each connection asks again as soon as it was answered.
pub(crate) fn closed(target: &Target, lasting: Duration) -> Result<Round> {
    runtime()?.block_on(async {
        let mut connections = try_join_all((0..CONNECTIONS).map(|_| Connection::open(target))).await?;
        keep_asking(&mut connections, Instant::now() + WARM_UP).await?;
        let (began, ran) = (Instant::now(), process::cpu_seconds(target.pid)?);
        let answered = keep_asking(&mut connections, began + lasting).await?;
        let (took, ran) = (began.elapsed().as_secs_f64(), process::cpu_seconds(target.pid)? - ran);
        Ok(Round { rate: f64::from(answered) / took, busy: ran / took })
    })
}

async fn keep_asking(connections: &mut [Connection], until: Instant) -> Result<u32> {
    let counts = connections.iter_mut().map(async |connection| {
        let mut answered = 0_u32;
        while Instant::now() < until {
            connection.ask().await?;
            answered += 1;
        }
        anyhow::Ok(answered)
    });
    Ok(try_join_all(counts).await?.into_iter().sum())
}

/// On this thread: requests are due by chance, `rate` a second on average, whether earlier ones have been
/// answered or not; each takes the connection that is free first. How long each took since it was due, in
/// seconds.
pub(crate) fn open(target: &Target, rate: f64, lasting: Duration, seed: u64) -> Result<Vec<f64>> {
    let (due, waiting) = mpsc::unbounded_channel();
    runtime()?.block_on(async {
        let mut connections = try_join_all((0..CONNECTIONS).map(|_| Connection::open(target))).await?;
        keep_asking(&mut connections, Instant::now() + WARM_UP).await?;
        let waiting = tokio::sync::Mutex::new(waiting);
        let asking = connections.iter_mut().map(async |connection| {
            let mut took = vec![];
            loop {
                let Some(due) = waiting.lock().await.recv().await else { return anyhow::Ok(took) };
                connection.ask().await?;
                took.push(Instant::now().duration_since(due).as_secs_f64());
            }
        });
        let (took, ()) = tokio::join!(try_join_all(asking), arrive(due, rate, lasting, seed));
        Ok(took?.concat())
    })
}

/// Sends the times at which requests are due, as they come. It looks at the clock all the time: timers of the
/// runtime are late by up to a millisecond, which would count as the server's.
async fn arrive(to: mpsc::UnboundedSender<Instant>, rate: f64, lasting: Duration, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut due = Instant::now();
    let end = due + lasting;
    while due < end {
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        let _ = to.send(due);
        let chance: f64 = random.random();
        due += Duration::from_secs_f64(-(1.0 - chance).ln() / rate);
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime of the load")
}
