//! The servers: webhook, verifier, and metrics and health.

pub mod admin;
mod body;
mod connections;
mod pool;
pub mod tls;
pub mod verifier;
pub mod webhook;

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;

/// What is answered over HTTP/1.1.
type Answered = Response<Full<Bytes>>;

/// For people.
const TEXT: &str = "text/plain; charset=utf-8";

fn answered(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answered {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
