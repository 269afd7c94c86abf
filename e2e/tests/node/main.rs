//! Tests on a real node, where Calico enforces. One program, so that the node outlives them all; one test after the
//! other, since they share its pods.

mod intents;
mod killed;
mod matrix;
mod programmed;
mod random;
mod reach;
mod replaced;
mod sample;
mod started;
mod world;

use std::{future::Future, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Trial};
use rampart_e2e::node::{machine, remains};
use tokio::{runtime::Runtime, sync::OnceCell, time::timeout};

use world::World;

/// What a test may use.
#[derive(Clone)]
pub(crate) struct Env {
    world: Arc<OnceCell<World>>,
}

impl Env {
    /// The node with its pods, started by the first who asks.
    /// Without policies, whatever the last test left.
    pub(crate) async fn world(&self) -> Result<&World> {
        let world = self.world.get_or_try_init(World::start).await?;
        world.clear().await?;
        Ok(world)
    }
}

/// No test takes so long.
const LONGEST: Duration = Duration::from_mins(20);

/// The tests of the program, gathered.
pub(crate) struct Tests {
    runtime: Arc<Runtime>,
    env: Env,
    trials: Vec<Trial>,
}

impl Tests {
    /// Adds a test.
    pub(crate) fn add<F, Fut>(&mut self, name: &str, test: F)
    where
        F: FnOnce(Env) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>>,
    {
        let (runtime, env, told) = (self.runtime.clone(), self.env.clone(), name.to_owned());
        self.trials.push(Trial::test(name, move || {
            let outcome = runtime.block_on(async {
                let ended = timeout(LONGEST, test(env)).await;
                ended.unwrap_or_else(|_| Err(anyhow!("{told} has not ended after {LONGEST:?}")))
            });
            outcome.map_err(|error| format!("{error:#}").into())
        }));
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let runtime = Arc::new(Runtime::new().expect("a runtime"));
    let mut tests = Tests { runtime, env: Env { world: Arc::default() }, trials: vec![] };
    killed::tests(&mut tests);
    started::tests(&mut tests);
    sample::tests(&mut tests);
    random::tests(&mut tests);
    replaced::tests(&mut tests);
    if !arguments.list && !machine::is_root() {
        println!("skipped: {} tests of the real node need root", tests.trials.len());
        return ExitCode::SUCCESS;
    }
    let Tests { env, trials, .. } = tests;
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The last handle on the node.
    drop(env);
    if arguments.list {
        return conclusion.exit_code();
    }
    if remains::are_none() { conclusion.exit_code() } else { ExitCode::FAILURE }
}
