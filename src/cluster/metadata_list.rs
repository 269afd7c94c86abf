//! Lists of metadata, object by object as they arrive: a page is never held whole, so that it may be large whatever
//! its objects carry. Large pages are worth it: each costs the API server as much as it has objects left to count.

use std::{collections::BTreeMap, fmt, io, result::Result as StdResult};

use futures::AsyncReadExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta, OwnerReference, Time};
use kube::{
    api::{DynamicObject, ListParams},
    core::{PartialObjectMeta, Request},
};
use serde::{
    Deserialize,
    de::{
        self, DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
    },
};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::{Result, error::call, pages};

/// Objects of one page.
const PAGE: u32 = 10_000;
/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// Chunks that may wait to be parsed.
const CHUNKS: usize = 4;
/// Objects that may wait to be told of.
const OBJECTS: usize = 256;

/// An object of a list.
#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

/// Metadata without what nobody asks for: fields and their managers are most of it, and dear to read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<Object> for ObjectMeta {
    fn from(Object { metadata }: Object) -> Self {
        Self {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            labels: metadata.labels,
            annotations: metadata.annotations,
            owner_references: metadata.owner_references,
            ..Self::default()
        }
    }
}

/// Metadata as the API server gives it for any object.
type Api = kube::Api<PartialObjectMeta<DynamicObject>>;

/// Tells `each` of the metadata of every object of a list: identity, times, labels, annotations and owners.
///
/// # Errors
/// When a page can't be read whole; `each` has been told of what came before.
pub async fn each(api: &Api, what: &str, mut each: impl FnMut(ObjectMeta)) -> Result<()> {
    let mut next = Some(ListParams::default().limit(PAGE));
    while let Some(params) = next {
        let page = call(|| format!("listing {what}"), page(api, &params, &mut each)).await?;
        next = pages::after(params, page);
    }
    Ok(())
}

async fn page(api: &Api, params: &ListParams, each: &mut impl FnMut(ObjectMeta)) -> kube::Result<ListMeta> {
    let request = Request::new(api.resource_url()).list_metadata(params).map_err(kube::Error::BuildRequest)?;
    let mut body = Box::pin(api.clone().into_client().request_stream(request).await?);
    let (bytes, arrived) = channel(CHUNKS);
    let (found, mut objects) = channel::<Object>(OBJECTS);
    // It ends with this future: what it reads from and writes to is closed then.
    let parsing =
        tokio::task::spawn_blocking(move || parse(Arrived { chunks: arrived, now: io::Cursor::default() }, &found));
    let reading = async move {
        loop {
            let mut chunk = vec![0; CHUNK];
            let length = body.read(&mut chunk).await?;
            chunk.truncate(length);
            // Whoever parses has seen enough when nobody takes it.
            if length == 0 || bytes.send(chunk).await.is_err() {
                return Ok(());
            }
        }
    };
    let telling = async {
        while let Some(object) = objects.recv().await {
            each(object.into());
        }
    };
    let (read, (), parsed): (io::Result<()>, _, _) = tokio::join!(reading, telling, parsing);
    read.map_err(kube::Error::ReadEvents)?;
    let parsed = parsed.map_err(|error| kube::Error::ReadEvents(io::Error::other(error)))?;
    parsed.map_err(kube::Error::SerdeError)
}

/// What has arrived of a body.
struct Arrived {
    chunks: Receiver<Vec<u8>>,
    now: io::Cursor<Vec<u8>>,
}

impl io::Read for Arrived {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.now.read(buffer)?;
        if length > 0 || buffer.is_empty() {
            return Ok(length);
        }
        // Nothing more is an end, and the JSON says whether it came early.
        self.now = io::Cursor::new(self.chunks.blocking_recv().unwrap_or_default());
        self.now.read(buffer)
    }
}

/// Tells of each object of a list, and returns what the list says of itself.
fn parse<T: DeserializeOwned>(list: impl io::Read, found: &Sender<T>) -> serde_json::Result<ListMeta> {
    let mut json = serde_json::Deserializer::from_reader(io::BufReader::new(list));
    let metadata = (&mut json).deserialize_map(List(found))?;
    json.end().map(|()| metadata)
}

struct List<'a, T>(&'a Sender<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for List<'_, T> {
    type Value = ListMeta;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of the API server")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> StdResult<ListMeta, M::Error> {
        let (mut metadata, mut items) = (None, None);
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "metadata" => metadata = Some(map.next_value()?),
                "items" => items = Some(map.next_value_seed(Items(self.0))?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        items.ok_or_else(|| M::Error::missing_field("items"))?;
        metadata.ok_or_else(|| M::Error::missing_field("metadata"))
    }
}

struct Items<'a, T>(&'a Sender<T>);

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Items<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> StdResult<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Items<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the objects of a list")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> StdResult<(), S::Error> {
        while let Some(object) = items.next_element()? {
            self.0.blocking_send(object).map_err(|_| S::Error::custom("nobody listens any more"))?;
        }
        Ok(())
    }

    // An empty list of Go's may be null.
    fn visit_unit<E: de::Error>(self) -> StdResult<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"{"kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "7", "continue": "more"},
        "items": [{"metadata": {"name": "a", "uid": "1"}}, {"metadata": {"name": "b\u00e9", "uid": "2"}}]}"#;

    fn names(text: &[u8], size: usize) -> (serde_json::Result<ListMeta>, Vec<String>) {
        let (bytes, chunks) = channel(1000);
        let (found, mut objects) = channel::<Object>(10);
        text.chunks(size).for_each(|chunk| bytes.try_send(chunk.to_vec()).unwrap());
        drop(bytes);
        let list = parse(Arrived { chunks, now: io::Cursor::default() }, &found);
        drop(found);
        let names = std::iter::from_fn(|| objects.try_recv().ok()).filter_map(|it: Object| it.metadata.name).collect();
        (list, names)
    }

    #[test]
    fn it_is_read_in_pieces_of_any_size() {
        for size in [1, 2, 3, 7, 1000] {
            let (list, names) = names(PAGE.as_bytes(), size);
            assert_eq!(list.unwrap().continue_.as_deref(), Some("more"));
            assert_eq!(names, ["a", "bé"]);
        }
    }

    #[test]
    fn what_ends_early_is_no_list() {
        for end in 0..PAGE.len() {
            assert!(names(&PAGE.as_bytes()[..end], 5).0.is_err(), "{end}");
        }
        assert!(names(format!("{PAGE}{{").as_bytes(), 5).0.is_err());
        assert!(names(br#"{"metadata": {}}"#, 5).0.is_err());
        assert!(names(br#"{"items": []}"#, 5).0.is_err());
        assert!(names(br#"{"metadata": {}, "items": null}"#, 5).0.is_ok());
    }
}
