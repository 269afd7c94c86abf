//! Lists, page by page.

use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::{Api, api::ListParams};
use serde::de::DeserializeOwned;

use super::{Result, client::PAGE, error::call};

/// Tells `each` of every object of a list; of metadata alone, where `K` is that.
///
/// # Errors
/// When a page can't be read; `each` has been told of those before it.
pub async fn each<K>(api: &Api<K>, params: ListParams, what: &str, mut each: impl FnMut(K)) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    // Pages of another size are for who knows what is in them.
    let mut next = Some(if params.limit.is_some() { params } else { params.limit(PAGE) });
    while let Some(params) = next {
        let page = call(|| format!("listing {what}"), api.list(&params)).await?;
        page.items.into_iter().for_each(&mut each);
        next = after(params, page.metadata);
    }
    Ok(())
}

/// What to ask for after a page, by what it says of itself; `None` where it was the last.
pub(super) fn after(params: ListParams, page: ListMeta) -> Option<ListParams> {
    page.continue_.filter(|more| !more.is_empty()).map(|more| params.continue_token(&more))
}
