//! What is left of ApiKeys that are gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams, core::PartialObjectMeta};
use tokio::sync::watch;

use super::super::{
    Context, Roots,
    pruning::{self, Look, Lost, Orphanage, created},
};
use crate::{
    api::{
        ApiKey, KeyRecord, RecordState,
        labels::{KEY_ENDED, MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME},
    },
    cluster::{
        Error, Result,
        error::{call, found, secret_call},
        key_records::{end_record, is_retained},
        key_store::{OWNER, delete_orphan},
        owned_names::{OwnedNames, Owner},
        pages,
        policy_index::PolicyIndex,
        prune::Confirmation,
    },
};

/// Secrets and records whose ApiKey is gone.
pub(super) struct Orphans {
    pub(super) client: Client,
    pub(super) keys_namespace: String,
    pub(super) roots: Roots<ApiKey>,
    pub(super) record_names: OwnedNames,
    pub(super) secret_names: OwnedNames,
    /// Changes its value whenever there may be some.
    pub(super) news: watch::Sender<u64>,
}

/// More objects of owners that are gone are listed: that takes less than to read each.
const MOST_READ: usize = 100;

/// One of them.
pub(super) enum Orphan {
    Secret(Box<ObjectMeta>),
    Record(Box<KeyRecord>),
}

/// Records and Secrets by what becomes of them. Records come first: no Secret goes before its record has ended.
#[derive(Default)]
struct Sorted {
    ends: Vec<Orphan>,
    /// Secrets of records that end.
    along: Vec<Orphan>,
    /// Secrets of no record.
    apart: Vec<Orphan>,
    all_records: usize,
    all_secrets: usize,
    /// Owners of records that stay: they were to live on, or their ApiKey was there when records were looked at. So do
    /// their Secrets.
    staying: BTreeSet<Owner>,
    ending: BTreeSet<Owner>,
    /// Records that were to live on without their ApiKey.
    retained: Vec<KeyRecord>,
    /// What kept the rest from being found.
    rest: Option<Error>,
}

impl Sorted {
    fn record(&mut self, record: KeyRecord, is_gone: bool) {
        if record.spec.state.is_tombstone() {
            return;
        }
        self.all_records += 1;
        if is_gone && is_retained(&record) {
            self.retained.push(record);
        } else {
            self.decided(record, is_gone);
        }
    }

    fn decided(&mut self, record: KeyRecord, goes: bool) {
        let of_it = if goes { &mut self.ending } else { &mut self.staying };
        of_it.insert(owner_of_spec(&record));
        self.ends.extend(goes.then(|| Orphan::Record(Box::new(record))));
    }

    fn secret(&mut self, secret: ObjectMeta, is_gone: bool) {
        self.all_secrets += 1;
        let of = owner_of(&secret);
        if is_gone && !self.staying.contains(&of) {
            let orphans = if self.ending.contains(&of) { &mut self.along } else { &mut self.apart };
            orphans.push(Orphan::Secret(Box::new(secret)));
        }
    }
}

/// By name, not by UID: a restore gives an ApiKey another UID, and its keys must live on. A Secret that names none has
/// none.
fn owner_of(secret: &ObjectMeta) -> Owner {
    let name = secret.labels.as_ref().and_then(|labels| labels.get(OWNER_NAME));
    (secret.namespace.clone().unwrap_or_default(), name.cloned().unwrap_or_default())
}

fn owner_of_spec(record: &KeyRecord) -> Owner {
    (record.spec.api_key.namespace.clone(), record.spec.api_key.name.clone())
}

/// Whether a Secret is labelled as one of an ApiKey.
fn is_made(secret: &ObjectMeta) -> bool {
    let has = |key: &str, value: &str| secret.labels.as_ref().and_then(|it| it.get(key)).is_some_and(|it| it == value);
    has(MANAGED_BY, MANAGER) && has(OWNER_KIND, OWNER)
}

