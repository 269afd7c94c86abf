//! The Secrets of API keys, and the look at everything else that the machine decides by.
//!
//! Version Secrets are created and never rewritten; the consumer Secret is written with the resourceVersion
//! that was read.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams, PropagationPolicy},
};

use super::{
    Error, Result,
    apply::exactly,
    error::{found, secret_call},
    kept_secrets::KeptSecrets,
    own_writes::OwnWrites,
    owned_names::OwnedNames,
    pages,
    verifiers::Verifiers,
    workloads,
};
use crate::{
    api::{
        ApiKeyStatus,
        labels::{KEY_CREATED_AT, KEY_ID, KEY_MAC, KEY_VERSION, MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME},
        whole_second,
    },
    keys::{
        ConsumerSeen, Observed, SecretSeen, Spec,
        adoption::{AdoptionKey, Binding},
        format::{ApiKeyText, digest_of, id_from},
        jobs_that_matter,
    },
    runtime::{clock, random},
};

/// Kind that owns everything here.
pub const OWNER: &str = "ApiKey";

/// Entries of a version Secret.
const KEY_ENTRY: &str = "key";
const ID_ENTRY: &str = "id";
const DIGEST_ENTRY: &str = "digest";

/// Fresh ids that are tried before giving up: each is taken with a chance of one in a million keys to
/// the three billion ids.
const ID_TRIES: usize = 8;

/// Secrets of one page: more than a key has, as a rule.
const FEW: u32 = 10;

/// The objects of one ApiKey.
pub struct KeyStore<'a> {
    /// Client of the operator.
    pub client: &'a Client,
    /// Namespace of KeyRecords.
    pub keys_namespace: &'a str,
    /// The MAC key.
    pub adoption: &'a AdoptionKey,
    /// The verifiers.
    pub verifiers: &'a Verifiers,
    /// Where to look for records.
    pub record_names: &'a OwnedNames,
    /// What is written here is noted there.
    pub own: &'a OwnWrites,
    /// Secrets of this visit.
    pub kept: &'a KeptSecrets,
    /// The ApiKey.
    pub spec: &'a Spec,
}

pub(super) fn opaque(name: &str, labels: BTreeMap<String, String>, data: BTreeMap<String, Vec<u8>>) -> Secret {
    Secret {
        metadata: ObjectMeta { name: Some(name.into()), labels: Some(labels), ..ObjectMeta::default() },
        type_: Some("Opaque".into()),
        data: Some(data.into_iter().map(|(name, bytes)| (name, ByteString(bytes))).collect()),
        ..Secret::default()
    }
}

fn text<'a>(secret: &'a Secret, entry: &str) -> Option<&'a str> {
    secret.data.as_ref()?.get(entry).and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
}

