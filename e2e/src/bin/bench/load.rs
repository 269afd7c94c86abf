//! Load from one thread that stays on its core, with as little work of its own as may be, so that the server is what is
//! measured.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use futures::future::try_join_all;
use rampart_e2e::cores;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::mpsc;

use super::process;

/// Requests under way at once.
pub(crate) const CONCURRENT: usize = 64;
/// Connections are made and caches filled before anything counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// What the machine does to whoever is measured on it: it is looked for so long.
const LOOK: Duration = Duration::from_secs(4);
const STILL: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(3)];

/// Tells how long these cores stand still, each under a thread that does nothing but read the clock. What is slower than
/// that for a larger share of its answers than this share of the time is so by itself.
pub(crate) fn tell_stalls(both: [usize; 2]) -> Result<()> {
    let stalls = std::thread::scope(|scope| {
        let looking = both.map(|core| scope.spawn(move || cores::on(core, || Ok(stalls()))));
        looking.map(|it| it.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
    });
    for (core, stalls) in both.into_iter().zip(stalls) {
        let [one, three] = stalls?;
        println!(
            "  the machine: core {core} stands still for more than 1 ms in {one:.2} % of the time, for more than 3 in {three:.2} %"
        );
    }
    Ok(())
}

/// The share of the time, in percent, that gaps of each length make up.
fn stalls() -> [f64; 2] {
    let began = Instant::now();
    let (mut last, mut sums) = (began, STILL.map(|_| Duration::ZERO));
    while last - began < LOOK {
        let now = Instant::now();
        let gap = now - last;
        for (sum, least) in sums.iter_mut().zip(STILL) {
            if gap > least {
                *sum += gap;
            }
        }
        last = now;
    }
    sums.map(|sum| 100.0 * sum.as_secs_f64() / LOOK.as_secs_f64())
}

/// Whom to ask.
pub(crate) trait Target: Sync {
    /// One that asks, again and again.
    type Asker: Ask + Send;

    /// Process that answers.
    fn pid(&self) -> u32;

    /// Those who will ask.
    fn askers(&self, count: usize) -> impl Future<Output = Result<Vec<Self::Asker>>>;
}

/// One that asks.
pub(crate) trait Ask {
    /// Asks once, and fails unless the answer is whole and good.
    fn ask(&mut self) -> impl Future<Output = Result<()>>;
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

/// On this thread, which should be pinned: each connection asks again as soon as it was answered.
pub(crate) fn closed<T: Target>(target: &T, lasting: Duration) -> Result<Round> {
    runtime()?.block_on(async {
        let mut connections = target.askers(CONCURRENT).await?;
        keep_asking(&mut connections, Instant::now() + WARM_UP).await?;
        let (began, ran) = (Instant::now(), process::cpu_seconds(target.pid())?);
        let answered = keep_asking(&mut connections, began + lasting).await?;
        let (took, ran) = (began.elapsed().as_secs_f64(), process::cpu_seconds(target.pid())? - ran);
        Ok(Round { rate: f64::from(answered) / took, busy: ran / took })
    })
}

async fn keep_asking<A: Ask>(connections: &mut [A], until: Instant) -> Result<u32> {
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
pub(crate) fn open<T: Target>(target: &T, rate: f64, lasting: Duration, seed: u64) -> Result<Vec<f64>> {
    let (due, waiting) = mpsc::unbounded_channel();
    runtime()?.block_on(async {
        let mut connections = target.askers(CONCURRENT).await?;
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
