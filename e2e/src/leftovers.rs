//! What an instance writes down so that the next start can clear it away, should this process be
//! killed: a state directory with the pids of its children.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::node::remains;

/// Where all instances of this user keep their state.
#[must_use]
pub fn root() -> PathBuf {
    std::env::temp_dir().join(format!("rampart-e2e-{}", rustix::process::getuid().as_raw()))
}

/// A process, by its pid and the moment it started: pids are used again, the pair is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pid: i32,
    started: u64,
}

impl Identity {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name is in parentheses and may hold anything; field 22 is the start time.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        if *fields.first()? == "Z" {
            return None;
        }
        Some(Self { pid, started: fields.get(19)?.parse().ok()? })
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        Some(Self { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? })
    }

    pub(crate) fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    pub(crate) fn kill(self) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.alive()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Creates a state directory, owned by this process.
///
/// # Errors
/// When it can't be written.
pub fn new_state_dir() -> Result<PathBuf> {
    clear();
    let root = root();
    fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
    let dir = tempfile::Builder::new().prefix("instance-").tempdir_in(&root)?.keep();
    let me = i32::try_from(std::process::id())?;
    record(&dir, "owner", me)?;
    Ok(dir)
}

/// Records a child of an instance.
///
/// # Errors
/// When the record can't be written.
pub fn record(dir: &Path, role: &str, pid: i32) -> Result<()> {
    let Some(identity) = Identity::of(pid) else { return Ok(()) };
    let file = if role == "owner" { "owner" } else { "pids" };
    let mut file = OpenOptions::new().create(true).append(true).open(dir.join(file))?;
    // In one write: whoever reads it meanwhile reads all or nothing.
    file.write_all(format!("{} {} {role}\n", identity.pid, identity.started).as_bytes())?;
    Ok(())
}

/// Kills the children that an instance recorded, clears the kernel of its node if it has one, and removes its
/// directory.
pub fn remove(dir: &Path) {
    let pids = fs::read_to_string(dir.join("pids")).unwrap_or_default();
    let recorded: Vec<Identity> = pids.lines().filter_map(Identity::parse).collect();
    for process in &recorded {
        process.kill();
    }
    if remains::clear(dir, &recorded) {
        let _ = fs::remove_dir_all(dir);
    }
}

/// Clears every instance whose owner is gone.
pub fn clear() {
    let Ok(entries) = fs::read_dir(root()) else { return };
    for entry in entries.flatten() {
        let dir = entry.path();
        let Ok(owner) = fs::read_to_string(dir.join("owner")) else { continue };
        // One that says nothing yet is being made.
        let Some(owner) = Identity::parse(&owner) else { continue };
        if !owner.alive() {
            remove(&dir);
        }
    }
}
