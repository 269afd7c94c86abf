//! The keys that a verifier admits, by id.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table};
use parking_lot::{Mutex, MutexGuard};
use thiserror::Error;

use super::{
    KeyId,
    entry::{Entry, Known, seconds, words},
    rights::KnownRights,
};
use crate::api::{KeyRecordSpec, RecordState};

/// The index comes in parts, each under a lock of its own, so that cores seldom wait for each other.
const PARTS: usize = 64;

type Part = HashTable<Entry>;

/// What is known of all keys. Nobody outside chooses the ids that are in it, so that a fast hash is safe.
///
/// A key lies together with what is counted of its calls, under one lock, so that a decision waits for memory once.
#[derive(Debug)]
pub(super) struct Index {
    parts: [Mutex<Part>; PARTS],
    hash: RandomState,
    /// Whether all keys are in it that there are.
    complete: AtomicBool,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            hash: RandomState::default(),
            complete: AtomicBool::new(false),
        }
    }
}

impl Index {
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// The place of a key, held until it is dropped.
    pub(super) fn place(&self, id: KeyId) -> Place<'_> {
        let hash = self.hash.hash_one(id);
        let [first, ..] = &self.parts;
        Place { part: self.parts.get(nth(hash)).unwrap_or(first).lock(), hash, id }
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = MutexGuard<'_, Part>> {
        self.parts.iter().map(Mutex::lock)
    }

    pub(super) fn len(&self) -> usize {
        self.parts().map(|part| part.len()).sum()
    }

    /// A key in its part, or that there is none.
    fn put(&self, part: &mut Part, hash: u64, id: KeyId, known: Option<Known>) {
        match (part.entry(hash, |entry| entry.id() == id, |entry| self.hash.hash_one(entry.id())), known) {
            (hash_table::Entry::Vacant(_), None) => {}
            (hash_table::Entry::Occupied(place), None) => drop(place.remove()),
            (hash_table::Entry::Vacant(place), Some(known)) => drop(place.insert(Entry::new(id, known))),
            (hash_table::Entry::Occupied(mut place), Some(known)) => place.get_mut().renew(known),
        }
    }
}

/// Which part a key is in: of its hash those bits that the part's own table makes the least use of.
fn nth(hash: u64) -> usize {
    usize::try_from(hash >> 32).unwrap_or_default() % PARTS
}

/// Where a key is, if it is known.
pub(super) struct Place<'a> {
    part: MutexGuard<'a, Part>,
    hash: u64,
    id: KeyId,
}

impl Place<'_> {
    pub(super) fn entry(&mut self) -> Option<&mut Entry> {
        self.part.find_mut(self.hash, |entry| entry.id() == self.id)
    }
}

/// Why a record makes no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UnusableRecord {
    /// Its name is no id.
    #[error("its name is no key id")]
    Id,
    /// Its digest is not `sha256:` and 64 hex digits.
    #[error("its digest is not sha256 in hex")]
    Digest,
    /// It says not how many calls are allowed.
    #[error("it has no limits")]
    Limits,
}

/// Changes of the keys that a verifier knows: gathered, and put in force together.
#[derive(Debug)]
pub struct Changes {
    index: Arc<Index>,
    pending: HashMap<KeyId, Option<Known>, RandomState>,
    rights: KnownRights,
}

impl Changes {
    pub(super) fn of(index: Arc<Index>) -> Self {
        Self { index, pending: HashMap::default(), rights: KnownRights::default() }
    }

    /// Takes a record in, or its key out if it is not admitted any more. A record that can't be used takes its key
    /// out, and no other.
    ///
    /// # Errors
    /// When the record makes no key: then there is none of this id.
    pub fn apply(&mut self, name: &str, record: &KeyRecordSpec) -> Result<(), UnusableRecord> {
        let id = KeyId::parse(name).ok_or(UnusableRecord::Id)?;
        let known = if record.state.is_tombstone() { Ok(None) } else { self.known(record).map(Some) };
        let unusable = known.as_ref().err().copied();
        self.note(id, known.unwrap_or_default());
        unusable.map_or(Ok(()), Err)
    }

    /// Makes room for so many keys that are to come, which else is made again and again.
    pub fn reserve(&self, keys: usize) {
        for mut part in self.index.parts() {
            part.reserve(keys.div_ceil(PARTS), |entry| self.index.hash.hash_one(entry.id()));
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, name: &str) {
        if let Some(id) = KeyId::parse(name) {
            self.note(id, None);
        }
    }

    /// Takes all keys out but these.
    pub fn retain(&mut self, names: &HashSet<String>) {
        let ids: HashSet<KeyId> = names.iter().filter_map(|name| KeyId::parse(name)).collect();
        let mut others: Vec<KeyId> = self.pending.keys().filter(|id| !ids.contains(id)).copied().collect();
        for part in self.index.parts() {
            others.extend(part.iter().map(Entry::id).filter(|id| !ids.contains(id)));
        }
        for id in others {
            self.note(id, None);
        }
    }

    /// Puts the changes in force, all at once: no decision sees some of them and not the others. Returns how many keys
    /// there are now.
    pub fn commit(&mut self) -> usize {
        {
            let mut parts: Vec<MutexGuard<'_, Part>> = self.index.parts().collect();
            for (id, known) in self.pending.drain() {
                let hash = self.index.hash.hash_one(id);
                if let Some(part) = parts.get_mut(nth(hash)) {
                    self.index.put(part, hash, id, known);
                }
            }
        }
        self.index.complete.store(true, Ordering::Release);
        // After many changes at once, their room is given back.
        self.pending.shrink_to(PARTS);
        let keys = self.index.len();
        self.rights.tidy(keys);
        keys
    }

    /// Nobody decides by an index that is not complete: what comes before goes into it as it comes.
    fn note(&mut self, id: KeyId, known: Option<Known>) {
        let mut place = self.index.place(id);
        if !self.index.is_complete() {
            self.index.put(&mut place.part, place.hash, id, known);
            return;
        }
        // A list that is made anew says mostly what is known.
        let same = match (place.entry(), &known) {
            (None, None) => true,
            (Some(entry), Some(known)) => entry.says(known),
            _ => false,
        };
        drop(place);
        if !same || self.pending.contains_key(&id) {
            self.pending.insert(id, known);
        }
    }

    fn known(&mut self, record: &KeyRecordSpec) -> Result<Known, UnusableRecord> {
        let mut digest = [0; 32];
        let text = record.digest.as_deref().and_then(|digest| digest.strip_prefix("sha256:"));
        hex::decode_to_slice(text.unwrap_or_default(), &mut digest).map_err(|_| UnusableRecord::Digest)?;
        let access = self.rights.of(record).ok_or(UnusableRecord::Limits)?;
        let expires_at = record.expires_at.0;
        Ok(Known {
            digest: words(digest),
            owner: record.owner.customer_id.as_str().into(),
            access,
            ends_at: seconds(record.destroy_at.as_ref().map_or(expires_at, |at| at.0.min(expires_at))),
            suspended: record.state == RecordState::Suspended,
            deprecated: record.replaced_by.is_some() || record.state == RecordState::Deprecated,
        })
    }
}
