//! The verifier: index, rates, failures and usage of one process.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use jiff::Timestamp;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    Access, Admission, Cells, Changes, Failures, KeyId, Rates, Refusal, Request, Standing, Used, Verdict, Windows,
    entry::{Entry, seconds, words},
    index::Index,
    route::verb,
};
use crate::keys::format;

/// Decides about requests.
#[derive(Default)]
pub struct Verifier {
    index: Arc<Index>,
    admin_paths: Vec<String>,
    owners: Mutex<HashMap<Box<str>, Cells>>,
    failures: Mutex<Failures>,
}

impl Verifier {
    /// One that knows no keys yet, and so admits nobody. Requests to the paths given, and below them, need the verb
    /// Admin.
    #[must_use]
    pub fn new(admin_paths: Vec<String>) -> Self {
        Self { admin_paths, ..Self::default() }
    }

    /// For changing the keys that it knows. Before the first commit it admits nobody, and several may gather at once.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes::of(self.index.clone())
    }

    /// How many keys are known; none before all are.
    #[must_use]
    pub fn keys(&self) -> Option<usize> {
        self.index.is_complete().then(|| self.index.len())
    }

    /// Decides about a request at `now`. The number of guesses comes with a refusal that shuts their address out.
    pub fn decide(&self, request: &Request<'_>, now: Timestamp) -> (Verdict, Option<usize>) {
        let Some(source) = request.source else { return (self.judge(request, now), None) };
        match self.failures.lock().stand(source, now) {
            Standing::Free => {}
            Standing::Held(until) | Standing::Blocked(until) => {
                let seconds = until.duration_since(now).as_secs().max(0) + 1;
                return (Verdict::Refused(Refusal::Address(seconds)), None);
            }
        }
        let verdict = self.judge(request, now);
        let block = match &verdict {
            Verdict::Refused(refusal) => self.failures.lock().refused(source, refusal.is_guess(), now),
            _ => None,
        };
        (verdict, block)
    }

    /// Addresses that are shut out, and until when.
    #[must_use]
    pub fn blocked(&self, now: Timestamp) -> Vec<(IpAddr, Timestamp)> {
        self.failures.lock().blocked(now)
    }

    /// Keys that were used since a time.
    #[must_use]
    pub fn used_since(&self, since: Timestamp) -> Vec<(KeyId, Used)> {
        let since = since.as_second();
        let used = |entry: &Entry| {
            let (count, last) = entry.calls();
            let last = Timestamp::from_second(last.into()).ok();
            let last = last.filter(|last| count > 0 && last.as_second() >= since)?;
            Some((entry.id(), Used { count, last }))
        };
        let mut all = vec![];
        for part in self.index.parts() {
            all.extend(part.iter().filter_map(used));
        }
        all
    }

    fn judge(&self, request: &Request<'_>, now: Timestamp) -> Verdict {
        if !self.index.is_complete() {
            return Verdict::Unavailable;
        }
        let Some(audience) = request.route.audience else { return Verdict::Misrouted };
        match self.admit(request, audience, now) {
            Ok(admission) => Verdict::Admitted(admission),
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    fn admit(&self, request: &Request<'_>, audience: &str, now: Timestamp) -> Result<Admission, Refusal> {
        let key = request.credentials.one()?.0;
        let id = format::id_in(key).and_then(KeyId::of).ok_or(Refusal::Malformed)?;
        let mut place = self.index.place(id);
        let entry = place.entry();
        // All of it is on its way from memory while the digest is worked out.
        entry.as_deref().map(Entry::fetch);
        let digest = words(Sha256::digest(key).into());
        let Some(entry) = entry.filter(|entry| digest.ct_eq(&entry.digest).into()) else {
            return Err(if format::is_whole(key) { Refusal::Unknown } else { Refusal::Malformed });
        };
        if entry.is_suspended() {
            return Err(Refusal::Suspended(id));
        }
        if seconds(now) >= entry.ends_at() {
            return Err(Refusal::Expired(id));
        }
        if !entry.access.is_for(audience) {
            return Err(Refusal::Audience(id));
        }
        self.permit(request, &entry.access).map_err(|needed| Refusal::Permission(id, needed))?;
        if request.route.customer.is_some_and(|customer| entry.owner != *customer) {
            return Err(Refusal::Customer(id));
        }
        let cells = self.charge(entry, now).map_err(|windows| Refusal::Limited(id, windows))?;
        let (owner, access) = (entry.owner.clone(), entry.access.clone());
        Ok(Admission { id, owner, access, cells, at: now, sunset: entry.sunset() })
    }

    fn permit(&self, request: &Request<'_>, access: &Access) -> Result<(), Box<str>> {
        if let Some(needed) = request.route.permission {
            return if access.has(needed) { Ok(()) } else { Err(needed.into()) };
        }
        match verb(request.method, request.path, &self.admin_paths) {
            Some(verb) if access.may(verb) => Ok(()),
            Some(verb) => Err(verb.word().into()),
            None => Err("a known method".into()),
        }
    }

    fn charge(&self, entry: &mut Entry, now: Timestamp) -> Result<Cells, Box<Windows>> {
        let rates = &entry.access.rates;
        let charged = if entry.access.shared_by_owner {
            self.charge_owner(&entry.owner, rates, now)?
        } else {
            entry.cells.take(rates, now)?;
            entry.cells
        };
        entry.called(now);
        Ok(charged)
    }

    fn charge_owner(&self, owner: &str, rates: &Rates, now: Timestamp) -> Result<Cells, Box<Windows>> {
        let mut owners = self.owners.lock();
        if owners.len() > 100_000 {
            owners.retain(|_, cells| !cells.is_full(now));
        }
        let cells = owners.entry(owner.into()).or_default();
        cells.take(rates, now)?;
        Ok(*cells)
    }
}
