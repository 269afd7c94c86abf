//! What is left of ApiKeys that are gone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, ResourceExt as _, api::ListParams, core::PartialObjectMeta};
use tokio::sync::watch;

use super::super::{
    Roots,
    pruning::{Lost, Orphanage, created},
};
use crate::{
    api::{
        ApiKey, KeyRecord, RecordState,
        labels::{KEY_ENDED, MANAGED_BY, MANAGER, OWNER_KIND, OWNER_NAME},
    },
    cluster::{
        Result,
        error::{call, found, secret_call},
        key_records::{end_record, is_retained},
        key_store::{OWNER, delete_orphan},
        pages,
        policy_index::PolicyIndex,
        record_names::RecordNames,
    },
};

/// Secrets and records whose ApiKey is gone.
pub(super) struct Orphans {
    pub(super) client: Client,
    pub(super) keys_namespace: String,
    pub(super) roots: Roots<ApiKey>,
    /// Changes its value whenever there may be some.
    pub(super) news: watch::Sender<u64>,
}

impl Orphans {
    /// Tells of ApiKeys that were deleted, and of namespaces that went with keys that were to stay, for as long as the
    /// future runs.
    pub(super) async fn tell(&self, index: &PolicyIndex, names: &RecordNames) {
        let (mut deletions, mut namespaces) = (self.roots.deletions(), index.label_changes());
        let mut before = index.known();
        loop {
            let changed = tokio::select! {
                changed = deletions.changed() => changed.map(|()| true),
                changed = namespaces.changed() => changed.map(|()| {
                    let now = index.known();
                    let mut gone = before.labels.keys().filter(|it| !now.labels.contains_key(*it));
                    let matters = gone.any(|it| names.know_namespace(it));
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

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Records are the operator's alone; Secrets anybody may label, so that they are counted apart, but for those of a
    /// record that goes. Records end also where Secrets can't be listed: no Secret goes before its record, and no record
    /// waits for it.
    async fn orphans(&self) -> Result<Vec<Lost<Orphan>>> {
        let made = format!("{MANAGED_BY}={MANAGER},{OWNER_KIND}={OWNER}");
        // By name, not by UID: a restore gives an ApiKey another UID, and its keys must live on.
        let lost =
            |namespace: &str, name: Option<&String>| name.is_none_or(|name| !self.roots.contains(namespace, name));
        let records: Api<KeyRecord> = Api::namespaced(self.client.clone(), &self.keys_namespace);
        let (mut ends, mut retained, mut all_records) = (vec![], vec![], 0);
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
            let goes = lost(&of.namespace, Some(&of.name));
            if goes && is_retained(&record) {
                retained.push(record);
                return;
            }
            let of_it = if goes { &mut ending } else { &mut staying };
            of_it.insert((of.namespace.clone(), of.name.clone()));
            ends.extend(goes.then(|| Orphan::Record(Box::new(record))));
        })
        .await?;
        let namespaces = self.namespaces(&retained).await;
        for record in retained {
            let of = &record.spec.api_key;
            // A key lives on in the namespace that it was made in: of who makes another of that name it is none.
            let goes = namespaces
                .as_ref()
                .is_ok_and(|there| there.get(&of.namespace).is_none_or(|since| created(&record.metadata) < *since));
            let of_it = if goes { &mut ending } else { &mut staying };
            of_it.insert((of.namespace.clone(), of.name.clone()));
            ends.extend(goes.then(|| Orphan::Record(Box::new(record))));
        }
        let mut records =
            Lost { kind: Self::OWNER, counted: ends, along: vec![], all: all_records, rest: namespaces.map(drop) };
        let secrets: Api<PartialObjectMeta<Secret>> = Api::all(self.client.clone());
        let params = ListParams::default().labels(&made);
        let secrets = match secret_call(|| "listing Secrets".into(), secrets.list_metadata(&params)).await {
            Ok(listed) => listed.items,
            Err(error) => {
                records.rest = Err(error);
                return Ok(vec![records]);
            }
        };
        let (all_secrets, mut apart) = (secrets.len(), vec![]);
        for secret in secrets {
            let namespace = secret.namespace().unwrap_or_default();
            let name = secret.labels().get(OWNER_NAME);
            let of = (namespace.clone(), name.cloned().unwrap_or_default());
            if lost(&namespace, name) && !staying.contains(&of) {
                let orphans = if ending.contains(&of) { &mut records.along } else { &mut apart };
                orphans.push(Orphan::Secret(Box::new(secret.metadata)));
            }
        }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    const MADE: &str = "2026-01-01T00:00:00Z";

    /// An API server with one record of an ApiKey that is gone, in a namespace of which it says this. It lists no Secrets.
    fn server(retained: bool, namespace: Option<Value>) -> Client {
        let mut labels = json!({});
        if retained {
            labels["rampart.dev/key-retained"] = json!("true");
        }
        let record = json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "KeyRecord",
            "metadata": {"name": "0a1b2c3d", "labels": labels, "creationTimestamp": MADE},
            "spec": {"apiKey": {"namespace": "shop", "name": "orders", "version": 1}, "owner": {"customerId": "shop"},
                     "expiresAt": "2027-01-01T00:00:00Z", "state": "Active"},
        });
        let answer = move |request: Request<Body>| {
            let body = match request.uri().path() {
                "/apis/rampart.dev/v1alpha1/namespaces/rampart-keys/keyrecords" => Some(json!({
                    "apiVersion": "rampart.dev/v1alpha1", "kind": "KeyRecordList", "metadata": {}, "items": [record],
                })),
                "/api/v1/namespaces/shop" => namespace.as_ref().map(|metadata| {
                    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})
                }),
                _ => None,
            };
            let status = if body.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
            let none = || {
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                                 "reason": "NotFound", "message": "none"})
            };
            let mut response = Response::new(Body::from(serde_json::to_vec(&body.unwrap_or_else(none)).unwrap()));
            *response.status_mut() = status;
            async move { Ok::<_, Infallible>(response) }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    /// How many records go, and whether all else was found.
    async fn found_by(client: Client) -> (usize, bool) {
        let (_root, roots) = super::super::super::root::<ApiKey>();
        let keys_namespace = "rampart-keys".to_owned();
        let orphans = Orphans { client, keys_namespace, roots, news: watch::channel(0).0 };
        let all = orphans.orphans().await.unwrap();
        (all[0].counted.len(), all.iter().all(|lost| lost.rest.is_ok()))
    }

    #[tokio::test]
    async fn a_key_ends_also_where_secrets_can_not_be_listed() {
        assert_eq!(found_by(server(false, None)).await, (1, false));
    }

    #[tokio::test]
    async fn a_key_that_was_to_stay_ends_with_its_namespace() {
        let there = |more: Value| {
            let mut metadata = json!({"name": "shop", "creationTimestamp": "2025-01-01T00:00:00Z"});
            metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Some(metadata)
        };
        for (namespace, goes) in [
            (there(json!({})), 0),
            (there(json!({"creationTimestamp": MADE})), 0),
            (None, 1),
            (there(json!({"deletionTimestamp": "2026-02-01T00:00:00Z"})), 1),
            (there(json!({"creationTimestamp": "2026-02-01T00:00:00Z"})), 1),
        ] {
            assert_eq!(found_by(server(true, namespace.clone())).await.0, goes, "{namespace:?}");
        }
    }
}
