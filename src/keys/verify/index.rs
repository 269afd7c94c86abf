//! The keys that a verifier admits, by id.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use foldhash::fast::RandomState;
use thiserror::Error;

use super::{Access, Entry, KeyId, entry::Lasting};
use crate::api::{KeyRecordSpec, RecordState};

/// What is known of all keys at one moment. Nobody outside chooses the ids that are in it, so that a fast hash is safe.
#[derive(Debug, Clone, Default)]
pub struct Index(HashMap<KeyId, Entry, RandomState>);

impl Index {
    pub(super) fn get(&self, id: KeyId) -> Option<&Entry> {
        self.0.get(&id)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&KeyId, &Entry)> {
        self.0.iter()
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

/// Keeps an index up to date. A record that can't be used takes its key out, and no other.
#[derive(Debug, Default)]
pub struct Builder {
    // Shared with who decides by it, until the next change: at rest there is one copy.
    index: Arc<Index>,
    // Millions of keys have few different rights.
    rights: HashSet<Arc<Access>>,
}

impl Builder {
    /// Takes a record in, or its key out if it is not admitted any more.
    ///
    /// # Errors
    /// When the record makes no key: then there is none of this id.
    pub fn apply(&mut self, name: &str, record: &KeyRecordSpec) -> Result<(), UnusableRecord> {
        let id = KeyId::parse(name).ok_or(UnusableRecord::Id)?;
        let entry = if record.state.is_tombstone() { Ok(None) } else { self.entry(record).map(Some) };
        let index = &mut Arc::make_mut(&mut self.index).0;
        match entry {
            Ok(Some(mut entry)) => {
                if let Some(known) = index.get(&id).filter(|known| known.lasting.owner == entry.lasting.owner) {
                    entry.lasting = known.lasting.clone();
                }
                index.insert(id, entry);
                Ok(())
            }
            unused => {
                index.remove(&id);
                unused.map(drop)
            }
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, name: &str) {
        if let Some(id) = KeyId::parse(name) {
            Arc::make_mut(&mut self.index).0.remove(&id);
        }
    }

    /// Takes all keys out but these.
    pub fn retain(&mut self, names: &HashSet<String>) {
        let ids: HashSet<KeyId> = names.iter().filter_map(|name| KeyId::parse(name)).collect();
        if self.index.0.keys().any(|id| !ids.contains(id)) {
            Arc::make_mut(&mut self.index).0.retain(|id, _| ids.contains(id));
        }
    }

    /// Makes room for so many keys.
    pub fn reserve(&mut self, keys: usize) {
        Arc::make_mut(&mut self.index).0.reserve(keys);
    }

    /// What is known now.
    #[must_use]
    pub fn index(&mut self) -> Arc<Index> {
        // What nobody has any more is forgotten.
        if self.rights.len() > 64 && self.rights.len() > self.index.len() {
            self.rights.retain(|access| Arc::strong_count(access) > 1);
        }
        self.index.clone()
    }

    fn entry(&mut self, record: &KeyRecordSpec) -> Result<Entry, UnusableRecord> {
        let mut digest = [0; 32];
        let text = record.digest.as_deref().and_then(|digest| digest.strip_prefix("sha256:"));
        hex::decode_to_slice(text.unwrap_or_default(), &mut digest).map_err(|_| UnusableRecord::Digest)?;
        let limits = record.limits.as_ref().ok_or(UnusableRecord::Limits)?;
        let access = Access::new(&record.role, &record.verbs, &record.permissions, &record.audiences, limits);
        Ok(Entry {
            digest,
            access: self.shared(access),
            ends_at: record
                .destroy_at
                .as_ref()
                .map_or(record.expires_at.0, |at| at.0.min(record.expires_at.0))
                .as_second(),
            suspended: record.state == RecordState::Suspended,
            lasting: Arc::new(Lasting { owner: record.owner.customer_id.as_str().into(), state: Mutex::default() }),
            deprecated: record.replaced_by.is_some() || record.state == RecordState::Deprecated,
        })
    }

    fn shared(&mut self, access: Access) -> Arc<Access> {
        if let Some(known) = self.rights.get(&access) {
            return known.clone();
        }
        let access = Arc::new(access);
        self.rights.insert(access.clone());
        access
    }
}
