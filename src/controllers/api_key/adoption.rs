//! The key by which adoption is proven. While the Secret that holds it is broken, revocations alone are carried out: they
//! need no proof.

use std::{sync::OnceLock, time::Duration};

use kube::Client;
use tokio::sync::watch;

use super::REFUSAL_CHECK;
use crate::{
    cluster::{
        Error, Result,
        adoption_secret::{ADOPTION_SECRET, adoption_key},
    },
    controllers::Context,
    keys::adoption::AdoptionKey,
    runtime::random,
};

/// Reason of an ApiKey while the key can't be read.
pub(super) const LOST: &str = "AdoptionKeyLost";

pub(super) struct Adoption {
    key: OnceLock<AdoptionKey>,
    /// A random one, which proves nothing.
    none: AdoptionKey,
}

impl Adoption {
    /// Reads its Secret, or makes it; `None` where the process stops before.
    pub(super) async fn read(context: &Context, namespace: &str) -> Option<Self> {
        loop {
            match Self::try_read(&context.client, namespace).await {
                Ok(adoption) => return Some(adoption),
                Err(error) => tracing::warn!(%error, "no ApiKey is reconciled before the adoption key is there"),
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
                () = context.stopped.cancelled() => return None,
            }
        }
    }

    async fn try_read(client: &Client, namespace: &str) -> Result<Self> {
        let key = adoption_key(client, namespace).await?;
        if key.is_none() {
            tracing::error!(reason = LOST, "{}", lost(namespace));
        }
        let none = random::bytes::<{ AdoptionKey::LENGTH }>()?;
        let none = AdoptionKey::new(none.to_vec()).ok_or_else(|| Error::Unexpected("too few random bytes".into()))?;
        Ok(Self { key: key.map_or_else(OnceLock::new, OnceLock::from), none })
    }

    /// The key, or one that proves nothing.
    pub(super) fn key(&self) -> &AdoptionKey {
        self.key.get().unwrap_or(&self.none)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.key.get().is_none()
    }

    /// Reads it again while it is lost, and has all ApiKeys looked at once it is there.
    pub(super) async fn follow(&self, client: &Client, namespace: &str, all: &watch::Sender<u64>) {
        while self.is_lost() {
            tokio::time::sleep(REFUSAL_CHECK).await;
            if let Ok(Some(key)) = adoption_key(client, namespace).await {
                let _ = self.key.set(key);
                all.send_modify(|count| *count += 1);
            }
        }
    }
}

/// What is told meanwhile.
pub(super) fn lost(namespace: &str) -> String {
    format!(
        "Secret {namespace}/{ADOPTION_SECRET} has no entry \"key\" of 32 bytes, by which the Secrets of keys are \
         known: restore it from a backup; until then nothing but revocations is carried out"
    )
}
