//! Tests on the real control plane. One program, so that the control plane that most of them share
//! outlives them all and is gone when they are done.

mod admission;
mod alerts;
mod bad_input;
mod calls;
mod chart;
mod cluster_policy;
mod crd_rules;
mod crds_deleted;
mod crowded;
mod docs;
mod drill;
mod exceptions;
mod explain;
mod far_times;
mod features;
mod fix;
mod floor;
mod gitops;
mod harness;
mod holds;
mod import;
mod imported;
mod imported_specs;
mod key_caps;
mod key_consumers;
mod key_hooks;
mod key_life;
mod keys;
mod keys_cli;
mod kills;
mod least;
mod lifecycle;
mod network;
mod open_reports;
mod preview;
mod preview_network;
mod psa;
mod psa_live;
mod render;
mod report;
mod retention;
mod retention_batches;
mod retention_faults;
mod retention_open;
mod retention_reports;
mod retention_told;
mod rights;
mod rules;
mod samples;
mod scan;
mod secrecy;
mod standing;
mod upgrade;
mod verifier;
mod ways;
mod webhooks;

use std::{
    future::Future,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use kube::Client;
use libtest_mimic::{Arguments, Trial};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, witness};
use serde_json::json;
use tokio::{runtime::Runtime, sync::OnceCell, time::timeout};

/// The control plane and operator that most tests share.
pub(crate) struct Shared {
    pub(crate) plane: ControlPlane,
    pub(crate) operator: Operator,
}

/// What a test may use.
#[derive(Clone)]
pub(crate) struct Env {
    shared: Arc<OnceCell<Shared>>,
    /// Where consumers call, each started by the first who asks.
    calls: Arc<[OnceCell<calls::Stage>; 2]>,
    namespaces: Arc<AtomicUsize>,
}

impl Env {
    /// The shared instance, started by the first who asks.
    pub(crate) async fn shared(&self) -> Result<&Shared> {
        self.shared
            .get_or_try_init(|| async {
                let plane = ControlPlane::start(&Options::default()).await?;
                let flags = [
                    "--retention-minimum-grace=1s",
                    "--retention-interval=2s",
                    "--retention-protected-namespaces=billing",
                    "--usage-interval=1s",
                    // Nobody else wants it, and without it every test would fail.
                    "--lease-duration=60s",
                ];
                let operator = Operator::install(&plane, &flags).await?;
                Ok(Shared { plane, operator })
            })
            .await
    }

