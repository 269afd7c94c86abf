//! Adoption, after a restore that lost the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Machine;
use crate::{
    api::{VersionState, VersionStatus},
    keys::{
        seen::{ConsumerSeen, SecretSeen},
        step::Step,
    },
};

impl Machine<'_> {
    /// Rebuilds a lost status from the Secrets that are proven ours.
    pub(super) fn adopt(&self) -> Option<Step> {
        let status = &self.seen.status;
        let lost = status.versions.is_empty() && status.next_version.is_none() && !self.seen.secrets.is_empty();
        // Which version consumers have can't be read where the Secret is somebody else's.
        if !lost || matches!(self.seen.consumer, ConsumerSeen::Foreign(_)) {
            return None;
        }
        let adoptable = |secret: &&SecretSeen| secret.proven && !self.is_tombstone(&secret.id);
        let mut found: Vec<(i64, &SecretSeen)> =
            self.seen.secrets.iter().filter(|(_, secret)| adoptable(secret)).map(|(n, secret)| (*n, secret)).collect();
        // One token is one version, the newest: else its end as another would be its end in use.
        let is_newest = |n: i64, id: &str| !self.seen.secrets.iter().any(|(it, newer)| *it > n && newer.id == id);
        found.retain(|(n, secret)| is_newest(*n, &secret.id));
        let Some((newest, _)) = found.last() else {
            let (n, secret) = self.seen.secrets.iter().next()?;
            // All that is left are tombstoned keys: they go, and a new one is issued.
            return Some(if secret.proven { Step::DeleteSecret { n: *n } } else { self.unproven(*n) });
        };
        let in_use = found.iter().find(|(_, secret)| self.consumer_id() == Some(&secret.id));
        let Some((current, _)) = in_use else {
            // Nothing was handed out: the newest was on its way.
            return Some(self.remember(|status| status.next_version = Some(*newest)));
        };
        let mut versions = vec![];
        for (index, (n, secret)) in found.iter().enumerate().filter(|(_, (n, _))| n <= current) {
            let successor = found.get(index + 1).filter(|_| n < current);
            let record = self.seen.records.get(&secret.id).map(|record| &record.standing);
            let from_successor =
                successor.and_then(|(_, next)| next.created_at.checked_add(self.spec.rotation.overlap).ok());
            let ends = record.and_then(|standing| standing.destroy_at).or(from_successor);
            versions.push(VersionStatus {
                n: *n,
                id: secret.id.clone(),
                state: if n == current { VersionState::Current } else { VersionState::Deprecated },
                created_at: Time(secret.created_at),
                // The record knows how long it was given; the spec may have been changed since.
                expires_at: Time(record.map_or_else(|| self.expires(secret.created_at), |record| record.expires_at)),
                replaced_by: successor.map(|(_, next)| next.id.clone()),
                destroy_at: successor.and(ends).map(Time),
            });
        }
        // A request of the very second in which the newest was made is what it was made for.
        let made = found.iter().map(|(_, secret)| secret.created_at).max();
        let answered = self.spec.rotation.requested.filter(|at| made.is_some_and(|made| *at <= made));
        Some(self.remember(|status| {
            status.last_handled_rotation = answered.map(Time);
            status.current_version = Some(*current);
            status.next_version = (newest > current).then_some(*newest);
            status.versions = versions;
        }))
    }
}
