//! Who waits for verifiers.

use std::collections::BTreeSet;

use kube::{ResourceExt as _, core::DeserializeGuard, runtime::reflector::ObjectRef};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::ApiKeys;
use crate::{
    api::{ApiKey, VerifierCounts},
    cluster::{Result, verifiers::Verifiers},
    keys::{Observed, Spec, is_of_verifiers},
    runtime::clock,
};

impl ApiKeys {
    /// Reads the reports before anything is done that would wait for a verifier which has gone silent: it may be our watch
    /// that has, and the verifier admits keys, and lacks others.
    pub(super) async fn check_verifiers(&self, spec: &Spec, seen: &mut Observed) -> Result<()> {
        if self.verifiers.are_silent() && is_of_verifiers(spec, seen, clock::now()) {
            seen.verifiers = self.verifiers.ask(&self.context.client, &self.settings.keys_namespace).await?;
        }
        Ok(())
    }
}

/// ApiKeys that wait for verifiers: they alone are woken when a report changes.
#[derive(Default)]
pub(super) struct Waiting(Mutex<BTreeSet<(String, String)>>);

impl Waiting {
    pub(super) fn note(&self, key: &ApiKey, waits: bool) {
        let name = (key.namespace().unwrap_or_default(), key.name_any());
        let mut all = self.0.lock();
        let _ = if waits { all.insert(name) } else { all.remove(&name) };
    }

    fn take(&self) -> BTreeSet<(String, String)> {
        std::mem::take(&mut *self.0.lock())
    }

    /// Wakes them whenever a report has changed; who still waits then is noted again.
    pub(super) async fn wake(
        &self,
        mut verifiers: Verifiers,
        one: mpsc::UnboundedSender<ObjectRef<DeserializeGuard<ApiKey>>>,
    ) {
        loop {
            verifiers.changed().await;
            for (namespace, name) in self.take() {
                let _ = one.send(ObjectRef::new(&name).within(&namespace));
            }
        }
    }
}

/// Whether verifiers have yet to come: those that lag, or the first one, which no other event tells of.
pub(super) const fn waits(counts: &VerifierCounts) -> bool {
    counts.desired == 0 || counts.up_to_date < counts.desired
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_for_the_first_verifier_and_for_those_that_lag() {
        let waits = |desired, up_to_date| waits(&VerifierCounts { desired, up_to_date });
        assert!(waits(0, 0) && waits(2, 1) && !waits(2, 2));
    }
}
