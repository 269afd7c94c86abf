//! The harness itself.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::{ControlPlane, Options, leftovers, wait};

use crate::{Env, Tests};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("harness::instances_run_beside_each_other", instances_run_beside_each_other);
    tests.add("harness::what_a_killed_harness_left_is_cleared", what_a_killed_harness_left_is_cleared);
}

async fn instances_run_beside_each_other(env: Env) -> Result<()> {
    let one = &env.shared().await?.plane;
    let two = ControlPlane::start(&Options { controllers: false, ..Options::default() }).await?;
    ensure!(one.server() != two.server());
    for plane in [one, &two] {
        let wanted = format!("v{}", Options::default().kubernetes);
        ensure!(plane.client().apiserver_version().await?.git_version == wanted);
    }
    let dir = two.dir().to_owned();
    drop(two);
    ensure!(!dir.exists(), "a stopped instance leaves nothing");
    Ok(())
}

async fn what_a_killed_harness_left_is_cleared(_: Env) -> Result<()> {
    let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn()?;
    let dir = leftovers::new_state_dir()?;
    leftovers::record(&dir, "sleep", i32::try_from(child.id())?)?;
    leftovers::clear();
    ensure!(child.try_wait()?.is_none() && dir.exists(), "the owner lives, so nothing was cleared");

    // An owner that has ended: the pid of a process that was waited for.
    let mut owner = Command::new("true").spawn()?;
    owner.wait()?;
    std::fs::write(dir.join("owner"), format!("{} 1 owner\n", owner.id()))?;
    leftovers::clear();
    let child = std::cell::RefCell::new(child);
    wait::until("the child to be killed", wait::SOON, || async { child.borrow_mut().try_wait()?.context("it lives") })
        .await?;
    // Every instance that starts meanwhile clears it, too: who comes second leaves it to the first.
    wait::until("its directory to go", wait::SOON, || async { Ok(ensure!(!dir.exists(), "it is left")) }).await
}
