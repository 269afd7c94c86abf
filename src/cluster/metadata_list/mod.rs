//! Lists of metadata in protobuf, object by object as they arrive: a page is never held whole, so that it may be large
//! whatever its objects carry. Large pages are worth it: each costs the API server as much as it has objects left to
//! count.

mod message;
mod stream;

use std::{fmt::Debug, io};

use futures::TryStreamExt as _;
use http::{HeaderValue, header};
use http_body_util::BodyExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use kube::{Api, Resource, api::ListParams, client::Body, core::Request};
use serde::de::DeserializeOwned;

use super::{Result, client, error::call, pages};

/// Objects of one page.
const PAGE: u32 = 10_000;
/// As client-go's metadata client asks.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const ACCEPTED: HeaderValue =
    HeaderValue::from_static("application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");

/// Tells `each` of the metadata of every object of a list: identity, times, labels, annotations and owners.
///
/// # Errors
/// When a page can't be read whole; `each` has been told of what came before.
pub async fn each<K>(api: &Api<K>, params: ListParams, what: &str, mut each: impl FnMut(ObjectMeta)) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut next = Some(params);
    while let Some(params) = next {
        let page = match call(|| format!("listing {what}"), in_protobuf(api, &params, &mut each)).await? {
            Some(page) => page,
            // Aggregated API servers need not speak it, and an error is easier read in JSON.
            None => call(|| format!("listing {what}"), in_json(api, &params, &mut each)).await?,
        };
        next = pages::after(params, page);
    }
    Ok(())
}

/// `None` where the answer is no page in protobuf.
async fn in_protobuf<K: Resource + Clone>(
    api: &Api<K>,
    params: &ListParams,
    each: &mut impl FnMut(ObjectMeta),
) -> kube::Result<Option<ListMeta>> {
    let request = Request::new(api.resource_url()).list_metadata(&params.clone().limit(PAGE));
    let mut request = request.map_err(kube::Error::BuildRequest)?.map(Body::from);
    request.headers_mut().insert(header::ACCEPT, ACCEPTED);
    let answer = api.clone().into_client().send(request).await?;
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !answer.status().is_success() || !kind.is_some_and(|kind| kind.starts_with(PROTOBUF)) {
        return Ok(None);
    }
    let body = answer.into_body().into_data_stream().map_err(io::Error::other).into_async_read();
    stream::list(body, each).await.map(Some).map_err(kube::Error::ReadEvents)
}

async fn in_json<K>(api: &Api<K>, params: &ListParams, each: &mut impl FnMut(ObjectMeta)) -> kube::Result<ListMeta>
where
    K: Clone + Debug + DeserializeOwned,
{
    let page = api.list_metadata(&params.clone().limit(client::PAGE)).await?;
    page.items.into_iter().for_each(|object| each(object.metadata));
    Ok(page.metadata)
}
