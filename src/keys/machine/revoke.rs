//! Revocation: every version ends at once, and none is made any more.

use std::collections::BTreeMap;

use super::Machine;
use crate::{
    api::{RecordState, VersionState},
    keys::{
        seen::{ConsumerSeen, SecretSeen},
        step::Step,
    },
};

impl Machine<'_> {
    /// Digests go first, so that no verifier admits any version while the rest is still done.
    pub(super) fn revoke(&self) -> Option<Step> {
        self.revoke_records()
            .or_else(|| self.empty_consumer())
            .or_else(|| {
                // Where the MAC key was lost, by what status tells of.
                let is_version = |n: i64, id: &str| self.seen.status.versions.iter().any(|it| it.n == n && it.id == id);
                let is_ours = |n: i64, secret: &SecretSeen| secret.proven || is_version(n, &secret.id);
                let left = self.seen.secrets.iter().find(|(n, secret)| is_ours(**n, secret));
                left.map(|(n, _)| Step::DeleteSecret { n: *n })
            })
            .or_else(|| self.remember_revoked())
    }

    fn revoke_records(&self) -> Option<Step> {
        let status = &self.seen.status;
        let mut ids: BTreeMap<&str, i64> = BTreeMap::new();
        let proven = self.seen.secrets.iter().filter(|(_, secret)| secret.proven);
        ids.extend(proven.map(|(n, secret)| (secret.id.as_str(), *n)));
        ids.extend(self.seen.records.keys().map(|id| (id.as_str(), 0)));
        ids.extend(status.versions.iter().filter(|it| !it.state.has_ended()).map(|it| (it.id.as_str(), it.n)));
        // What is in use first.
        let first = self.current().map(|current| current.id.as_str());
        let lives = |id: &&str| !self.is_tombstone(id);
        let id = first.filter(lives).or_else(|| ids.keys().copied().find(|id| lives(id)))?;
        let version = status.versions.iter().find(|version| version.id == id);
        let record = self.seen.records.get(id).map(|record| &record.standing);
        Some(Step::EndRecord {
            id: id.to_owned(),
            n: ids.get(id).copied().unwrap_or_default(),
            state: RecordState::Revoked,
            replaced_by: version.and_then(|version| version.replaced_by.clone()),
            expires_at: record
                .map(|standing| standing.expires_at)
                .or(version.map(|version| version.expires_at.0))
                .unwrap_or(self.now),
        })
    }

    fn empty_consumer(&self) -> Option<Step> {
        match &self.seen.consumer {
            ConsumerSeen::Ours { current: None, previous: None, id: None }
            | ConsumerSeen::Absent
            | ConsumerSeen::Foreign(_) => None,
            ConsumerSeen::Ours { .. } => Some(Step::WriteConsumer { current: None, previous: None }),
        }
    }

    fn remember_revoked(&self) -> Option<Step> {
        let step = self.remember(|status| {
            for version in status.versions.iter_mut().filter(|version| !version.state.has_ended()) {
                version.state = VersionState::Revoked;
            }
            (status.current_version, status.next_version) = (None, None);
            (status.failed_attempts, status.retry_at) = (None, None);
            status.consumers.clear();
        });
        match &step {
            Step::Remember(status) if **status == self.seen.status => None,
            _ => Some(step),
        }
    }
}
