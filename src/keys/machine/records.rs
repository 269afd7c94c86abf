//! KeyRecords follow status and spec.

use super::Machine;
use crate::{
    api::{RecordState, RetireWhen, VersionState, VersionStatus},
    keys::{
        Grant, JobStep,
        seen::{SecretSeen, Standing},
        step::Step,
    },
};

impl Machine<'_> {
    /// Records say what status and spec say.
    pub(super) fn sync_records(&self) -> Option<Step> {
        // Verifiers know no token of another system: of those there are tombstones alone.
        if self.is_imported() {
            return None;
        }
        let pending = self.seen.status.next_version.and_then(|n| self.seen.secrets.get(&n));
        let pending = pending.filter(|secret| secret.proven).and_then(|secret| {
            let wanted = self.standing_of_pending(secret);
            self.seen.records.contains_key(&secret.id).then(|| self.update(&secret.id, wanted)).flatten()
        });
        let made = |version: &VersionStatus| {
            let wanted = self.standing(version)?;
            if self.seen.records.contains_key(&version.id) {
                return self.update(&version.id, wanted);
            }
            // Lost, with its CRD perhaps: made anew from the Secret.
            let proven = self.seen.secrets.get(&version.n).is_some_and(|it| it.proven && it.id == version.id);
            proven.then(|| Step::CreateRecord { n: version.n, standing: Box::new(wanted) })
        };
        self.seen.status.versions.iter().find_map(made).or(pending)
    }

    /// Records of keys that neither status nor a Secret tells of any more: consumers may still hold them, so they are
    /// deprecated like any replaced key, once there is another one.
    pub(super) fn end_strays(&self) -> Option<Step> {
        if let Some(step) = self.end_again() {
            return Some(step);
        }
        let current = self.current()?;
        let status = &self.seen.status;
        let pending = status.next_version.and_then(|n| self.seen.secrets.get(&n)).map(|secret| &secret.id);
        let is_stray = |id: &&String| Some(*id) != pending && status.versions.iter().all(|version| version.id != **id);
        self.seen.records.iter().filter(|(id, _)| is_stray(id)).find_map(|(id, record)| {
            let standing = &record.standing;
            let over = self.is_sure() && standing.destroy_at.is_some_and(|end| end <= self.now);
            if over && !standing.state.is_tombstone() {
                return Some(Step::EndRecord {
                    id: id.clone(),
                    n: 0,
                    state: RecordState::Destroyed,
                    replaced_by: standing.replaced_by.clone(),
                    expires_at: standing.expires_at,
                });
            }
            let end = self.server_time().checked_add(self.spec.rotation.overlap).unwrap_or(standing.expires_at);
            let wanted = Standing {
                state: if self.spec.suspended { RecordState::Suspended } else { RecordState::Deprecated },
                replaced_by: standing.replaced_by.clone().or_else(|| Some(current.id.clone())),
                destroy_at: standing.destroy_at.or(Some(end.min(standing.expires_at))),
                expires_at: standing.expires_at,
                grant: self.grant(id),
                retained: self.spec.retained,
            };
            self.update(id, wanted)
        })
    }

    /// A version that has ended has a record again, of a backup: it is ended again.
    fn end_again(&self) -> Option<Step> {
        let mut ended = self.seen.status.versions.iter().filter_map(|version| {
            let state = match version.state {
                VersionState::Destroyed => RecordState::Destroyed,
                VersionState::Revoked => RecordState::Revoked,
                VersionState::Pending | VersionState::Current | VersionState::Deprecated => return None,
            };
            Some((version, state))
        });
        let lives = |id: &String| self.seen.records.contains_key(id) && !self.is_tombstone(id);
        let (version, state) = ended.find(|(version, _)| lives(&version.id))?;
        Some(Step::EndRecord {
            id: version.id.clone(),
            n: version.n,
            state,
            replaced_by: version.replaced_by.clone(),
            expires_at: version.expires_at.0,
        })
    }

    /// What a key may do: what the spec asks for, and while that is beyond the caps what it could do before.
    fn grant(&self, id: &str) -> Grant {
        let before = || self.seen.records.get(id).map(|record| record.standing.grant.clone());
        self.spec.grant.clone().or_else(before).unwrap_or_else(Grant::nothing)
    }

    fn update(&self, id: &str, mut wanted: Standing) -> Option<Step> {
        let record = self.seen.records.get(id)?;
        wanted.expires_at = wanted.expires_at.min(record.standing.expires_at);
        let differs = !record.standing.state.is_tombstone() && record.standing != wanted;
        differs.then(|| Step::UpdateRecord { id: id.to_owned(), standing: Box::new(wanted) })
    }

    fn standing(&self, version: &VersionStatus) -> Option<Standing> {
        let state = match version.state {
            VersionState::Current => RecordState::Active,
            VersionState::Deprecated => RecordState::Deprecated,
            VersionState::Pending | VersionState::Revoked | VersionState::Destroyed => return None,
        };
        // Where its end depends on more than the time, verifiers admit it until they are told.
        let by_time = self.spec.rotation.retire_when == RetireWhen::Elapsed && !self.has_hook(JobStep::Destroy);
        Some(Standing {
            state: if self.spec.suspended { RecordState::Suspended } else { state },
            replaced_by: version.replaced_by.clone(),
            destroy_at: version.destroy_at.as_ref().map(|time| time.0).filter(|_| by_time),
            expires_at: version.expires_at.0,
            grant: self.grant(&version.id),
            retained: self.spec.retained,
        })
    }

    /// What the record of a version says that is not handed out yet.
    pub(super) fn standing_of_pending(&self, secret: &SecretSeen) -> Standing {
        Standing {
            state: if self.spec.suspended { RecordState::Suspended } else { RecordState::Active },
            replaced_by: None,
            destroy_at: None,
            expires_at: self.end_of_key(secret),
            grant: self.grant(&secret.id),
            retained: self.spec.retained,
        }
    }
}
