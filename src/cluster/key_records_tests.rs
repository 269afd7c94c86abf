use std::convert::Infallible;

use http::{Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::json;

use super::*;
use crate::{
    cluster::{kept_secrets::KeptSecrets, own_writes::OwnWrites, owned_names::OwnedNames, verifiers::Verifiers},
    keys::{Caps, Observed, Spec, adoption::AdoptionKey},
};

const ID: &str = "0a1b2c3d";

/// An API server where every KeyRecord is this one, and that takes no write.
fn server(namespace: &str, name: &str, state: &str) -> Client {
    let record = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "KeyRecord",
        "metadata": {"name": ID, "namespace": "rampart-keys", "resourceVersion": "7"},
        "spec": {"apiKey": {"namespace": namespace, "name": name, "version": 1}, "owner": {"customerId": namespace},
                 "expiresAt": "2027-01-01T00:00:00Z", "state": state},
    });
    let answer = move |request: Request<Body>| {
        let mut response = Response::new(Body::from(serde_json::to_vec(&record).unwrap()));
        if request.method() != "GET" {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        }
        async move { Ok::<_, Infallible>(response) }
    };
    Client::new(tower::service_fn(answer), "default")
}

/// A key `shop/orders`, made here or imported.
fn spec(imported: bool) -> Spec {
    let fields = if imported {
        json!({"source": {"imported": {"secretRef": {"name": "mine", "key": "token"}}}})
    } else {
        json!({"role": "Viewer", "prefix": "ab"})
    };
    let mut spec =
        json!({"owner": {"customerId": "shop"}, "audiences": ["a"], "ttl": "8760h", "secret": {"name": "s"}});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let key = json!({"metadata": {"name": "orders", "namespace": "shop"}, "spec": spec});
    Spec::parse(&serde_json::from_value(key).unwrap(), &Caps::default()).unwrap()
}

fn status(id: &str) -> ApiKeyStatus {
    let time = "2026-01-01T00:00:00Z";
    let version = json!({"n": 1, "id": id, "state": "Current", "createdAt": time, "expiresAt": time});
    serde_json::from_value(json!({"currentVersion": 1, "versions": [version]})).unwrap()
}

/// What a key finds of an id that its status names, and whether it could end it.
async fn met(client: &Client, imported: bool, id: &str) -> (Observed, Result<()>) {
    let (spec, adoption) = (spec(imported), AdoptionKey::new(vec![1; 32]).unwrap());
    let (record_names, own, kept) = (OwnedNames::default(), OwnWrites::default(), KeptSecrets::default());
    let verifiers = Verifiers::follow(client, "rampart-keys").0;
    let store = KeyStore {
        client,
        keys_namespace: "rampart-keys",
        adoption: &adoption,
        verifiers: &verifiers,
        record_names: &record_names,
        own: &own,
        kept: &kept,
        spec: &spec,
    };
    let seen = store.observe_records(status(id)).await.unwrap();
    let ended = store.end_record((id, 1), RecordState::Revoked, None, jiff::Timestamp::UNIX_EPOCH).await;
    (seen, ended)
}

#[tokio::test]
async fn a_status_that_names_the_key_of_another_does_not_end_it() {
    for (namespace, name) in [("other", "orders"), ("shop", "stock")] {
        for imported in [false, true] {
            let (seen, ended) = met(&server(namespace, name, "Active"), imported, ID).await;
            assert!(seen.records.is_empty() && seen.status == ApiKeyStatus::default(), "{:?}", seen.status);
            assert!(matches!(ended, Err(Error::Foreign { .. })), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn whose_a_tombstone_is_says_its_name_and_of_a_token_its_namespace() {
    for (namespace, name, imported, ours) in [
        ("shop", "orders", false, true),
        ("shop", "stock", false, false),
        ("shop", "stock", true, true),
        ("other", "orders", true, false),
    ] {
        let (seen, ended) = met(&server(namespace, name, "Revoked"), imported, ID).await;
        let told = [seen.records.contains_key(ID), seen.status == status(ID), ended.is_ok()];
        assert_eq!(told, [ours; 3], "{namespace}/{name}");
    }
}

#[tokio::test]
async fn what_is_no_id_is_no_version() {
    for id in ["", "0A1B2C3D", "0a1b2c3d4", "../../x"] {
        let client = server("shop", "orders", "Active");
        let seen = met(&client, false, id).await.0;
        assert!(seen.status.versions.is_empty() && seen.records.is_empty(), "{id}");
    }
}
