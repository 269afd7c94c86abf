//! Named readiness: what has to be there before traffic may come, and what is missing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::watch;

/// The gates of a process. It is ready when every gate is open and it is not shutting down.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    gates: Arc<Mutex<BTreeMap<&'static str, bool>>>,
    shutting_down: Arc<AtomicBool>,
}

/// One thing that has to be there.
#[derive(Debug, Clone)]
pub struct Gate {
    name: &'static str,
    of: Readiness,
    opened: watch::Sender<bool>,
}

const SHUTTING_DOWN: &str = "shutting down";

impl Readiness {
    /// Adds a gate, closed.
    #[must_use]
    pub fn gate(&self, name: &'static str) -> Gate {
        self.set(name, false);
        Gate { name, of: self.clone(), opened: watch::Sender::new(false) }
    }

    /// Makes the process not ready for good.
    pub fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Whether the process is about to end.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }

    /// Names of the closed gates; empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let gates = self.gates.lock();
        let closed = gates.iter().filter(|(_, open)| !**open).map(|(name, _)| *name);
        closed.chain(self.is_shutting_down().then_some(SHUTTING_DOWN)).collect()
    }

    fn set(&self, name: &'static str, open: bool) {
        self.gates.lock().insert(name, open);
    }
}

impl Gate {
    /// Opens the gate.
    pub fn open(&self) {
        self.of.set(self.name, true);
        self.opened.send_replace(true);
    }

    /// Waits until the gate was opened for the first time.
    pub async fn was_opened(&self) {
        // The sender is ours, so that the channel can't be closed.
        let _ = self.opened.subscribe().wait_for(|opened| *opened).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_gate_is_open_and_never_again_after_shut_down() {
        let readiness = Readiness::default();
        let (one, two) = (readiness.gate("one"), readiness.gate("two"));
        two.open();
        assert_eq!(readiness.missing(), ["one"]);
        one.open();
        assert!(readiness.missing().is_empty());
        readiness.shut_down();
        assert_eq!(readiness.missing(), ["shutting down"]);
    }
}
