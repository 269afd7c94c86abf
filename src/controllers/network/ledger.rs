//! What was last done for each policy, as long as the process runs: by it drift is told from a cluster that changed, and
//! gauges are sums over all policies.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use crate::{controllers::news::HOLD, runtime::metrics::Metrics};

/// Addresses of the API server.
pub(super) type Addresses = BTreeSet<(IpAddr, u16)>;

/// What was last done. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ledger {
    metrics: Metrics,
    by_uid: Arc<Mutex<HashMap<String, Entry>>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// By namespace, what was rendered there ([`super::Part::fingerprint`]).
    rendered: HashMap<String, u64>,
    /// Where the API server was, for a policy that names it.
    api_server: Option<Addresses>,
    generation: Option<i64>,
    /// When its status was last written.
    told: Option<Instant>,
    newly_denied: i64,
    widened: i64,
}

impl Ledger {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { metrics, by_uid: Arc::default() }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.by_uid.lock()
    }

    /// Whether this is known to have been rendered last for a policy in a namespace: after a restart, nothing is.
    pub(super) fn is_known(&self, uid: &str, namespace: &str, fingerprint: u64) -> bool {
        self.entries().get(uid).is_some_and(|entry| entry.rendered.get(namespace) == Some(&fingerprint))
    }

    /// Notes what is rendered; `None`: nothing.
    pub(super) fn render(&self, uid: &str, namespace: &str, fingerprint: Option<u64>) {
        let mut entries = self.entries();
        let rendered = &mut entries.entry(uid.to_owned()).or_default().rendered;
        match fingerprint {
            Some(fingerprint) => drop(rendered.insert(namespace.to_owned(), fingerprint)),
            None => drop(rendered.remove(namespace)),
        }
    }

    /// Forgets what is rendered for a policy, wherever that is.
    pub(super) fn freeze(&self, uid: &str) {
        if let Some(entry) = self.entries().get_mut(uid) {
            entry.rendered.clear();
        }
    }

    /// Notes where the API server is for a policy that names it; whether that is news.
    pub(super) fn has_moved(&self, uid: &str, now: Option<&Addresses>) -> bool {
        let mut entries = self.entries();
        let known = &mut entries.entry(uid.to_owned()).or_default().api_server;
        let moved = known.as_ref().zip(now).is_some_and(|(before, now)| before != now);
        *known = now.cloned();
        moved
    }

    /// Notes the generation of a policy; whether that is news.
    pub(super) fn is_news(&self, uid: &str, generation: Option<i64>) -> bool {
        let mut entries = self.entries();
        let entry = entries.entry(uid.to_owned()).or_default();
        std::mem::replace(&mut entry.generation, generation) != generation
    }

    /// Notes that a status was written.
    pub(super) fn tell(&self, uid: &str, now: Instant) {
        self.entries().entry(uid.to_owned()).or_default().told = Some(now);
    }

    /// How long other counts have to wait, if a status was written a moment ago.
    pub(super) fn hold(&self, uid: &str, now: Instant) -> Option<Duration> {
        let told = self.entries().get(uid)?.told?;
        HOLD.checked_sub(now.saturating_duration_since(told)).filter(|left| !left.is_zero())
    }

    /// Notes counts of a policy.
    pub(super) fn count(&self, uid: &str, newly_denied: i64, widened: i64) {
        let mut entries = self.entries();
        let entry = entries.entry(uid.to_owned()).or_default();
        self.metrics.network_newly_denied.inc_by(newly_denied.saturating_sub(entry.newly_denied));
        self.metrics.network_widened.inc_by(widened.saturating_sub(entry.widened));
        (entry.newly_denied, entry.widened) = (newly_denied, widened);
    }

    /// Forgets all policies but these.
    pub(super) fn forget_others(&self, uids: &BTreeSet<String>) {
        let gone: Vec<String> = self.entries().keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        for uid in gone {
            self.count(&uid, 0, 0);
            self.entries().remove(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_sums_over_the_policies_that_are_there() {
        let metrics = Metrics::default();
        let ledger = Ledger::new(metrics.clone());
        let now = || (metrics.network_newly_denied.get(), metrics.network_widened.get());
        ledger.count("a", 3, 1);
        ledger.count("b", 4, 1);
        ledger.count("a", 1, 0);
        assert_eq!(now(), (5, 1));
        ledger.forget_others(&["a".to_owned()].into());
        assert_eq!(now(), (1, 0));
    }

    #[test]
    fn counts_wait_for_a_while_after_a_status() {
        let (ledger, now) = (Ledger::new(Metrics::default()), Instant::now());
        assert_eq!(ledger.hold("a", now), None, "nothing was written");
        ledger.tell("a", now);
        let second = Duration::from_secs(1);
        assert_eq!(ledger.hold("a", now + second), HOLD.checked_sub(second));
        assert_eq!((ledger.hold("a", now + HOLD), ledger.hold("b", now)), (None, None));
    }

    #[test]
    fn what_is_rendered_otherwise_is_wanted_anew() {
        let ledger = Ledger::new(Metrics::default());
        assert!(!ledger.is_known("a", "n", 1), "after a restart nobody knows what was decided before");
        ledger.render("a", "n", Some(1));
        assert!(ledger.is_known("a", "n", 1) && !ledger.is_known("a", "n", 2));
        assert!(!ledger.is_known("a", "m", 1) && !ledger.is_known("b", "n", 1));
        ledger.render("a", "n", None);
        assert!(!ledger.is_known("a", "n", 1));
        for (uid, namespace) in [("a", "n"), ("a", "m"), ("b", "n")] {
            ledger.render(uid, namespace, Some(1));
        }
        ledger.freeze("a");
        assert_eq!(
            [("a", "n"), ("a", "m"), ("b", "n")].map(|(uid, it)| ledger.is_known(uid, it, 1)),
            [false, false, true]
        );
    }

    #[test]
    fn an_api_server_that_moved_is_news_once() {
        let ledger = Ledger::new(Metrics::default());
        let at = |port| -> Addresses { [("192.0.2.1".parse().unwrap(), port)].into() };
        assert!(!ledger.has_moved("a", Some(&at(1))), "there was no other before");
        assert!(ledger.has_moved("a", Some(&at(2))) && !ledger.has_moved("a", Some(&at(2))));
        assert!(!ledger.has_moved("a", None) && !ledger.has_moved("a", Some(&at(3))), "nobody asked meanwhile");
    }
}