impl KeyStore<'_> {
    pub(super) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.spec.namespace)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        [(MANAGED_BY, MANAGER), (OWNER_KIND, OWNER), (OWNER_NAME, &self.spec.name)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    pub(super) fn version_labels(&self, n: i64, id: &str) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        labels.extend([(KEY_VERSION.to_owned(), n.to_string()), (KEY_ID.to_owned(), id.to_owned())]);
        labels
    }

    fn digest(&self, secret: &Secret, entry: &str) -> Option<String> {
        let bytes = secret.data.as_ref()?.get(entry)?;
        if self.spec.imported.is_some() {
            return Some(digest_of(&bytes.0));
        }
        // What is no key of ours has no digest, and so is never taken for the right one.
        let key = text(secret, entry).and_then(|key| ApiKeyText::parse(key).ok());
        Some(key.map_or_else(String::new, |key| key.digest()))
    }

    /// Reads everything that the machine decides by, from the API server and not from a cache.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn observe(&self, status: ApiKeyStatus) -> Result<Observed> {
        let spec = self.spec;
        let secrets = self.secrets_seen(&status).await?;
        let told = status.versions.iter().map(|version| version.id.clone());
        let ids = told.chain(secrets.values().map(|secret| secret.id.clone())).collect();
        let (records, foreign) = self.records_seen(ids).await?;
        let status = self.own_versions(status, &foreign);
        let pending = status.next_version.and_then(|n| secrets.get(&n)).map(|secret| secret.id.as_str());
        let mut jobs = BTreeMap::new();
        for job in jobs_that_matter(spec, &status, pending) {
            if let Some(seen) = self.job_seen(&job).await? {
                jobs.insert(job.name(spec), seen);
            }
        }
        let mut restarted = vec![];
        for target in spec.restart_targets.iter().filter(|_| status.current_version.is_some()) {
            restarted.push(workloads::observe(self.client, spec, target).await?);
        }
        let supplied = self.supplied(&status, &secrets).await?;
        let consumer = self.consumer_seen(self.consumer().await?.as_ref());
        let read = Observed {
            supplied,
            consumer,
            workloads: restarted,
            status,
            secrets,
            records,
            jobs,
            ..Observed::default()
        };
        Ok(self.hear(read))
    }

    /// The version Secrets. Anybody may label Secrets so, as many and as large as he likes: they are read a few at a
    /// time, and only what may be handed out is kept, and what consumers have.
    async fn secrets_seen(&self, status: &ApiKeyStatus) -> Result<BTreeMap<i64, SecretSeen>> {
        let spec = self.spec;
        let selector = format!("{MANAGED_BY}={MANAGER},{OWNER_KIND}={OWNER},{OWNER_NAME}={}", spec.name);
        let is_known = |n| status.next_version == Some(n) || status.versions.iter().any(|version| version.n == n);
        let (mut seen, mut kept) = (BTreeMap::new(), vec![]);
        let mut next = Some(ListParams::default().labels(&selector).limit(FEW));
        while let Some(params) = next {
            let doing = || format!("listing the Secrets of {}", spec.name);
            let page = secret_call(doing, self.secrets().list(&params)).await?;
            for secret in page.items {
                let version = self.secret_seen(&secret);
                let may_serve = |(n, seen): &(i64, SecretSeen)| seen.proven || is_known(*n);
                if version.as_ref().is_some_and(may_serve) || secret.name_any() == spec.consumer {
                    kept.push(secret);
                }
                seen.extend(version);
            }
            next = pages::after(params, page.metadata);
        }
        self.kept.renew(kept);
        Ok(seen)
    }

    /// Reads the records alone: enough for ending them, and soonest.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn observe_records(&self, status: ApiKeyStatus) -> Result<Observed> {
        let told = status.versions.iter().map(|version| version.id.clone()).collect();
        let (records, foreign) = self.records_seen(told).await?;
        Ok(Observed { status: self.own_versions(status, &foreign), records, ..Observed::default() })
    }

    /// What verifiers say by now, with everything else as it was read, and written since.
    #[must_use]
    pub fn hear(&self, seen: Observed) -> Observed {
        Observed {
            last_used: self.verifiers.last_used(seen.records.keys()),
            uses: self.verifiers.uses(|id| seen.records.contains_key(id)),
            verifiers: self.verifiers.live(),
            ..seen
        }
    }

    fn secret_seen(&self, secret: &Secret) -> Option<(i64, SecretSeen)> {
        let n: i64 = secret.labels().get(KEY_VERSION)?.parse().ok()?;
        // A copy under another name, labels and all, is not the version.
        if n < 1 || secret.name_any() != self.spec.secret_name(n) {
            return None;
        }
        let id = text(secret, ID_ENTRY).unwrap_or_default().to_owned();
        let digest = self.digest(secret, KEY_ENTRY).unwrap_or_default();
        let created_at = made_at(secret);
        let annotation = |key: &str| secret.annotations().get(key);
        let proof = annotation(KEY_CREATED_AT).zip(annotation(KEY_MAC)).filter(|_| !digest.is_empty());
        let proven = proof.is_some_and(|(created_at, mac)| {
            let binding = Binding { spec: self.spec, version: n, id: &id, digest: &digest, created_at };
            self.adoption.verify(&binding, mac)
        });
        Some((n, SecretSeen { id, created_at, digest, proven }))
    }

    async fn consumer(&self) -> Result<Option<Secret>> {
        let name = &self.spec.consumer;
        if self.kept.knows(name) {
            return Ok(self.kept.get(name));
        }
        let read = found(secret_call(|| format!("reading Secret {name}"), self.secrets().get(name)).await)?;
        self.kept.keep(name, read.as_ref());
        Ok(read)
    }

    fn consumer_seen(&self, secret: Option<&Secret>) -> ConsumerSeen {
        let Some(secret) = secret else { return ConsumerSeen::Absent };
        let ours = self.labels().iter().all(|(key, value)| secret.labels().get(key) == Some(value));
        // A version Secret is ours too, but never the one that consumers mount.
        if !ours || secret.labels().contains_key(KEY_VERSION) {
            let is_keys = secret.labels().get(OWNER_KIND).is_some_and(|kind| kind == OWNER);
            return ConsumerSeen::Foreign(secret.labels().get(OWNER_NAME).filter(|_| is_keys).cloned());
        }
        let entries = &self.spec.entries;
        ConsumerSeen::Ours {
            current: self.digest(secret, &entries.current),
            previous: self.digest(secret, &entries.previous),
            id: text(secret, &entries.id).map(Into::into),
        }
    }

    /// Makes the Secret of version `n`, with a new key, or the token that the user supplies. If somebody was faster,
    /// theirs stands, and `None` is returned.
    ///
    /// # Errors
    /// When a call fails, or the operating system has no randomness.
    pub async fn create_secret(&self, n: i64) -> Result<Option<SecretSeen>> {
        if let Some(import) = &self.spec.imported {
            // Gone, or changed for the worse since it was looked at: the next look tells.
            let Ok((token, text)) = self.offered(import).await? else { return Ok(None) };
            return self.write_version(n, &token.id, (text.expose(), &token.digest)).await;
        }
        let id = self.fresh_id().await?;
        let key = ApiKeyText::new(&self.spec.prefix, &id, &*random::bytes::<32>()?);
        self.write_version(n, &id, (key.expose(), &key.digest())).await
    }

    async fn write_version(&self, n: i64, id: &str, (key, digest): (&str, &str)) -> Result<Option<SecretSeen>> {
        let created_at = whole_second(clock::now()).to_string();
        let mac = self.adoption.mac(&Binding { spec: self.spec, version: n, id, digest, created_at: &created_at });
        let data = [(KEY_ENTRY, key), (ID_ENTRY, id), (DIGEST_ENTRY, digest)]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let name = self.spec.secret_name(n);
        let mut secret = opaque(&name, self.version_labels(n, id), data.into());
        secret.metadata.annotations = Some([(KEY_CREATED_AT.to_owned(), created_at), (KEY_MAC.to_owned(), mac)].into());
        secret.immutable = Some(true);
        let (api, params) = (self.secrets(), PostParams::default());
        match secret_call(|| format!("creating Secret {name}"), api.create(&params, &secret)).await {
            Err(error) if error.code() == Some(409) => self.refuse_foreign_version(n).await.map(|()| None),
            created => {
                let secret = created?;
                self.wrote(&secret);
                Ok(self.secret_seen(&secret).map(|(_, seen)| seen))
            }
        }
    }

    fn wrote(&self, secret: &Secret) {
        self.own.note(secret);
        self.kept.keep(&secret.name_any(), Some(secret));
    }

    /// The name was taken: if by us, the next look will find it; if by somebody else, we say so.
    async fn refuse_foreign_version(&self, n: i64) -> Result<()> {
        let name = self.spec.secret_name(n);
        let taken = found(secret_call(|| format!("reading Secret {name}"), self.secrets().get(&name)).await)?;
        match taken {
            Some(secret) if self.secret_seen(&secret).is_none_or(|(_, seen)| !seen.proven) => {
                Err(Error::Foreign { kind: "Secret", name })
            }
            _ => Ok(()),
        }
    }

    /// An id that no key has or ever had.
    async fn fresh_id(&self) -> Result<String> {
        for _ in 0..ID_TRIES {
            let id = id_from(&*random::bytes::<8>()?);
            if !self.is_taken(&id).await? {
                return Ok(id);
            }
        }
        Err(Error::Unexpected("every fresh key id was taken".into()))
    }

    /// Writes the consumer Secret, our three entries and no others, and returns what it holds then.
    ///
    /// # Errors
    /// When a call fails, a version's Secret is gone, or the consumer Secret is somebody else's.
    pub async fn write_consumer(&self, current: Option<i64>, previous: Option<i64>) -> Result<ConsumerSeen> {
        let live = self.consumer().await?;
        if matches!(self.consumer_seen(live.as_ref()), ConsumerSeen::Foreign(_)) {
            return Err(Error::Foreign { kind: "Secret", name: self.spec.consumer.clone() });
        }
        let entries = &self.spec.entries;
        let mut wanted: BTreeMap<&str, Option<ByteString>> =
            [&entries.current, &entries.previous, &entries.id].map(|entry| (entry.as_str(), None)).into();
        if let Some(n) = current {
            let secret = self.version(n).await?;
            wanted.insert(&entries.current, entry(&secret, KEY_ENTRY));
            wanted.insert(&entries.id, entry(&secret, ID_ENTRY));
        }
        if let Some(n) = previous {
            wanted.insert(&entries.previous, entry(&self.version(n).await?, KEY_ENTRY));
        }
        let name = &self.spec.consumer;
        let exists = live.is_some();
        let mut secret = live.unwrap_or_else(|| opaque(name, self.labels(), BTreeMap::new()));
        let data = secret.data.get_or_insert_default();
        for (entry, value) in wanted {
            match value {
                Some(value) => drop(data.insert(entry.to_owned(), value)),
                None => drop(data.remove(entry)),
            }
        }
        let (params, api) = (PostParams::default(), self.secrets());
        let doing = || format!("writing Secret {name}");
        let written = if exists {
            secret_call(doing, api.replace(name, &params, &secret)).await
        } else {
            secret_call(doing, api.create(&params, &secret)).await
        }?;
        self.wrote(&written);
        Ok(self.consumer_seen(Some(&written)))
    }

    async fn version(&self, n: i64) -> Result<Secret> {
        let name = self.spec.secret_name(n);
        if let Some(kept) = self.kept.get(&name) {
            return Ok(kept);
        }
        secret_call(|| format!("reading Secret {name}"), self.secrets().get(&name)).await
    }

    /// Deletes the Secret of version `n`, and the Jobs that tested it.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn delete_secret(&self, n: i64) -> Result<()> {
        let name = self.spec.secret_name(n);
        let Some(seen) = found(self.version(n).await)? else { return Ok(()) };
        if self.secret_seen(&seen).is_none() {
            return Err(Error::Foreign { kind: "Secret", name });
        }
        let doing = || format!("deleting Secret {name}");
        found(secret_call(doing, self.secrets().delete(&name, &exactly(&seen))).await).map(drop)
    }
}

