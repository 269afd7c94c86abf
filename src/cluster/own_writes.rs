//! What was written here: the watch tells of it again, and that is no news.

use std::collections::HashMap;

use kube::{Resource, ResourceExt as _};
use parking_lot::{Mutex, MutexGuard};

/// An object as it stood at one moment: its UID, and its resourceVersion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    uid: String,
    version: String,
}

impl Revision {
    /// How an object that was read stands; none of one that was never stored.
    #[must_use]
    pub fn of<K: Resource>(object: &K) -> Option<Self> {
        Some(Self { uid: object.uid()?, version: object.resource_version()? })
    }
}

/// The last of our own writes to each object that the watch has not told of yet.
#[derive(Debug, Default)]
pub struct OwnWrites(Mutex<HashMap<String, String>>);

impl OwnWrites {
    /// Takes note of what the API server answered to a write.
    pub fn note<K: Resource>(&self, written: &K) {
        if let Some(Revision { uid, version }) = Revision::of(written) {
            self.all().insert(uid, version);
        }
    }

    /// Whether an object stands as we wrote it last; asked once, for the one event of each write.
    #[must_use]
    pub fn is_echo(&self, seen: &Revision) -> bool {
        let mut all = self.all();
        let is_echo = all.get(&seen.uid) == Some(&seen.version);
        if is_echo {
            all.remove(&seen.uid);
        }
        is_echo
    }

    /// Forgets all writes: a watch that starts anew need not tell of each.
    pub fn forget(&self) {
        self.all().clear();
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::json;

    use super::*;

    fn secret(uid: &str, version: &str) -> Secret {
        serde_json::from_value(json!({"metadata": {"uid": uid, "resourceVersion": version}})).unwrap()
    }

    fn seen(uid: &str, version: &str) -> Revision {
        Revision::of(&secret(uid, version)).unwrap()
    }

    #[test]
    fn only_what_was_written_last_is_an_echo_and_once() {
        let own = OwnWrites::default();
        own.note(&secret("a", "1"));
        own.note(&secret("a", "2"));
        own.note(&secret("b", "3"));
        assert!(!own.is_echo(&seen("a", "1")), "there was a write after it");
        assert!(own.is_echo(&seen("a", "2")));
        assert!(!own.is_echo(&seen("a", "2")), "somebody put it back as it was");
        assert!(!own.is_echo(&seen("b", "4")), "somebody else wrote after us");
        own.forget();
        assert!(!own.is_echo(&seen("b", "3")));
    }
}
