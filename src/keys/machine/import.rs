//! Imported tokens: the user supplies each version, and nothing else begins one.

use super::{Machine, issue::complete};
use crate::keys::{import::Token, offer::Offer, seen::SecretSeen, step::Step};

impl Machine<'_> {
    pub(super) const fn is_imported(&self) -> bool {
        self.spec.imported.is_some()
    }

    fn offer(&self) -> Option<Offer<'_>> {
        Offer::of(self.seen, self.now).filter(|_| self.is_imported())
    }

    /// The token that is supplied, if it was never seen here.
    pub(super) fn supplied(&self) -> Option<&Token> {
        match self.offer() {
            Some(Offer::New(token)) => Some(token),
            _ => None,
        }
    }

    /// The Secret of the version in use was lost, and the user's own still has the token: it is copied again.
    pub(super) fn copy_again(&self) -> Option<Step> {
        let n = self.current()?.n;
        let lost = self.secret(n).is_none() && self.offer() == Some(Offer::Current);
        match self.seen.secrets.get(&n).filter(|_| lost) {
            None => lost.then_some(Step::CreateSecret { n }),
            // Another token under its name: it goes first, unless consumers have it, or it is somebody's own.
            Some(other) => (!other.proven).then(|| self.unproven(n)),
        }
    }

    /// What the user supplies meanwhile: a token that takes the place of the one that was on its way to be handed out,
    /// or the one in use again, or one whose time is over, or nothing to take any more.
    pub(super) fn reconsider(&self, pending: Option<&SecretSeen>) -> Option<Step> {
        let offer = self.offer()?;
        match (offer, pending) {
            // Under another number: no name of a Secret has two contents.
            (Offer::New(_), Some(_)) => Some(self.remember(|status| {
                let next = self.next_number();
                complete(status);
                status.next_version = Some(next);
            })),
            (Offer::New(_) | Offer::UnderWay, None)
            | (Offer::UnderWay | Offer::Old(_) | Offer::Refused(_), Some(_)) => None,
            // Its copy goes first: else it were adopted as one that is on its way.
            (Offer::Over(_), _) => self.give_up(),
            (Offer::Current, _) | (Offer::Old(_) | Offer::Refused(_), None) => Some(self.remember(complete)),
        }
    }

    /// Secrets of versions that have ended and that somebody put back; and copies of tokens that were on their way and
    /// are not any more.
    pub(super) fn sweep(&self) -> Option<Step> {
        let status = &self.seen.status;
        let is_known = |n: i64, id: &str| {
            let version = status.versions.iter().find(|version| version.n == n);
            version.map_or(status.next_version == Some(n), |version| version.id == id)
        };
        // The end of one that lives, or is on its way, is no matter of a sweep.
        let lives =
            |n: i64| status.next_version == Some(n) || status.versions.iter().any(|it| it.n == n && it.state.is_live());
        let is_left = |n: i64, id: &str| {
            let has_ended = self.is_tombstone(id) && !lives(n);
            has_ended || (self.is_imported() && !is_known(n, id))
        };
        // What consumers have is never taken away like that, unless it is a second copy.
        let in_use = |id: &String| {
            let has_other = self.current().is_some_and(|it| it.id == *id && self.secret(it.n).is_some());
            self.consumer_id() == Some(id) && !has_other
        };
        let mut proven = self.seen.secrets.iter().filter(|(_, secret)| secret.proven);
        let (n, _) = proven.find(|(n, secret)| is_left(**n, &secret.id) && !in_use(&secret.id))?;
        Some(Step::DeleteSecret { n: *n })
    }
}
