use std::fmt::Debug;

use futures::StreamExt as _;
use http::Request;
use k8s_openapi::api::{
    core::v1::{Pod, Secret},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
    client::Body as KubeBody,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::watcher,
};
use proptest::prelude::*;
use rstest::rstest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower::util::MapResponse;

use super::*;
use crate::api::SecurityPolicy;

/// As Go writes the last second that RFC 3339 knows, and what became of it by way of another time zone.
const FAR: [&str; 2] = ["9999-12-31T23:59:59Z", "10000-01-01T11:59:59Z"];

fn passed(text: &[u8], size: usize) -> Vec<u8> {
    let mut state = Text::default();
    text.chunks(size).flat_map(|chunk| state.pass(chunk)).collect()
}

#[test]
fn a_time_that_can_t_be_read_is_not_told_whatever_the_pieces() {
    let fields = |time: Value| {
        json!([{"manager": "a \"time\": [", "operation": "Update", "time": time,
                "fieldsV1": {"f:spec": {"k:{\"time\":\"x\"}": {".": {}}}}}, {"manager": "b"}])
    };
    let elsewhere = json!({"time": FAR[0], "managedFields": {"time": FAR[0]}, "text": "\\\"managedFields\":[\"time\""});
    let of = |far: Value, read: Value| {
        json!({"items": [
            {"metadata": {"managedFields": fields(far), "name": "a", "annotations": elsewhere}},
            {"metadata": {"name": "b", "managedFields": fields(read)}, "time": FAR[0], "names": ["managedFields"]},
        ]})
    };
    let read = json!("2026-01-01T00:00:00Z");
    for far in FAR {
        let text = format!("{}\n{}\n", of(far.into(), read.clone()), of(read.clone(), far.into()));
        let wanted = format!("{}\n{}\n", of(Value::Null, read.clone()), of(read.clone(), Value::Null));
        for size in [1, 2, 3, 7, 64, 10_000] {
            assert_eq!(String::from_utf8(passed(text.as_bytes(), size)).unwrap(), wanted, "{size}");
        }
    }
}

/// What shall be passed on.
fn told(value: &mut Value, in_managers: bool, name: &str) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| told(value, in_managers, name)),
        Value::Array(items) => {
            let in_managers = in_managers || name.as_bytes() == MANAGERS;
            for item in items {
                told(item, in_managers, "");
            }
        }
        Value::String(text) if in_managers && name.as_bytes() == TIME && text.parse::<Timestamp>().is_err() => {
            *value = Value::Null;
        }
        _ => {}
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a\"\\\\{}:,\\[\\]\n\u{e9}]{0,6}",
        Just(FAR[0].to_owned()),
        Just("2026-01-01T00:00:00Z".to_owned())
    ];
    let leaf = prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), text.prop_map(Value::String)];
    leaf.prop_recursive(6, 60, 5, |inner| {
        let name = prop_oneof![Just("managedFields"), Just("time"), Just("managedFieldsToo"), Just("tim\"e")];
        let fields = prop::collection::vec((name, inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::Array),
            fields.prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_else_is_changed(value in any_json(), size in 1_usize..20, pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
        let mut wanted = value;
        told(&mut wanted, false, "");
        prop_assert_eq!(serde_json::from_slice::<Value>(&passed(&text, size)).unwrap(), wanted);
    }
}

/// A client of an API server whose objects are these, and change once.
fn server(objects: Vec<Value>) -> Client {
    let answer = move |request: Request<KubeBody>| {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let events = || objects.iter().map(|it| format!("{}\n", json!({"type": "MODIFIED", "object": it})));
        let text: String = if is_watch {
            events().collect()
        } else {
            let list =
                json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": objects});
            list.to_string()
        };
        let answer =
            Response::builder().header(CONTENT_TYPE, "application/json").body(KubeBody::from(text.into_bytes()));
        async move { answer }
    };
    Client::new(MapResponse::new(tower::service_fn(answer), readable::<KubeBody>), "default")
}

/// That the good object beside it is heard of, by a list and by a watch.
async fn is_heard<K>(api: Api<K>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let listed = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["far", "good"]);
    let events: Vec<_> = watcher(api, watcher::Config::default()).take(6).collect().await;
    let names = events.into_iter().filter_map(|event| match event.unwrap() {
        watcher::Event::InitApply(object) => Some(format!("listed {}", object.name_any())),
        watcher::Event::Apply(object) => Some(object.name_any()),
        _ => None,
    });
    assert_eq!(names.collect::<Vec<_>>(), ["listed far", "listed good", "far", "good"]);
}

#[rstest]
#[case(FAR[0])]
#[case(FAR[1])]
#[tokio::test]
async fn one_object_hides_no_other(#[case] far: &str) {
    let object = |name: &str, time: &str| {
        let managers = json!([{"manager": "m", "operation": "Update", "apiVersion": "v1", "time": time}]);
        json!({"spec": {}, "metadata":
            {"name": name, "namespace": "n", "resourceVersion": "2", "managedFields": managers}})
    };
    let client = server(vec![object("far", far), object("good", "2026-01-01T00:00:00Z")]);
    is_heard(Api::<PartialObjectMeta<Secret>>::all(client.clone())).await;
    is_heard(Api::<NetworkPolicy>::all(client.clone())).await;
    is_heard(Api::<DeserializeGuard<SecurityPolicy>>::all(client.clone())).await;
    is_heard(Api::<DynamicObject>::all_with(client, &ApiResource::erase::<Pod>(&()))).await;
}
