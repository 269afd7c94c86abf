//! What is left of ApiKeys that are gone.

use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, ResourceExt as _, api::ListParams, core::PartialObjectMeta};

use super::super::{Roots, pruning::Orphanage};
use crate::{
    api::{
        ApiKey, KeyRecord, RecordState,
        labels::{MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME},
    },
    cluster::{
        Result,
        error::{call, secret_call},
        key_records::{end_record, is_retained},
        key_store::{OWNER, delete_orphan},
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
    const CRD: &'static str = "apikeys.rampart.dev";

    fn owners(&self) -> &Roots<ApiKey> {
        &self.roots
    }

    async fn orphans(&self) -> Result<(Vec<Orphan>, usize)> {
        let labelled = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER},{OWNER_KIND}={OWNER}"));
        let secrets: Api<PartialObjectMeta<Secret>> = Api::all(self.client.clone());
        let secrets = secret_call(|| "listing Secrets".into(), secrets.list_metadata(&labelled)).await?;
        let records: Api<KeyRecord> = Api::namespaced(self.client.clone(), &self.keys_namespace);
        let records = call(|| "listing KeyRecords".into(), records.list(&labelled)).await?;
        // By name, not by UID: a restore gives an ApiKey another UID, and its keys must live on.
        let lost =
            |namespace: &str, name: Option<&String>| name.is_none_or(|name| !self.roots.contains(namespace, name));
        let all = secrets.items.len() + records.items.len();
        let mut orphans = vec![];
        // They were to live on: the Secrets with the records, and the one of consumers with any of them.
        let mut retained = BTreeSet::new();
        for record in records {
            let of = &record.spec.api_key;
            if !record.spec.state.is_tombstone() && is_retained(&record) {
                retained.insert((of.namespace.clone(), of.name.clone()));
                continue;
            }
            if !record.spec.state.is_tombstone() && lost(&of.namespace, Some(&of.name)) {
                orphans.push(Orphan::Record(Box::new(record)));
            }
        }
        for secret in secrets.items {
            let namespace = secret.namespace().unwrap_or_default();
            let name = secret.labels().get(OWNER_NAME);
            let lives_on = name.is_some_and(|name| retained.contains(&(namespace.clone(), name.clone())));
            if !lives_on && lost(&namespace, name) {
                orphans.push(Orphan::Secret(Box::new(secret.metadata)));
            }
        }
        Ok((orphans, all))
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
                end_record(&records, &record.name_any(), (RecordState::Destroyed, None), |_| {}).await.map(drop)
            }
        }
    }
}
