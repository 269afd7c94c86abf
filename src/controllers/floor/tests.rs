use std::{convert::Infallible, sync::Arc};

use http::{Request, Response};
use kube::{api::ObjectMeta, client::Body};
use serde_json::json;

use super::*;
use crate::controllers::network::Owning;

/// An API server that lets everything be deleted but what is called `a`, and notes what it is asked.
fn stubborn(asked: &Arc<Mutex<Vec<String>>>) -> Client {
    let asked = Arc::clone(asked);
    let answer = move |request: Request<Body>| {
        let path = request.uri().path();
        asked.lock().push(format!("{} {}", request.method(), path.rsplit('/').next().unwrap_or_default()));
        let (code, json): (u16, _) = if path.ends_with("/a") {
            (403, json!({"status": "Failure", "message": "no", "reason": "Forbidden", "code": 403}))
        } else {
            (200, json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success"}))
        };
        let answer = Response::builder().status(code).body(Body::from(json.to_string().into_bytes()));
        std::future::ready(Ok::<_, Infallible>(answer.unwrap()))
    };
    Client::new(tower::service_fn(answer), "default")
}

#[tokio::test]
async fn one_that_can_not_be_deleted_keeps_no_other_and_is_tried_later() {
    let asked = Arc::default();
    let floors = Floors {
        context: Context::of_client(stubborn(&asked)),
        index: PolicyIndex::default(),
        pauses: watch::channel(None).1,
        install_namespace: "rampart-system".into(),
        in_force: watch::channel(InForce::default()).0,
        ignored: Mutex::default(),
        stuck: Mutex::default(),
        askers: Mutex::default(),
        room: Room::of(1),
    };
    let policy = |name: &str| {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        (name.to_owned(), ValidatingAdmissionPolicy { metadata, ..ValidatingAdmissionPolicy::default() })
    };
    let live = Live { policies: ["a", "b"].map(policy).into(), bindings: BTreeMap::new() };
    let (none, began) = (BTreeSet::new(), Instant::now());
    let later =
        floors.take_back((&live, &Policies::default()), (&[], "Deny"), (&none, &none, &none), true).await.unwrap();
    assert_eq!(*asked.lock(), ["DELETE a", "DELETE b"]);
    assert!(later.is_some_and(|at| at >= began + IN_FORCE_AFTER));
    assert_eq!(floors.stuck.lock().names().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn what_the_prune_brake_counts_of_a_kind_nobody_else_counts() {
    let kinds = [KIND, CLUSTER_KIND, <SecurityPolicy as Owning>::KIND, <ClusterSecurityPolicy as Owning>::KIND];
    assert_eq!(BTreeSet::from(kinds).len(), kinds.len());
}
