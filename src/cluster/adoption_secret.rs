//! The key that proves which version Secrets are ours, kept in a Secret of the install namespace.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, api::PostParams};

use super::{
    Error, Result,
    error::{found, secret_call},
    key_store::opaque,
};
use crate::{
    api::labels::{MANAGED_BY, MANAGER},
    keys::adoption::AdoptionKey,
    runtime::random,
};

/// Secret of the install namespace that holds the MAC key.
pub const ADOPTION_SECRET: &str = "rampart-adoption";
const ADOPTION_ENTRY: &str = "key";

/// Reads the MAC key, or makes it on the first start; `None` where the Secret holds no usable one.
///
/// # Errors
/// When a call fails.
pub async fn adoption_key(client: &Client, namespace: &str) -> Result<Option<AdoptionKey>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let read =
        || async { found(secret_call(|| format!("reading Secret {ADOPTION_SECRET}"), api.get(ADOPTION_SECRET)).await) };
    let secret = if let Some(secret) = read().await? {
        secret
    } else {
        let bytes = random::bytes::<{ AdoptionKey::LENGTH }>()?;
        let labels = [(MANAGED_BY.to_owned(), MANAGER.to_owned())].into();
        let secret = opaque(ADOPTION_SECRET, labels, [(ADOPTION_ENTRY.to_owned(), bytes.to_vec())].into());
        let doing = || format!("creating Secret {ADOPTION_SECRET}");
        match secret_call(doing, api.create(&PostParams::default(), &secret)).await {
            Err(error) if error.code() == Some(409) => {
                read().await?.ok_or_else(|| Error::Unexpected(format!("Secret {ADOPTION_SECRET} comes and goes")))?
            }
            created => created?,
        }
    };
    let bytes = secret.data.and_then(|mut data| data.remove(ADOPTION_ENTRY)).map(|bytes| bytes.0).unwrap_or_default();
    Ok(AdoptionKey::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible};

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;

    #[tokio::test]
    async fn a_key_that_is_too_short_is_lost_and_none_is_made_instead() {
        for (length, usable) in [(0, false), (31, false), (32, true)] {
            let secret =
                opaque(ADOPTION_SECRET, BTreeMap::new(), [(ADOPTION_ENTRY.to_owned(), vec![1; length])].into());
            let answer = move |request: Request<Body>| {
                assert_eq!(request.method(), "GET", "nothing is written");
                let body = Body::from(serde_json::to_vec(&secret).unwrap());
                async move { Ok::<_, Infallible>(Response::new(body)) }
            };
            let client = Client::new(tower::service_fn(answer), "default");
            assert_eq!(adoption_key(&client, "n").await.unwrap().is_some(), usable, "{length}");
        }
    }
}
