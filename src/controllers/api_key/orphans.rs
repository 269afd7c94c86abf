//! What is left of ApiKeys that are gone.

use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, ResourceExt as _, api::ListParams, core::PartialObjectMeta};

use super::super::{
    Roots,
    pruning::{Lost, Orphanage},
};
use crate::{
    api::{
        ApiKey, KeyRecord, RecordState,
        labels::{KEY_ENDED, MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME},
    },
    cluster::{
        Result,
        error::secret_call,
        key_records::{end_record, is_retained},
        key_store::{OWNER, delete_orphan},
        pages,
    },
};

/// Secrets and records whose ApiKey is gone.
pub(super) struct Orphans {
    pub(super) client: Client,
    pub(super) keys_namespace: String,
    pub(super) roots: Roots<ApiKey>,
}

/// One of them.
pub(super) enum Orphan {
    Secret(Box<ObjectMeta>),
    Record(Box<KeyRecord>),
}

impl Orphanage for Orphans {
    type Owner = ApiKey;
    type Orphan = Orphan;
    const OWNER: &'static str = OWNER;

    fn owners(&self) -> &Roots<ApiKey> {
        &self.roots
    }

    /// Records are the operator's alone; Secrets anybody may label, so that they are counted apart, but for those of a
    /// record that goes.
    async fn orphans(&self) -> Result<Vec<Lost<Orphan>>> {
        let made = format!("{MANAGED_BY}={MANAGER},{OWNER_KIND}={OWNER}");
        // By name, not by UID: a restore gives an ApiKey another UID, and its keys must live on.
        let lost =
            |namespace: &str, name: Option<&String>| name.is_none_or(|name| !self.roots.contains(namespace, name));
        let records: Api<KeyRecord> = Api::namespaced(self.client.clone(), &self.keys_namespace);
        let (mut ends, mut all_records) = (vec![], 0);
        // Secrets stay with a record that does: it was to live on, or its ApiKey was there when records were listed. None
        // goes before the record has ended.
        let (mut staying, mut ending) = (BTreeSet::new(), BTreeSet::new());
        // Tombstones stay for ever: they are neither listed nor counted.
        let living = ListParams::default().labels(&format!("{made},!{KEY_ENDED}"));
        pages::each(&records, living, "KeyRecords", |record: KeyRecord| {
            let of = &record.spec.api_key;
            if record.spec.state.is_tombstone() {
                return;
            }
            all_records += 1;
            let goes = !is_retained(&record) && lost(&of.namespace, Some(&of.name));
            let of_it = if goes { &mut ending } else { &mut staying };
            of_it.insert((of.namespace.clone(), of.name.clone()));
            ends.extend(goes.then(|| Orphan::Record(Box::new(record))));
        })
        .await?;
        let secrets: Api<PartialObjectMeta<Secret>> = Api::all(self.client.clone());
        let params = ListParams::default().labels(&made);
        let secrets = secret_call(|| "listing Secrets".into(), secrets.list_metadata(&params)).await?.items;
        let (all_secrets, mut along, mut apart) = (secrets.len(), vec![], vec![]);
        for secret in secrets {
            let namespace = secret.namespace().unwrap_or_default();
            let name = secret.labels().get(OWNER_NAME);
            let of = (namespace.clone(), name.cloned().unwrap_or_default());
            if lost(&namespace, name) && !staying.contains(&of) {
                let orphans = if ending.contains(&of) { &mut along } else { &mut apart };
                orphans.push(Orphan::Secret(Box::new(secret.metadata)));
            }
        }
        let records = Lost { kind: Self::OWNER, counted: ends, along, all: all_records };
        Ok(vec![records, Lost::alone("Secret", apart, all_secrets)])
    }

    fn metadata<'a>(&self, orphan: &'a Orphan) -> &'a ObjectMeta {
        match orphan {
            Orphan::Secret(metadata) => metadata,
            Orphan::Record(record) => &record.metadata,
        }
    }

    fn is_orphan(&self, orphan: &Orphan) -> bool {
        let (namespace, name) = match orphan {
            Orphan::Secret(metadata) => {
                let name = metadata.labels.as_ref().and_then(|labels| labels.get(OWNER_NAME));
                (metadata.namespace.clone().unwrap_or_default(), name.cloned().unwrap_or_default())
            }
            Orphan::Record(record) => (record.spec.api_key.namespace.clone(), record.spec.api_key.name.clone()),
        };
        !self.roots.contains(&namespace, &name)
    }

    async fn remove(&self, orphan: &Orphan) -> Result<()> {
        match orphan {
            Orphan::Secret(metadata) => delete_orphan(&self.client, metadata).await,
            Orphan::Record(record) => {
                let records: Api<KeyRecord> = Api::namespaced(self.client.clone(), &self.keys_namespace);
                let is_it = |live: &KeyRecord| live.spec.api_key == record.spec.api_key;
                end_record(&records, &record.name_any(), (RecordState::Destroyed, None), is_it, |_| {}).await.map(drop)
            }
        }
    }
}
