//! The API server's clock.

use jiff::{Timestamp, fmt::rfc2822};
use kube::{Client, client::Body};

use super::{Error, Result, error::call};

/// What time it is for the API server, to the second: the `Date` of its answer (RFC 9110, section 6.6.1).
///
/// # Errors
/// When it does not answer, or says no time.
pub async fn server_time(client: &Client) -> Result<Timestamp> {
    let doing = || "asking the API server for the time".to_owned();
    let unreadable = || Error::Unexpected("the API server's answer has no Date".into());
    let request = http::Request::get("/version").body(Body::empty()).map_err(|_| unreadable())?;
    let answer = call(doing, client.send(request)).await?;
    let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    date.and_then(|date| rfc2822::parse(date).ok()).map(|date| date.timestamp()).ok_or_else(unreadable)
}
