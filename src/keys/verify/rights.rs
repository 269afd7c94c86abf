//! What keys may do: millions of keys have few different rights, and share them.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::Access;
use crate::api::{KeyRecordSpec, Limits, Verb};

/// The rights of a record, as they stand there: to be looked up before anything is made of them.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Rights<'a> {
    role: Cow<'a, str>,
    verbs: Cow<'a, [Verb]>,
    permissions: Cow<'a, [String]>,
    audiences: Cow<'a, [String]>,
    limits: Limits,
}

impl Rights<'_> {
    fn into_owned(self) -> Rights<'static> {
        Rights {
            role: Cow::Owned(self.role.into_owned()),
            verbs: Cow::Owned(self.verbs.into_owned()),
            permissions: Cow::Owned(self.permissions.into_owned()),
            audiences: Cow::Owned(self.audiences.into_owned()),
            limits: self.limits,
        }
    }
}

/// All rights that some key has.
#[derive(Debug, Default)]
pub(super) struct KnownRights(HashMap<Rights<'static>, Arc<Access>, RandomState>);

impl KnownRights {
    /// What a record allows; `None` where it says not how many calls.
    pub(super) fn of(&mut self, record: &KeyRecordSpec) -> Option<Arc<Access>> {
        let limits = record.limits?;
        let rights = Rights {
            role: Cow::Borrowed(&record.role),
            verbs: Cow::Borrowed(&record.verbs),
            permissions: Cow::Borrowed(&record.permissions),
            audiences: Cow::Borrowed(&record.audiences),
            limits,
        };
        if let Some(access) = find(&self.0, &rights) {
            return Some(access.clone());
        }
        let access =
            Arc::new(Access::new(&record.role, &record.verbs, &record.permissions, &record.audiences, &limits));
        self.0.insert(rights.into_owned(), access.clone());
        Some(access)
    }

    /// Forgets what nobody has any more, once that is more than there are keys.
    pub(super) fn tidy(&mut self, keys: usize) {
        if self.0.len() > 64 && self.0.len() > keys {
            self.0.retain(|_, access| Arc::strong_count(access) > 1);
        }
    }
}

/// A look-up by rights that are borrowed.
fn find<'a>(known: &'a HashMap<Rights<'a>, Arc<Access>, RandomState>, rights: &Rights<'a>) -> Option<&'a Arc<Access>> {
    known.get(rights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::DEFAULT_RATE;

    fn record(role: &str) -> KeyRecordSpec {
        serde_json::from_value(serde_json::json!({
            "apiKey": {"namespace": "n", "name": "k", "version": 1}, "owner": {"customerId": "n"}, "role": role,
            "audiences": ["a"], "state": "Active", "expiresAt": "2100-01-01T00:00:00Z", "limits": DEFAULT_RATE,
        }))
        .unwrap()
    }

    #[test]
    fn equal_rights_are_one() {
        let mut known = KnownRights::default();
        let [viewer, again, editor] = ["Viewer", "Viewer", "Editor"].map(|role| known.of(&record(role)).unwrap());
        assert!(Arc::ptr_eq(&viewer, &again) && !Arc::ptr_eq(&viewer, &editor));
        assert_eq!((&*viewer.role, &*editor.role), ("Viewer", "Editor"));
    }

    #[test]
    fn what_nobody_has_is_forgotten() {
        let mut known = KnownRights::default();
        let kept = known.of(&record("kept")).unwrap();
        for nth in 0..100 {
            known.of(&record(&nth.to_string()));
        }
        known.tidy(1);
        assert_eq!(known.0.len(), 1);
        assert!(Arc::ptr_eq(&kept, &known.of(&record("kept")).unwrap()));
    }
}
