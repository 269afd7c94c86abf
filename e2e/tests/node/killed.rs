//! A harness that is killed.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::{leftovers, node::remains, wait};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("killed::what_it_left_is_cleared_by_the_next_start", what_it_left_is_cleared);
}

/// Before the others, whose node begins where this leaves the machine.
async fn what_it_left_is_cleared(_: Env) -> Result<()> {
    let mut other = Other(
        Command::new(std::env::current_exe()?)
            .args(["--exact", "started::without_policies_every_dial_is_answered"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?,
    );
    let owner = format!("{} ", other.0.id());
    // With programs that are built now.
    wait::until("the other harness to have a node with pods", Duration::from_mins(20), || async {
        let found = remains::found()?;
        let all = ["link cali", "mount", "cgroup", "rule", "set", "table"];
        let missing: Vec<_> = all.iter().filter(|what| !found.iter().any(|it| it.starts_with(**what))).collect();
        Ok(ensure!(missing.is_empty(), "no {missing:?} yet"))
    })
    .await?;
    other.0.kill()?;
    other.0.wait()?;
    let left: Vec<PathBuf> = fs::read_dir(leftovers::root())?
        .flatten()
        .map(|entry| entry.path())
        .filter(|dir| fs::read_to_string(dir.join("owner")).is_ok_and(|it| it.starts_with(&owner)))
        .collect();
    ensure!(left.len() == 2, "{left:?} instead of a control plane and a node");
    let pids = left.iter().map(|dir| fs::read_to_string(dir.join("pids")).context("its processes"));
    let pids: String = pids.collect::<Result<_>>()?;

    // The kernel lets go of some a moment after it was asked to.
    wait::until("all that it left to be cleared", Duration::from_mins(1), || async {
        leftovers::clear();
        let found = remains::found()?;
        ensure!(found.is_empty(), "{found:?} is left");
        Ok(ensure!(!left.iter().any(|dir| dir.exists()), "{left:?} is left"))
    })
    .await?;
    let alive = |line: &&str| {
        let pid = line.split(' ').next().unwrap_or_default();
        fs::exists(format!("/proc/{pid}/exe")).unwrap_or(true)
    };
    wait::until("its processes to end", wait::SOON, || async {
        let alive: Vec<&str> = pids.lines().filter(alive).collect();
        Ok(ensure!(alive.is_empty(), "{alive:?} are alive"))
    })
    .await
}

/// Killed when the test fails, too.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
