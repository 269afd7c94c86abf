//! Asking a verifier whether it admits a key.

use std::time::Duration;

use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

use crate::keys::format::ApiKeyText;

const DEADLINE: Duration = Duration::from_secs(10);

/// A call that a key may make.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) audience: &'a str,
    pub(super) permission: Option<&'a str>,
}

/// Asks once; what is wrong never says what the key is.
pub(super) fn admitted(verifier: &Uri, key: &ApiKeyText, call: Call<'_>) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let asked = async { tokio::time::timeout(DEADLINE, ask(verifier, key, call)).await };
    match runtime.block_on(asked) {
        Ok(answered) => answered,
        Err(_) => Err(format!("the verifier at {verifier} did not answer within {DEADLINE:?}")),
    }
}

async fn ask(verifier: &Uri, key: &ApiKeyText, call: Call<'_>) -> Result<(), String> {
    let uri = format!("{}/check/", verifier.to_string().trim_end_matches('/'));
    let mut credential = HeaderValue::from_str(key.expose()).map_err(|_| "the key can't be a header".to_owned())?;
    credential.set_sensitive(true);
    let request = Request::builder().method(call.method).uri(&uri);
    let mut request = request.header("x-api-key", credential).header("x-rampart-audience", call.audience);
    if let Some(permission) = call.permission {
        request = request.header("x-rampart-permission", permission);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.map_err(|error| format!("the verifier at {verifier}: {error}"))?;
    let id = answer.headers().get("x-apikey-id").and_then(|id| id.to_str().ok());
    match answer.status().as_u16() {
        200 if id == Some(key.id()) => Ok(()),
        200 => Err("the verifier takes it for another key".into()),
        // Its owner's rates are used up: that the key is known is proven.
        429 => Ok(()),
        status => Err(format!("the verifier at {verifier} answers {status}")),
    }
}
