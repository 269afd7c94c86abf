//! How long Rampart's processes in pods take from their start to their first 200 of `/readyz`: each is asked in the network
//! of its own pod, from the moment that it is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::leftovers::Identity;

/// How often a process is looked for, and asked: what is measured is as exact.
const STEP: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_mins(1);
/// Port of `/readyz`, as the chart has it.
const PORT: u16 = 8080;

type Took = Arc<Mutex<BTreeMap<String, Duration>>>;

/// The processes that start from now on.
pub struct Startups {
    stopped: Arc<AtomicBool>,
    took: Took,
    watching: Option<JoinHandle<()>>,
}

impl Startups {
    /// Begins to watch. Needs root.
    ///
    /// # Errors
    /// When processes can't be listed.
    pub fn watch() -> Result<Self> {
        let (stopped, took) = (Arc::<AtomicBool>::default(), Took::default());
        let known: BTreeSet<i32> = pids()?.collect();
        let watching = {
            let (stopped, took) = (Arc::clone(&stopped), Arc::clone(&took));
            thread::spawn(move || watch(known, &stopped, &took))
        };
        Ok(Self { stopped, took, watching: Some(watching) })
    }

    /// What was measured up to now, by pod.
    #[must_use]
    pub fn took(&self) -> BTreeMap<String, Duration> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Startups {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(watching) = self.watching.take() {
            let _ = watching.join();
        }
    }
}

fn watch(mut known: BTreeSet<i32>, stopped: &AtomicBool, took: &Took) {
    while !stopped.load(Ordering::Relaxed) {
        let new: Vec<i32> = pids().into_iter().flatten().filter(|pid| !known.contains(pid)).collect();
        for pid in new {
            // Before it is our program, it is what makes its container.
            let Some(pod) = pod_of(pid) else { continue };
            known.insert(pid);
            let (began, took) = (Instant::now(), Arc::clone(took));
            thread::spawn(move || {
                if let Some(time) = until_ready(pid, began) {
                    took.lock().unwrap_or_else(PoisonError::into_inner).insert(pod, time);
                }
            });
        }
        thread::sleep(STEP);
    }
}

fn pids() -> Result<impl Iterator<Item = i32>> {
    Ok(fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// The pod of a process of Rampart's image.
fn pod_of(pid: i32) -> Option<String> {
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    if !command.starts_with(b"/rampart\0") {
        return None;
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let environment = String::from_utf8_lossy(&environment);
    environment.split('\0').find_map(|it| it.strip_prefix("RAMPART_IDENTITY=")).map(ToOwned::to_owned)
}

/// Asks a process in the network of its pod, which the calling thread is in from then on.
fn until_ready(pid: i32, began: Instant) -> Option<Duration> {
    let process = Identity::of(pid)?;
    let network = File::open(format!("/proc/{pid}/ns/net")).ok()?;
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).ok()?;
    while process.alive() && began.elapsed() < PATIENCE {
        if is_ready().unwrap_or(false) {
            return Some(began.elapsed());
        }
        thread::sleep(STEP);
    }
    None
}

fn is_ready() -> Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1) == Some("200"))
}
