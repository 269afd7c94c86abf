//! The verifier: index, rates, failures and usage of one process.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    Admission, Cells, Entry, Failures, Index, KeyId, Rates, Refusal, Request, Standing, Used, Verdict, Windows,
    credential::Credential, entry::State, route::verb,
};
use crate::{api::Verb, keys::format};

/// Decides about requests.
pub struct Verifier {
    index: ArcSwapOption<Index>,
    admin_paths: Vec<String>,
    owners: Mutex<HashMap<Box<str>, Cells>>,
    failures: Mutex<Failures>,
}

impl Verifier {
    /// One that knows no keys yet, and so admits nobody. Requests to the paths given, and below them, need the verb
    /// Admin.
    #[must_use]
    pub fn new(admin_paths: Vec<String>) -> Self {
        Self { index: ArcSwapOption::empty(), admin_paths, owners: Mutex::default(), failures: Mutex::default() }
    }

    /// Puts an index in force, whole.
    pub fn put(&self, index: Arc<Index>) {
        self.index.store(Some(index));
    }

    /// How many keys are known; none before there is an index.
    #[must_use]
    pub fn keys(&self) -> Option<usize> {
        self.index.load().as_ref().map(|index| index.len())
    }

    /// Decides about a request at `now`. The number of guesses comes with a refusal that shuts their address out.
    pub fn decide(&self, request: &Request<'_>, now: Timestamp) -> (Verdict, Option<usize>) {
        let Some(source) = request.source else { return (self.judge(request, now), None) };
        match lock(&self.failures).stand(source, now) {
            Standing::Free => {}
            Standing::Held(until) | Standing::Blocked(until) => {
                let seconds = until.duration_since(now).as_secs().max(0) + 1;
                return (Verdict::Refused(Refusal::Address(seconds)), None);
            }
        }
        let verdict = self.judge(request, now);
        let block = match &verdict {
            Verdict::Refused(refusal) => lock(&self.failures).refused(source, refusal.is_guess(), now),
            _ => None,
        };
        (verdict, block)
    }

    /// Addresses that are shut out, and until when.
    #[must_use]
    pub fn blocked(&self, now: Timestamp) -> Vec<(IpAddr, Timestamp)> {
        lock(&self.failures).blocked(now)
    }

    /// Keys that were used since a time.
    #[must_use]
    pub fn used_since(&self, since: Timestamp) -> Vec<(KeyId, Used)> {
        let Some(index) = self.index.load_full() else { return vec![] };
        let since = since.as_second();
        let used = |(id, entry): (&KeyId, &Entry)| {
            let State { count, last, .. } = *lock(&entry.lasting.state);
            let last = Timestamp::from_second(last).ok().filter(|_| count > 0 && last >= since)?;
            Some((*id, Used { count, last }))
        };
        index.iter().filter_map(used).collect()
    }

    fn judge(&self, request: &Request<'_>, now: Timestamp) -> Verdict {
        let index = self.index.load();
        let Some(index) = index.as_ref() else { return Verdict::Unavailable };
        let Some(audience) = request.route.audience else { return Verdict::Misrouted };
        match self.admit(request, audience, index, now) {
            Ok(admission) => Verdict::Admitted(admission),
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    fn admit(
        &self,
        request: &Request<'_>,
        audience: &str,
        index: &Index,
        now: Timestamp,
    ) -> Result<Admission, Refusal> {
        let (id, entry) = prove(request.credentials.one()?, index)?;
        if entry.suspended {
            return Err(Refusal::Suspended(id));
        }
        if now.as_second() >= entry.ends_at {
            return Err(Refusal::Expired(id));
        }
        if !entry.access.is_for(audience) {
            return Err(Refusal::Audience(id));
        }
        self.permit(request, entry).map_err(|needed| Refusal::Permission(id, needed))?;
        if request.route.customer.is_some_and(|customer| *entry.lasting.owner != *customer) {
            return Err(Refusal::Customer(id));
        }
        let cells = self.charge(entry, now).map_err(|windows| Refusal::Limited(id, windows))?;
        let (lasting, access) = (entry.lasting.clone(), entry.access.clone());
        Ok(Admission { id, lasting, access, cells, at: now, sunset: entry.sunset() })
    }

    fn permit(&self, request: &Request<'_>, entry: &Entry) -> Result<(), Box<str>> {
        if let Some(needed) = request.route.permission {
            return if entry.access.has(needed) { Ok(()) } else { Err(needed.into()) };
        }
        match verb(request.method, request.path, &self.admin_paths) {
            Some(verb) if entry.access.may(verb) => Ok(()),
            Some(Verb::Read) => Err("read".into()),
            Some(Verb::Write) => Err("write".into()),
            Some(Verb::Delete) => Err("delete".into()),
            Some(Verb::Admin) => Err("admin".into()),
            None => Err("a known method".into()),
        }
    }

    fn charge(&self, entry: &Entry, now: Timestamp) -> Result<Cells, Box<Windows>> {
        let rates = &entry.access.rates;
        let shared = if entry.access.shared_by_owner {
            Some(self.charge_owner(&entry.lasting.owner, rates, now)?)
        } else {
            None
        };
        let mut state = lock(&entry.lasting.state);
        if shared.is_none() {
            state.cells.take(rates, now)?;
        }
        state.count = state.count.saturating_add(1);
        state.last = state.last.max(now.as_second());
        Ok(shared.unwrap_or(state.cells))
    }

    fn charge_owner(&self, owner: &str, rates: &Rates, now: Timestamp) -> Result<Cells, Box<Windows>> {
        let mut owners = lock(&self.owners);
        if owners.len() > 100_000 {
            owners.retain(|_, cells| !cells.is_full(now));
        }
        let cells = owners.entry(owner.into()).or_default();
        cells.take(rates, now)?;
        Ok(*cells)
    }
}

/// Finds the key, and proves that it is the one presented.
fn prove<'a>(credential: Credential<'_>, index: &'a Index) -> Result<(KeyId, &'a Entry), Refusal> {
    let id = format::checked_id(credential.0).map_err(|_| Refusal::Malformed)?;
    let id = KeyId::parse(id).ok_or(Refusal::Malformed)?;
    let digest: [u8; 32] = Sha256::digest(credential.0.as_bytes()).into();
    let entry = index.get(id).ok_or(Refusal::Unknown)?;
    if bool::from(digest.ct_eq(&entry.digest)) { Ok((id, entry)) } else { Err(Refusal::Unknown) }
}

/// What is under a lock is whole at every moment, so that a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
