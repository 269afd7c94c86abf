//! Connections of the API server to a webhook: TLS, keep-alive.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::super::load;

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
pub(crate) fn is_whole(answer: &[u8]) -> bool {
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

impl load::Target for Target {
    type Asker = Connection;

    fn pid(&self) -> u32 {
        self.pid
    }

    async fn askers(&self, count: usize) -> Result<Vec<Connection>> {
        try_join_all((0..count).map(|_| Connection::open(self))).await
    }
}

impl load::Ask for Connection {
    async fn ask(&mut self) -> Result<()> {
        Self::ask(self).await.map(drop)
    }
}
