//! The agents in pods, which dial for the tests. They take orders on Unix sockets, so that no NetworkPolicy cuts them
//! off.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use crate::wait;

/// Where the sockets are inside of a pod.
pub const INSIDE: &str = "/agents";

/// A connection to try.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Dial {
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Address and port.
    pub address: String,
    /// Which of its own addresses it comes from, where it has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether the other end sends nothing back, so that a connection is enough.
    pub mute: bool,
}

/// An attempt, and what came of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Tried {
    /// When it began: microseconds of the epoch.
    pub at: i64,
    outcome: String,
}

impl Tried {
    /// Whether the byte that was sent came back.
    ///
    /// # Errors
    /// When the answer was neither that nor silence, which is what a denial looks like.
    pub fn is_open(&self) -> Result<bool> {
        match self.outcome.as_str() {
            "open" => Ok(true),
            "silent" => Ok(false),
            other => bail!("neither open nor silent: {other}"),
        }
    }
}

/// One agent.
#[derive(Debug, Clone)]
pub struct Agent {
    socket: PathBuf,
}

impl Agent {
    /// The one that listens on a socket.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Waits until it takes orders.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ready(&self) -> Result<()> {
        let connects = || async { Ok(UnixStream::connect(&self.socket).await.map(drop)?) };
        wait::until(&format!("the agent at {}", self.socket.display()), wait::SOON, connects).await
    }

    /// Dials once each, all at the same time.
    ///
    /// # Errors
    /// When the agent does not answer, or an answer is neither open nor silence.
    pub async fn dial(&self, dials: &[Dial], timeout: Duration) -> Result<Vec<bool>> {
        let mut orders = self.order(&json!({"dials": dials, "timeoutMs": milliseconds(timeout)})).await?;
        let tried = answer(&mut orders, timeout + Duration::from_secs(20)).await?;
        ensure!(tried.len() == dials.len(), "{} answers to {} dials", tried.len(), dials.len());
        let open = tried.iter().zip(dials).map(|(tried, dial)| {
            let first = tried.first().context("a dial without an answer")?;
            first.is_open().with_context(|| format!("{dial:?}"))
        });
        open.collect()
    }

    /// Dials again and again, until it is told to stop.
    ///
    /// # Errors
    /// When the agent does not listen.
    pub async fn keep_dialing(&self, dials: &[Dial], every: Duration, timeout: Duration) -> Result<Dialing> {
        let order = json!({"dials": dials, "everyMs": milliseconds(every), "timeoutMs": milliseconds(timeout)});
        Ok(Dialing { orders: self.order(&order).await? })
    }

    async fn order(&self, order: &serde_json::Value) -> Result<BufReader<UnixStream>> {
        let connected = UnixStream::connect(&self.socket).await;
        let mut socket = connected.with_context(|| format!("the agent at {}", self.socket.display()))?;
        socket.write_all(format!("{order}\n").as_bytes()).await?;
        Ok(BufReader::new(socket))
    }
}

/// Dials that go on.
pub struct Dialing {
    orders: BufReader<UnixStream>,
}

impl Dialing {
    /// Stops them, and tells every attempt of each, the earliest first.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub async fn stop(mut self) -> Result<Vec<Vec<Tried>>> {
        self.orders.get_mut().write_all(b"\n").await?;
        let mut tried = answer(&mut self.orders, Duration::from_secs(30)).await?;
        for attempts in &mut tried {
            attempts.sort_by_key(|it| it.at);
        }
        Ok(tried)
    }
}

async fn answer(orders: &mut BufReader<UnixStream>, deadline: Duration) -> Result<Vec<Vec<Tried>>> {
    let mut line = String::new();
    let read = tokio::time::timeout(deadline, orders.read_line(&mut line)).await;
    read.with_context(|| format!("an agent said nothing for {deadline:?}"))??;
    serde_json::from_str(&line).with_context(|| format!("an agent says {line:?}"))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
