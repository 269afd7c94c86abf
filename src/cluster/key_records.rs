//! KeyRecords: what verifiers know of a key.
//!
//! A record is made once; then only where the key stands and what it may do change, with the resourceVersion that
//! was read. A tombstone is never touched again.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, ResourceExt as _,
    api::{GetParams, PostParams},
};

use super::{
    Error, Result,
    error::{call, found},
    key_store::KeyStore,
};
use crate::{
    api::{
        ApiKeyRef, ApiKeyStatus, KeyRecord, KeyRecordSpec, RecordState,
        labels::{KEY_ENDED, KEY_RETAINED, OWNER_NAMESPACE},
    },
    keys::{DEFAULT_RATE, Grant, RecordSeen, SecretSeen, Standing, verify::KeyId},
};

/// How often it is tried to end a record that others write, too.
const END_TRIES: u32 = 4;

impl KeyStore<'_> {
    fn records(&self) -> Api<KeyRecord> {
        Api::namespaced(self.client.clone(), self.keys_namespace)
    }

    /// The records of this ApiKey, by id: of those named, and of those that were heard of; and the ids named that are
    /// another's.
    pub(super) async fn records_seen(
        &self,
        mut ids: BTreeSet<String>,
    ) -> Result<(BTreeMap<String, RecordSeen>, BTreeSet<String>)> {
        let (namespace, name) = (&self.spec.namespace, &self.spec.name);
        ids.append(&mut self.record_names.of(namespace, name));
        // What somebody wrote into a Secret need not be an id.
        ids.retain(|id| KeyId::parse(id).is_some());
        let records = self.records();
        let read = ids.iter().map(async |id| found(call(|| format!("reading KeyRecord {id}"), records.get(id)).await));
        let read = try_join_all(read).await?.into_iter().flatten();
        let (ours, foreign): (Vec<_>, Vec<_>) = read.partition(|record| self.owns(record));
        let ours = ours.iter().map(|record| (record.name_any(), seen(record))).collect();
        Ok((ours, foreign.into_iter().filter_map(|record| record.metadata.name).collect()))
    }

    /// Whether a record is of this ApiKey: by name, since a restore gives it another UID. The tombstone of a token is that
    /// of all who have it.
    fn owns(&self, record: &KeyRecord) -> bool {
        let (spec, of) = (self.spec, &record.spec.api_key);
        let is_token = spec.imported.is_some() && record.spec.state.is_tombstone();
        of.namespace == spec.namespace && (of.name == spec.name || is_token)
    }

    /// A status as far as it can be true: who may write it names ids as they like, and a backup brings it to another
    /// namespace. What is no id, or another's, is no version of this ApiKey.
    pub(super) fn own_versions(&self, mut status: ApiKeyStatus, foreign: &BTreeSet<String>) -> ApiKeyStatus {
        let told = status.versions.len();
        status.versions.retain(|version| KeyId::parse(&version.id).is_some() && !foreign.contains(&version.id));
        let left_out = told.saturating_sub(status.versions.len());
        if left_out > 0 {
            let (namespace, name) = (&self.spec.namespace, &self.spec.name);
            tracing::warn!(namespace, name, left_out, "status names keys of others as versions: they are left out");
            if status.current().is_none() {
                status.current_version = None;
            }
        }
        status
    }

    /// Whether a key has this id, or ever had it, as far as the API server has it in its cache: what got the same id
    /// since then keeps its record, since none is written over.
    pub(super) async fn is_taken(&self, id: &str) -> Result<bool> {
        let (records, any) = (self.records(), GetParams::any());
        Ok(found(call(|| format!("reading KeyRecord {id}"), records.get_with(id, &any)).await)?.is_some())
    }

    /// Tells verifiers about the key of version `n`; `None` where they are told already.
    ///
    /// # Errors
    /// When a call fails, or the id is another ApiKey's.
    pub async fn create_record(&self, n: i64, secret: &SecretSeen, standing: &Standing) -> Result<Option<RecordSeen>> {
        let mut spec = self.record_of(n, standing.expires_at, standing.state);
        spec.digest = Some(secret.digest.clone());
        spec.audiences.clone_from(&self.spec.audiences);
        put(&mut spec, standing);
        Ok(self.make_record(&secret.id, spec, standing.retained).await?.as_ref().map(seen))
    }

    /// Changes what a record says; not that of a tombstone.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn update_record(&self, id: &str, standing: &Standing) -> Result<()> {
        let records = self.records();
        let Some(mut record) = found(call(|| format!("reading KeyRecord {id}"), records.get(id)).await)? else {
            return Ok(());
        };
        if record.spec.state.is_tombstone() {
            return Ok(());
        }
        put(&mut record.spec, standing);
        mark(&mut record, standing.retained);
        self.own.note(&replace(&records, id, &record).await?);
        Ok(())
    }

    /// Leaves a tombstone of a key, also where its record was lost: else its Secret could be put back and be taken
    /// for a key again.
    ///
    /// # Errors
    /// When a call fails, or the id is another ApiKey's.
    pub async fn end_record(
        &self,
        (id, n): (&str, i64),
        state: RecordState,
        replaced_by: Option<String>,
        expires_at: jiff::Timestamp,
    ) -> Result<()> {
        let end = (state, replaced_by.clone());
        if end_record(&self.records(), id, end, |record| self.owns(record), |record| self.own.note(record)).await? {
            return Ok(());
        }
        let mut spec = self.record_of(n, expires_at, state);
        spec.replaced_by = replaced_by;
        self.make_record(id, spec, false).await.map(drop)
    }

    fn record_of(&self, n: i64, expires_at: jiff::Timestamp, state: RecordState) -> KeyRecordSpec {
        let spec = self.spec;
        KeyRecordSpec {
            api_key: ApiKeyRef { namespace: spec.namespace.clone(), name: spec.name.clone(), version: n },
            digest: None,
            owner: spec.owner.clone(),
            role: String::new(),
            verbs: vec![],
            permissions: vec![],
            limits: None,
            audiences: vec![],
            expires_at: Time(expires_at),
            state,
            replaced_by: None,
            destroy_at: None,
        }
    }

    async fn make_record(&self, id: &str, spec: KeyRecordSpec, retained: bool) -> Result<Option<KeyRecord>> {
        let api_key = spec.api_key.clone();
        let mut record = KeyRecord::new(id, spec);
        let mut labels = self.version_labels(api_key.version, id);
        labels.insert(OWNER_NAMESPACE.into(), self.spec.namespace.clone());
        record.metadata.labels = Some(labels);
        mark(&mut record, retained);
        mark_ended(&mut record);
        match call(|| format!("creating KeyRecord {id}"), self.records().create(&PostParams::default(), &record)).await
        {
            Err(error) if error.code() == Some(409) => {
                let taken = call(|| format!("reading KeyRecord {id}"), self.records().get(id)).await?;
                let ours = taken.spec.api_key == api_key;
                if ours { Ok(None) } else { Err(Error::Foreign { kind: "KeyRecord", name: id.to_owned() }) }
            }
            created => created.map(|record| {
                self.own.note(&record);
                Some(record)
            }),
        }
    }
}

