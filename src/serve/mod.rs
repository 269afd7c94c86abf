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

fn of_status(status: StatusCode, body: impl Into<Bytes>) -> Answered {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

fn answered(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answered {
    let mut answer = of_status(status, body);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Where another method was used than those that are taken (RFC 9110, section 15.5.6).
fn wrong_method(taken: &'static str, said: &'static str) -> Answered {
    let mut answer = answered(StatusCode::METHOD_NOT_ALLOWED, TEXT, said);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(taken));
    answer
}