impl Orphans {
    /// Removes them until the process stops.
    pub(super) async fn prune(
        self,
        context: &Context,
        install_namespace: &str,
        confirmed: watch::Receiver<Confirmation>,
        index: &PolicyIndex,
    ) -> anyhow::Result<()> {
        let orphanage = Arc::new(self);
        let pruning = pruning::follow(orphanage.clone(), context.clone(), install_namespace.to_owned(), confirmed);
        tokio::select! {
            result = pruning => result,
            () = orphanage.tell(index) => Ok(()),
        }
    }

    /// Tells of ApiKeys that were deleted, and of namespaces that went with keys that were to stay, for as long as the
    /// future runs.
    async fn tell(&self, index: &PolicyIndex) {
        let (mut deletions, mut namespaces) = (self.roots.deletions(), index.label_changes());
        let mut before = index.known();
        loop {
            let changed = tokio::select! {
                changed = deletions.changed() => changed.map(|()| true),
                changed = namespaces.changed() => changed.map(|()| {
                    let now = index.known();
                    let mut gone = before.labels.keys().filter(|it| !now.labels.contains_key(*it));
                    let matters = gone.any(|it| self.record_names.know_namespace(it));
                    before = now;
                    matters
                }),
            };
            match changed {
                Ok(true) => self.news.send_modify(|count| *count = count.wrapping_add(1)),
                Ok(false) => {}
                // Whoever tells us may end first when the process stops.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Namespaces of these records that are there, and stay, with when they were made.
    async fn namespaces(&self, records: &[KeyRecord]) -> Result<BTreeMap<String, Timestamp>> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let names: BTreeSet<&String> = records.iter().map(|record| &record.spec.api_key.namespace).collect();
        let mut there = BTreeMap::new();
        for name in names {
            let live = found(call(|| format!("reading Namespace {name}"), api.get_metadata(name)).await)?;
            let stays = live.filter(|live| live.metadata.deletion_timestamp.is_none());
            there.extend(stays.map(|live| (name.clone(), created(&live.metadata))));
        }
        Ok(there)
    }

    fn is_gone(&self, (namespace, name): &Owner) -> bool {
        !self.roots.contains(namespace, name)
    }

    fn records(&self) -> Api<KeyRecord> {
        Api::namespaced(self.client.clone(), &self.keys_namespace)
    }

    /// Owners that are gone and of whom something is left, as far as was heard; none before all was heard of.
    fn heard_of(&self) -> Option<BTreeSet<Owner>> {
        let all = [&self.record_names, &self.secret_names];
        let is_gone = |owner: &Owner| self.is_gone(owner);
        all.iter().all(|names| names.are_listed()).then(|| all.iter().flat_map(|names| names.owners(is_gone)).collect())
    }

    /// Looks at what these owners left, and at nothing else.
    async fn read(&self, owners: &BTreeSet<Owner>) -> Result<Sorted> {
        let (mut sorted, records) = (Sorted::default(), self.records());
        for (namespace, name) in owners {
            for id in self.record_names.of(namespace, name) {
                if let Some(record) = found(call(|| format!("reading KeyRecord {id}"), records.get(&id)).await)? {
                    let is_gone = self.is_gone(&owner_of_spec(&record));
                    sorted.record(record, is_gone);
                }
            }
        }
        self.decide_retained(&mut sorted).await;
        let read = self.read_secrets(owners, &mut sorted).await;
        sorted.rest = read.err().or(sorted.rest);
        (sorted.all_records, sorted.all_secrets) = (self.record_names.count(), self.secret_names.count());
        Ok(sorted)
    }

    async fn read_secrets(&self, owners: &BTreeSet<Owner>, sorted: &mut Sorted) -> Result<()> {
        let mut looked = BTreeSet::new();
        for (namespace, name) in owners {
            let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            for secret in self.secret_names.of(namespace, name) {
                // One that was given another owner is known as both's, and goes once.
                if !looked.insert((namespace, secret.clone())) {
                    continue;
                }
                let doing = || format!("reading Secret {secret}");
                let read = found(secret_call(doing, secrets.get_metadata(&secret)).await)?;
                if let Some(PartialObjectMeta { metadata, .. }) = read.filter(|it| is_made(&it.metadata)) {
                    let is_gone = self.is_gone(&owner_of(&metadata));
                    sorted.secret(metadata, is_gone);
                }
            }
        }
        Ok(())
    }

    /// Says of records that were to live on whether they do: in the namespace that they were made in, and not in another of
    /// that name.
    async fn decide_retained(&self, sorted: &mut Sorted) {
        let retained = std::mem::take(&mut sorted.retained);
        let namespaces = self.namespaces(&retained).await;
        for record in retained {
            let namespace = &record.spec.api_key.namespace;
            let goes = namespaces
                .as_ref()
                .is_ok_and(|there| there.get(namespace).is_none_or(|since| created(&record.metadata) < *since));
            sorted.decided(record, goes);
        }
        sorted.rest = namespaces.err();
    }

    /// Looks at everything.
    async fn list(&self) -> Result<Sorted> {
        let made = format!("{MANAGED_BY}={MANAGER},{OWNER_KIND}={OWNER}");
        let mut sorted = Sorted::default();
        // Tombstones stay for ever: they are neither listed nor counted.
        let living = ListParams::default().labels(&format!("{made},!{KEY_ENDED}"));
        pages::each(&self.records(), living, "KeyRecords", |record: KeyRecord| {
            let is_gone = self.is_gone(&owner_of_spec(&record));
            sorted.record(record, is_gone);
        })
        .await?;
        self.decide_retained(&mut sorted).await;
        let secrets: Api<PartialObjectMeta<Secret>> = Api::all(self.client.clone());
        let params = ListParams::default().labels(&made);
        let listed = pages::each(&secrets, params, "Secrets", |secret: PartialObjectMeta<Secret>| {
            let is_gone = self.is_gone(&owner_of(&secret.metadata));
            sorted.secret(secret.metadata, is_gone);
        })
        .await;
        sorted.rest = listed.err().or(sorted.rest);
        Ok(sorted)
    }
}

impl Orphanage for Orphans {
    type Owner = ApiKey;
    type Orphan = Orphan;
    const OWNER: &'static str = OWNER;

    fn owners(&self) -> &Roots<ApiKey> {
        &self.roots
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Records are the operator's alone; Secrets anybody may label, so that they are counted apart, but for those of a
    /// record that goes. Records end also where Secrets can't be read: no Secret goes before its record, and no record
    /// waits for it.
    async fn orphans(&self, look: Look) -> Result<Vec<Lost<Orphan>>> {
        let names = |(namespace, name): &Owner| {
            [&self.record_names, &self.secret_names].map(|names| names.of(namespace, name).len()).iter().sum::<usize>()
        };
        let is_little = |owners: &BTreeSet<Owner>| owners.iter().map(names).sum::<usize>() <= MOST_READ;
        let owners = self.heard_of().filter(|owners| look == Look::AtNews && is_little(owners));
        let sorted = match owners {
            Some(owners) => self.read(&owners).await?,
            None => self.list().await?,
        };
        let Sorted { ends, along, apart, all_records, all_secrets, rest, .. } = sorted;
        let records =
            Lost { kind: Self::OWNER, counted: ends, along, all: all_records, rest: rest.map_or(Ok(()), Err) };
        Ok(vec![records, Lost::alone("Secret", apart, all_secrets)])
    }

    fn metadata<'a>(&self, orphan: &'a Orphan) -> &'a ObjectMeta {
        match orphan {
            Orphan::Secret(metadata) => metadata,
            Orphan::Record(record) => &record.metadata,
        }
    }

    fn is_orphan(&self, orphan: &Orphan) -> bool {
        self.is_gone(&match orphan {
            Orphan::Secret(metadata) => owner_of(metadata),
            Orphan::Record(record) => owner_of_spec(record),
        })
    }

    async fn remove(&self, orphan: &Orphan) -> Result<()> {
        match orphan {
            Orphan::Secret(metadata) => delete_orphan(&self.client, metadata).await,
            Orphan::Record(record) => {
                let is_it = |live: &KeyRecord| live.spec.api_key == record.spec.api_key;
                let end = (RecordState::Destroyed, None);
                end_record(&self.records(), &record.name_any(), end, is_it, |_| {}).await.map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests;
