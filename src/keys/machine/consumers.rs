//! What consumers have: the Secret that they mount, and whether they were restarted since.

use super::Machine;
use crate::keys::{
    coalesce::with_others,
    rollout::{Progress, WorkloadSeen, version_value},
    seen::{ConsumerSeen, SecretSeen},
    step::Step,
};

impl Machine<'_> {
    /// The key that consumers may fall back to: the newest deprecated one whose Secret is there. One whose end waits for
    /// a hook is still admitted.
    pub(super) fn previous(&self) -> Option<i64> {
        let live = self.deprecated().filter(|version| !self.is_tombstone(&version.id));
        live.map(|version| version.n).filter(|n| self.secret(*n).is_some()).max()
    }

    /// Puts back what another hand changed in the consumer Secret.
    pub(super) fn mend_consumer(&self) -> Option<Step> {
        let current = self.current()?;
        let (n, previous) = (Some(current.n), self.previous());
        // Without the version's Secret there is nothing to put back.
        let wanted = self.digest_of(n)?;
        let (has_current, has_previous) = match &self.seen.consumer {
            ConsumerSeen::Ours { current: value, previous: old, id } => (
                // What is no key has an empty digest, and is never wanted.
                value.as_deref() == Some(wanted) && !wanted.is_empty() && id.as_deref() == Some(&current.id),
                old.as_deref() == self.digest_of(previous),
            ),
            _ => (false, false),
        };
        (!(has_current && has_previous)).then(|| match self.damaged([n, previous]) {
            // Who still runs the one before it is not kept from the current one.
            Some(n) => self.restart().filter(|_| has_current).unwrap_or_else(|| self.unproven(n)),
            None => Step::WriteConsumer { current: n, previous },
        })
    }

    /// A version whose Secret does not hold its key, of those that are to be written for consumers: what they have may be
    /// the last good copy, and stays. A Secret is sound by its proof, or where the MAC key was lost by what the record of
    /// the key says, which nobody but Rampart writes.
    pub(super) fn damaged(&self, versions: [Option<i64>; 2]) -> Option<i64> {
        let is_sound = |secret: &SecretSeen| {
            let record = self.seen.records.get(&secret.id).and_then(|record| record.digest.as_ref());
            secret.proven || record == Some(&secret.digest)
        };
        versions.into_iter().flatten().find(|n| self.secret(*n).is_some_and(|secret| !is_sound(secret)))
    }

    /// Has workloads start their pods anew that run another version: by what stands on their pod templates, so that
    /// each is restarted once a version, whatever was missed meanwhile.
    pub(super) fn restart(&self) -> Option<Step> {
        let current = self.current().filter(|_| !self.spec.suspended)?;
        let version = version_value(current.n, &current.id);
        let mut behind = self.seen.workloads.iter().filter(|workload| workload.is_behind(&version));
        let (target, others) = behind.find_map(|WorkloadSeen { target, .. }| {
            Some((target.clone(), with_others(self.spec, current, &self.seen.neighbours, target, self.now)?))
        })?;
        Some(Step::Restart { target, version, others })
    }

    /// Whether some workload is still on its way to the current version.
    pub(super) fn is_rolling_out(&self) -> bool {
        let Some(current) = self.current() else { return false };
        let version = version_value(current.n, &current.id);
        self.seen.workloads.iter().any(|it| it.progress(&version, self.now) == Progress::RollingOut)
    }
}