/// When a version Secret was made. The annotation outlives a restore, which only makes the API server's own time later;
/// a later one was written by somebody who wants the key to live longer.
fn made_at(secret: &Secret) -> Timestamp {
    let told = secret.annotations().get(KEY_CREATED_AT).and_then(|time| time.parse().ok());
    let stored = secret.creation_timestamp().map(|time| time.0);
    told.into_iter().chain(stored).min().unwrap_or(Timestamp::UNIX_EPOCH)
}

fn entry(secret: &Secret, name: &str) -> Option<ByteString> {
    secret.data.as_ref().and_then(|data| data.get(name)).cloned()
}

/// Deletes an orphaned Secret exactly as it was seen.
///
/// # Errors
/// When a call fails.
pub async fn delete_orphan(client: &Client, metadata: &ObjectMeta) -> Result<()> {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let preconditions =
        kube::api::Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        propagation_policy: Some(PropagationPolicy::Background),
        ..DeleteParams::default()
    };
    found(secret_call(|| format!("deleting Secret {name}"), api.delete(name, &params)).await).map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_version_is_not_made_younger_by_its_annotation() {
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let made = |told: Option<&str>, stored: Option<&str>| {
            let annotations = told.map(|told| json!({KEY_CREATED_AT: told}));
            let metadata = json!({"creationTimestamp": stored, "annotations": annotations});
            made_at(&serde_json::from_value(json!({"metadata": metadata})).unwrap()).to_string()
        };
        assert_eq!(made(Some(early), Some(late)), early, "restored");
        assert_eq!(made(Some(late), Some(early)), early, "somebody wants it to live longer");
        assert_eq!(made(None, Some(early)), early);
        assert_eq!(made(Some("soon"), Some(early)), early);
    }
}
