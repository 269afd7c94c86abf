//! What consumers have: the Secret that they mount, and whether they were restarted since.

use super::Machine;
use crate::keys::{
    coalesce::with_others,
    rollout::{Progress, WorkloadSeen, version_value},
    seen::ConsumerSeen,
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
        let as_wanted = match &self.seen.consumer {
            ConsumerSeen::Ours { current: value, previous: old, id } => {
                value.as_deref() == Some(wanted)
                    && id.as_deref() == Some(&current.id)
                    && old.as_deref() == self.digest_of(previous)
            }
            _ => false,
        };
        (!as_wanted).then_some(Step::WriteConsumer { current: n, previous })
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
