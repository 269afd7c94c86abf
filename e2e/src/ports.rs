//! Ports for servers that must be told theirs before they start.
//!
//! A port is claimed by a locked file for as long as its [`Port`] lives, and lies below the range
//! that the kernel hands out to outgoing connections, so that nothing takes it between the claim
//! and the bind.

use std::{
    fs::{self, File, OpenOptions},
    net::TcpListener,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};

use crate::leftovers;

const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A claimed TCP port on the loopback interface.
#[derive(Debug)]
pub struct Port {
    number: u16,
    claim: Arc<File>,
}

impl Port {
    /// Claims a port that no other harness and no other server uses.
    ///
    /// # Errors
    /// When the claims can't be written, or every port of the range is taken.
    pub fn claim() -> Result<Self> {
        let dir = leftovers::root().join("ports");
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        for number in RANGE {
            let path = dir.join(number.to_string());
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            if file.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Self { number, claim: Arc::new(file) });
            }
        }
        bail!("no free port in {RANGE:?}")
    }

    /// Another handle on the same claim.
    #[must_use]
    pub fn share(&self) -> Self {
        Self { number: self.number, claim: self.claim.clone() }
    }

    /// The port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}
