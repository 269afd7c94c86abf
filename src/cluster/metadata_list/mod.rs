//! Lists of metadata in protobuf, object by object as they arrive: a page is never held whole, so that it may be large
//! whatever its objects carry. Large pages are worth it: each costs the API server as much as it has objects left to
//! count.

mod message;
mod stream;

use std::{fmt::Debug, io};

use futures::{AsyncRead, TryStreamExt as _, future};
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

/// A page that has begun to arrive.
type Begun = stream::Page<Box<dyn AsyncRead + Send + Unpin>>;

/// Tells `each` of the metadata of every object of a list: identity, times, labels, annotations and owners.
///
/// # Errors
/// When a page can't be read whole; `each` has been told of what came before.
pub async fn each<K>(api: &Api<K>, params: ListParams, what: &str, mut each: impl FnMut(ObjectMeta)) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let doing = || format!("listing {what}");
    let (mut asked, mut ahead) = (Some(params), None);
    while let Some(params) = asked {
        let begun = match ahead.take() {
            Some(begun) => begun,
            None => call(doing, begin(api, &params)).await?,
        };
        let Some(page) = begun else {
            // Aggregated API servers need not speak it, and an error is easier read in JSON.
            let page = call(doing, in_json(api, &params, &mut each)).await?;
            asked = pages::after(params, page);
            continue;
        };
        // The API server looks for what follows while this is read: a page says first how to go on.
        let next = page.metadata().and_then(|page| pages::after(params.clone(), page.clone()));
        let looking = async {
            match &next {
                Some(next) => call(doing, begin(api, next)).await.map(Some),
                None => Ok(None),
            }
        };
        let telling = async { page.tell(&mut each).await.map_err(kube::Error::ReadEvents) };
        let (page, found) = future::join(call(doing, telling), looking).await;
        asked = pages::after(params, page?);
        ahead = found?;
    }
    Ok(())
}

/// `None` where the answer is no page in protobuf.
async fn begin<K: Resource + Clone>(api: &Api<K>, params: &ListParams) -> kube::Result<Option<Begun>> {
    let request = Request::new(api.resource_url()).list_metadata(&params.clone().limit(PAGE));
    let mut request = request.map_err(kube::Error::BuildRequest)?.map(Body::from);
    request.headers_mut().insert(header::ACCEPT, ACCEPTED);
    let answer = api.clone().into_client().send(request).await?;
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !answer.status().is_success() || !kind.is_some_and(|kind| kind.starts_with(PROTOBUF)) {
        return Ok(None);
    }
    let body = answer.into_body().into_data_stream().map_err(io::Error::other).into_async_read();
    stream::Page::open(Box::new(body) as _).await.map(Some).map_err(kube::Error::ReadEvents)
}

async fn in_json<K>(api: &Api<K>, params: &ListParams, each: &mut impl FnMut(ObjectMeta)) -> kube::Result<ListMeta>
where
    K: Clone + Debug + DeserializeOwned,
{
    let page = api.list_metadata(&params.clone().limit(client::PAGE)).await?;
    page.items.into_iter().for_each(|object| each(object.metadata));
    Ok(page.metadata)
}
