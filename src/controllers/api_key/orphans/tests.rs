use std::{convert::Infallible, sync::Arc};

use http::{Request, Response, StatusCode};
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
    let orphans = Orphans { client, keys_namespace, roots, record_names, secret_names, news: watch::channel(0).0 };
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

#[tokio::test]
async fn a_secret_that_was_given_another_owner_is_counted_once() {
    let (_root, roots) = crate::controllers::root::<ApiKey>();
    let (record_names, secret_names) = (OwnedNames::default(), OwnedNames::default());
    for owner in ["former", "gone"] {
        let secret: PartialObjectMeta<Secret> = serde_json::from_value(metadata("shop", "gone-key", owner)).unwrap();
        secret_names.note(&Apply(secret), owner_beside);
    }
    record_names.note(&InitDone, owner_of_record);
    secret_names.note::<Secret>(&InitDone, owner_beside);
    let (client, keys_namespace) = (of_gone(&Arc::default()), "rampart-keys".into());
    let orphans = Orphans { client, keys_namespace, roots, record_names, secret_names, news: watch::channel(0).0 };
    let lost = orphans.orphans(Look::AtNews).await.unwrap();
    assert_eq!(lost.iter().map(|it| (it.kind, it.counted.len())).collect::<Vec<_>>(), [("ApiKey", 0), ("Secret", 1)]);
}

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
    let (_root, roots) = crate::controllers::root::<ApiKey>();
    let keys_namespace = "rampart-keys".to_owned();
    let (record_names, secret_names) = (OwnedNames::default(), OwnedNames::default());
    let orphans = Orphans { client, keys_namespace, roots, record_names, secret_names, news: watch::channel(0).0 };
    let all = orphans.orphans(Look::AtAll).await.unwrap();
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
