//! A webhook that takes a review whole and admits it unseen: what any webhook of this stack costs at the
//! least. TLS is that of the product.

use std::{convert::Infallible, fs, path::Path, sync::Arc};

use anyhow::Result;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use rampart::serve::tls::{Leaf, server_config};
use tokio::{net::TcpListener, sync::mpsc::UnboundedSender};
use tokio_rustls::TlsAcceptor;

/// How the API server's reviews begin, up to the uid that an answer must repeat.
const UID: &[u8] = b"\"uid\":\"";

/// Serves until it is dropped; every body is sent to `seen`, if there is one.
///
/// # Errors
/// When certificate or key can't be read, or nothing can be accepted any more.
pub async fn serve(
    listener: TcpListener,
    certificate: &Path,
    key: &Path,
    seen: Option<UnboundedSender<Bytes>>,
) -> Result<()> {
    let leaf = Leaf::default();
    leaf.serve(&fs::read_to_string(certificate)?, &fs::read_to_string(key)?)?;
    let tls = TlsAcceptor::from(server_config(leaf)?);
    let builder = Arc::new(Builder::new(TokioExecutor::new()));
    loop {
        let (stream, _) = listener.accept().await?;
        let (tls, builder, seen) = (tls.clone(), builder.clone(), seen.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = hyper::service::service_fn(move |request| answer(request, seen.clone()));
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Option<UnboundedSender<Bytes>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let uid = uid(&body).unwrap_or_default();
    let answer = [
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":""#.as_slice(),
        uid,
        br#"","allowed":true}}"#,
    ]
    .concat();
    if let Some(seen) = seen {
        let _ = seen.send(body);
    }
    let mut response = Response::new(Full::new(answer.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The uid of a review, found without reading JSON: nothing stands before it but kind and version.
fn uid(body: &[u8]) -> Option<&[u8]> {
    let from = body.windows(UID.len()).position(|window| window == UID)? + UID.len();
    let rest = body.get(from..)?;
    rest.get(..rest.iter().position(|byte| *byte == b'"')?)
}