    /// A client of the shared instance and a fresh namespace in it, where pods can be made.
    pub(crate) async fn namespace(&self) -> Result<(Client, String)> {
        let client = self.shared().await?.plane.client();
        let name = format!("test-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        fixtures::namespace(&client, &name, json!({"rampart.dev/retention": "allowed"})).await?;
        fixtures::ready_for_pods(&client, &name).await?;
        Ok((client, name))
    }
}

/// No test takes so long, the turns included that some wait for.
const LONGEST: Duration = Duration::from_mins(20);

/// The tests of the program, gathered.
pub(crate) struct Tests {
    runtime: Arc<Runtime>,
    env: Env,
    trials: Vec<Trial>,
    /// How long each took.
    took: Arc<Mutex<Vec<(Duration, String)>>>,
}

impl Tests {
    /// Adds a test.
    pub(crate) fn add<F, Fut>(&mut self, name: &str, test: F)
    where
        F: FnOnce(Env) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>>,
    {
        let (runtime, env) = (self.runtime.clone(), self.env.clone());
        let (shared, took, told) = (self.env.shared.clone(), self.took.clone(), name.to_owned());
        self.trials.push(Trial::test(name, move || {
            let began = Instant::now();
            let outcome = runtime.block_on(async {
                let ended = timeout(LONGEST, test(env)).await;
                ended.unwrap_or_else(|_| Err(anyhow!("{told} has not ended after {LONGEST:?}")))
            });
            took.lock().unwrap_or_else(PoisonError::into_inner).push((began.elapsed(), told));
            outcome.map_err(|error| {
                // Of the operator that most share, which may have nothing to do with it.
                let operator = shared.get().map(|shared| &shared.operator);
                let log = operator.map(Operator::log_tail).unwrap_or_default();
                let ended = if operator.is_some_and(lost_its_lease) {
                    "the operator that most share lost its Lease: "
                } else {
                    ""
                };
                // The error last: what shows the end of an output shows it.
                format!("{log}\n{ended}{error:#}").into()
            })
        }));
    }
}

/// Whether it has ended for want of its Lease, as its log says: then tests fail that are about something else.
fn lost_its_lease(operator: &Operator) -> bool {
    let log = operator.log().unwrap_or_default();
    ["was taken by another process", "could not be renewed for"]
        .iter()
        .any(|it| log.contains(&format!("the Lease rampart {it}")))
}

/// `RAMPART_E2E_ONLY="calls::ten holds::"`: those whose names begin so, at once. The program itself takes one filter.
fn chosen(mut trials: Vec<Trial>, only: Option<&str>) -> Vec<Trial> {
    if let Some(only) = only {
        trials.retain(|trial| only.split_whitespace().any(|prefix| trial.name().starts_with(prefix)));
    }
    trials
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Tests wait for servers most of the time: with as many at once as there are cores, a quarter of these is idle.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(cores + cores.div_ceil(2));
    let only = std::env::var("RAMPART_E2E_ONLY").ok();
    let is_whole = only.is_none() && rights::is_whole(&arguments);
    if is_whole {
        witness::begin();
    }
    let runtime = Arc::new(Runtime::new().expect("a runtime"));
    let env = Env { shared: Arc::default(), calls: Arc::default(), namespaces: Arc::default() };
    let mut tests = Tests { runtime, env: env.clone(), trials: vec![], took: Arc::default() };
    // The longest of all begins first.
    kills::tests(&mut tests);
    harness::tests(&mut tests);
    rights::tests(&mut tests);
    crd_rules::tests(&mut tests);
    network::tests(&mut tests);
    admission::tests(&mut tests);
    bad_input::tests(&mut tests);
    far_times::tests(&mut tests);
    psa::tests(&mut tests);
    psa_live::tests(&mut tests);
    floor::tests(&mut tests);
    rules::tests(&mut tests);
    import::tests(&mut tests);
    render::tests(&mut tests);
    report::tests(&mut tests);
    preview::tests(&mut tests);
    preview_network::tests(&mut tests);
    explain::tests(&mut tests);
    drill::tests(&mut tests);
    scan::tests(&mut tests);
    open_reports::tests(&mut tests);
    exceptions::tests(&mut tests);
    fix::tests(&mut tests);
    webhooks::tests(&mut tests);
    crowded::tests(&mut tests);
    cluster_policy::tests(&mut tests);
    least::tests(&mut tests);
    standing::tests(&mut tests);
    keys::tests(&mut tests);
    verifier::tests(&mut tests);
    key_caps::tests(&mut tests);
    keys_cli::tests(&mut tests);
    key_life::tests(&mut tests);
    key_consumers::tests(&mut tests);
    key_hooks::tests(&mut tests);
    imported::tests(&mut tests);
    retention::tests(&mut tests);
    retention_told::tests(&mut tests);
    retention_reports::tests(&mut tests);
    retention_batches::tests(&mut tests);
    retention_faults::tests(&mut tests);
    retention_open::tests(&mut tests);
    holds::tests(&mut tests);
    secrecy::tests(&mut tests);
    lifecycle::tests(&mut tests);
    crds_deleted::tests(&mut tests);
    calls::tests(&mut tests);
    chart::tests(&mut tests);
    features::tests(&mut tests);
    upgrade::tests(&mut tests);
    samples::tests(&mut tests);
    gitops::tests(&mut tests);
    docs::tests(&mut tests);
    let Tests { trials, env: of_tests, runtime: _runtime, took } = tests;
    let conclusion = libtest_mimic::run(&arguments, chosen(trials, only.as_deref()));
    tell_slowest(&mut took.lock().unwrap_or_else(PoisonError::into_inner));
    // Every instance ends, so that all of what was asked is known.
    drop((env, of_tests));
    if rights::hold(is_whole, &conclusion) { conclusion.exit_code() } else { ExitCode::FAILURE }
}

/// Where the time of a run goes.
fn tell_slowest(took: &mut [(Duration, String)]) {
    took.sort_by(|one, other| other.cmp(one));
    let told: Vec<String> =
        took.iter().take(20).map(|(took, name)| format!("{name} {:.0} s", took.as_secs_f64())).collect();
    println!("slowest: {}", told.join(", "));
}