fn seen(record: &KeyRecord) -> RecordSeen {
    let spec = &record.spec;
    RecordSeen {
        standing: Standing {
            state: spec.state,
            replaced_by: spec.replaced_by.clone(),
            destroy_at: spec.destroy_at.as_ref().map(|time| time.0),
            expires_at: spec.expires_at.0,
            grant: Grant {
                role: spec.role.clone(),
                verbs: spec.verbs.clone(),
                permissions: spec.permissions.clone(),
                limits: spec.limits.unwrap_or(DEFAULT_RATE),
            },
            retained: is_retained(record),
        },
        digest: spec.digest.clone(),
        revision: record.resource_version().unwrap_or_default(),
    }
}

/// Whether a key lives on when its ApiKey is deleted.
#[must_use]
pub fn is_retained(record: &KeyRecord) -> bool {
    record.labels().get(KEY_RETAINED).is_some_and(|value| value == "true")
}

fn mark(record: &mut KeyRecord, retained: bool) {
    if retained {
        record.labels_mut().insert(KEY_RETAINED.into(), "true".into());
    } else {
        record.labels_mut().remove(KEY_RETAINED);
    }
}

/// A tombstone is known by its label: there are more of them every day, and a watch of metadata tells.
fn mark_ended(record: &mut KeyRecord) {
    if record.spec.state.is_tombstone() {
        record.labels_mut().insert(KEY_ENDED.into(), "true".into());
    }
}

fn put(spec: &mut KeyRecordSpec, standing: &Standing) {
    let Standing { state, replaced_by, destroy_at, expires_at, grant, retained: _ } = standing.clone();
    spec.state = state;
    spec.replaced_by = replaced_by;
    spec.destroy_at = destroy_at.map(Time);
    spec.expires_at = Time(expires_at);
    (spec.role, spec.verbs, spec.permissions) = (grant.role, grant.verbs, grant.permissions);
    spec.limits = Some(grant.limits);
}

/// Makes a record a tombstone, with the resourceVersion that was read, and tells what was written. Returns whether there
/// was a record. Ids are public: whose a record is says the record alone.
///
/// # Errors
/// When a call fails, or the record is another's.
pub async fn end_record(
    records: &Api<KeyRecord>,
    id: &str,
    (state, replaced_by): (RecordState, Option<String>),
    is_ours: impl Fn(&KeyRecord) -> bool,
    wrote: impl FnOnce(&KeyRecord),
) -> Result<bool> {
    for left in (0..END_TRIES).rev() {
        let Some(mut record) = found(call(|| format!("reading KeyRecord {id}"), records.get(id)).await)? else {
            return Ok(false);
        };
        if !is_ours(&record) {
            return Err(Error::Foreign { kind: "KeyRecord", name: id.to_owned() });
        }
        if record.spec.state.is_tombstone() {
            return Ok(true);
        }
        reduce(&mut record, state, replaced_by.clone());
        match replace(records, id, &record).await {
            // Others write it, too, or end it: that puts no end off.
            Err(error) if error.code() == Some(409) && left > 0 => {}
            written => {
                wrote(&written?);
                return Ok(true);
            }
        }
    }
    Ok(true)
}

/// What is left of the record of a key that has ended.
fn reduce(record: &mut KeyRecord, state: RecordState, replaced_by: Option<String>) {
    let spec = &mut record.spec;
    (spec.state, spec.replaced_by, spec.destroy_at) = (state, replaced_by, None);
    (spec.digest, spec.limits) = (None, None);
    spec.role.clear();
    spec.verbs.clear();
    spec.permissions.clear();
    spec.audiences.clear();
    mark_ended(record);
}

async fn replace(records: &Api<KeyRecord>, id: &str, record: &KeyRecord) -> Result<KeyRecord> {
    call(|| format!("updating KeyRecord {id}"), records.replace(id, &PostParams::default(), record)).await
}

#[cfg(test)]
#[path = "key_records_tests.rs"]
mod tests;
