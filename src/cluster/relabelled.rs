//! Namespaces whose labels have changed, told together while many of them do.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};

/// How long after the last that was told what changes since waits: the first change after a rest waits for nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// Labels of namespaces by name; none of those that are gone.
pub(super) type Changed = HashMap<String, Option<Arc<BTreeMap<String, String>>>>;

/// What was not told yet.
#[derive(Default)]
pub(super) struct Relabelled {
    changed: Mutex<Changed>,
    noted: Notify,
}

impl Relabelled {
    /// Takes note of what the labels of a namespace are now.
    pub(super) fn note(&self, namespace: &str, labels: Option<Arc<BTreeMap<String, String>>>) {
        self.changed.lock().insert(namespace.to_owned(), labels);
        self.noted.notify_one();
    }

    /// Forgets what was noted: all were listed.
    pub(super) fn forget(&self) {
        self.changed.lock().clear();
    }

    /// Tells of what is noted, for ever.
    pub(super) async fn tell(&self, told: impl Fn(Changed)) {
        loop {
            self.noted.notified().await;
            let changed = std::mem::take(&mut *self.changed.lock());
            if !changed.is_empty() {
                told(changed);
                sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_at_once_and_those_that_follow_it_together() {
        let (relabelled, began, told) = (Relabelled::default(), Instant::now(), Mutex::new(vec![]));
        let telling = relabelled.tell(|changed| told.lock().push((began.elapsed(), changed.len())));
        let changing = async {
            for nth in 0..1_000 {
                relabelled.note(&nth.to_string(), None);
                sleep(Duration::from_millis(1)).await;
            }
        };
        let all = async { tokio::join!(telling, changing) };
        assert!(timeout(Duration::from_mins(1), all).await.is_err(), "it tells for ever");
        let told = told.into_inner();
        assert_eq!(told.first(), Some(&(Duration::ZERO, 1)));
        assert_eq!(told.iter().map(|(_, count)| count).sum::<usize>(), 1_000);
        assert!(told.len() <= 12, "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_listed_since_is_not_told() {
        let relabelled = Relabelled::default();
        relabelled.note("a", None);
        relabelled.forget();
        let telling = relabelled.tell(|changed| panic!("{changed:?}"));
        assert!(timeout(Duration::from_secs(1), telling).await.is_err());
    }
}
