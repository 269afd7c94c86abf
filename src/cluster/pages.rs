//! Lists, page by page.

use std::fmt::Debug;

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
    let mut params = if params.limit.is_some() { params } else { params.limit(PAGE) };
    loop {
        let page = call(|| format!("listing {what}"), api.list(&params)).await?;
        page.items.into_iter().for_each(&mut each);
        match page.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => params = params.continue_token(&more),
            None => return Ok(()),
        }
    }
}
