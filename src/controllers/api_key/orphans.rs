//! What is left of ApiKeys that are gone.

use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, ResourceExt as _, api::ListParams, core::PartialObjectMeta};

use super::super::{
    Roots,
    pruning::{Look, Lost, Orphanage},
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
        owned_names::{OwnedNames, Owner},
        pages,
    },
};

/// Secrets and records whose ApiKey is gone.
pub(super) struct Orphans {
    pub(super) client: Client,
    pub(super) keys_namespace: String,
    pub(super) roots: Roots<ApiKey>,
    pub(super) record_names: OwnedNames,
    pub(super) secret_names: OwnedNames,
}

/// What more owners left is listed: that takes less than to read each.
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
}

impl Sorted {
    fn record(&mut self, record: KeyRecord, is_gone: bool) {
        if record.spec.state.is_tombstone() {
            return;
        }
        self.all_records += 1;
        let goes = is_gone && !is_retained(&record);
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
        for (namespace, name) in owners {
            let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            for secret in self.secret_names.of(namespace, name) {
                let doing = || format!("reading Secret {secret}");
                let read = found(secret_call(doing, secrets.get_metadata(&secret)).await)?;
                if let Some(PartialObjectMeta { metadata, .. }) = read.filter(|it| is_made(&it.metadata)) {
                    let is_gone = self.is_gone(&owner_of(&metadata));
                    sorted.secret(metadata, is_gone);
                }
            }
        }
        (sorted.all_records, sorted.all_secrets) = (self.record_names.count(), self.secret_names.count());
        Ok(sorted)
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
        let secrets: Api<PartialObjectMeta<Secret>> = Api::all(self.client.clone());
        let params = ListParams::default().labels(&made);
        pages::each(&secrets, params, "Secrets", |secret: PartialObjectMeta<Secret>| {
            let is_gone = self.is_gone(&owner_of(&secret.metadata));
            sorted.secret(secret.metadata, is_gone);
        })
        .await?;
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

    /// Records are the operator's alone; Secrets anybody may label, so that they are counted apart, but for those of a
    /// record that goes.
    async fn orphans(&self, look: Look) -> Result<Vec<Lost<Orphan>>> {
        let owners = self.heard_of().filter(|owners| look == Look::AtNews && owners.len() <= MOST_READ);
        let sorted = match owners {
            Some(owners) => self.read(&owners).await?,
            None => self.list().await?,
        };
        let Sorted { ends, along, apart, all_records, all_secrets, .. } = sorted;
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
        self.is_gone(&match orphan {
            Orphan::Secret(metadata) => owner_of(metadata),
            Orphan::Record(record) => owner_of_spec(record),
        })
    }

    async fn remove(&self, orphan: &Orphan) -> Result<()> {
        match orphan {
            Orphan::Secret(metadata) => delete_orphan(&self.client, metadata).await,
            Orphan::Record(record) => {
                end_record(&self.records(), &record.name_any(), (RecordState::Destroyed, None), |_| {}).await.map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use http::{Request, Response};
    use kube::{
        client::Body,
        core::DeserializeGuard,
        runtime::watcher::Event::{Apply, InitDone},
    };
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::owned_names::{owner_beside, owner_of_record};

    fn labels(owner: &str) -> Value {
        json!({MANAGED_BY: MANAGER, OWNER_KIND: OWNER, OWNER_NAME: owner, "rampart.dev/owner-namespace": "shop"})
    }

    fn metadata(namespace: &str, name: &str, owner: &str) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name, "labels": labels(owner)}})
    }

    /// An API server whose every record and Secret is of the ApiKey `gone`, and which tells what it was asked for.
    fn of_gone(asked: &Arc<Mutex<BTreeSet<String>>>) -> Client {
        let asked = asked.clone();
        let answer = move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            let is_record = path.contains("keyrecords");
            asked.lock().insert(path);
            let mut object = metadata(if is_record { "rampart-keys" } else { "shop" }, &name, "gone");
            if is_record {
                object["apiVersion"] = json!("rampart.dev/v1alpha1");
                object["kind"] = json!("KeyRecord");
                object["spec"] = json!({"apiKey": {"namespace": "shop", "name": "gone", "version": 1},
                    "owner": {"customerId": "shop"}, "state": "Active", "expiresAt": "2100-01-01T00:00:00Z"});
            }
            async move { Ok::<_, Infallible>(Response::new(Body::from(object.to_string().into_bytes()))) }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn who_is_deleted_has_only_what_was_made_for_it_looked_at() {
        let (mut root, roots) = crate::controllers::root::<ApiKey>();
        let there: DeserializeGuard<ApiKey> = serde_json::from_value(metadata("shop", "orders", "none")).unwrap();
        root.writer.apply_watcher_event(&Apply(there));
        let (record_names, secret_names) = (OwnedNames::default(), OwnedNames::default());
        for (id, owner) in [("a", "orders"), ("b", "gone")] {
            let record = serde_json::from_value(metadata("rampart-keys", id, owner)).unwrap();
            record_names.note(&Apply(record), owner_of_record);
        }
        for (name, owner) in [("orders-v1", "orders"), ("gone-v1", "gone"), ("gone-key", "gone")] {
            let secret: PartialObjectMeta<Secret> = serde_json::from_value(metadata("shop", name, owner)).unwrap();
            secret_names.note(&Apply(secret), owner_beside);
        }
        record_names.note(&InitDone, owner_of_record);
        secret_names.note::<Secret>(&InitDone, owner_beside);
        let asked = Arc::default();
        let (client, keys_namespace) = (of_gone(&asked), "rampart-keys".into());
        let orphans = Orphans { client, keys_namespace, roots, record_names, secret_names };
        let lost = orphans.orphans(Look::AtNews).await.unwrap();
        let told: Vec<_> = lost.iter().map(|it| (it.kind, it.counted.len(), it.along.len(), it.all)).collect();
        assert_eq!(told, [("ApiKey", 1, 2, 2), ("Secret", 0, 0, 3)]);
        let wanted = [
            "/api/v1/namespaces/shop/secrets/gone-key",
            "/api/v1/namespaces/shop/secrets/gone-v1",
            "/apis/rampart.dev/v1alpha1/namespaces/rampart-keys/keyrecords/b",
        ];
        assert_eq!(*asked.lock(), BTreeSet::from(wanted.map(str::to_owned)));
    }
}
