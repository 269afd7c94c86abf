//! The API server's clock.

use http::{Request, header::DATE};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use kube::{Client, client::Body};

use super::{Error, Result, error::call};
use crate::runtime::clock;

/// Clocks that are further apart tell nothing of an end.
pub const MOST_SKEW: SignedDuration = SignedDuration::from_mins(2);

/// What time it is for the API server, in whole seconds: the header `Date` of an answer (RFC 9110, section 6.6.1).
///
/// # Errors
/// When the call fails, or its answer has no date.
pub async fn server_time(client: &Client) -> Result<Timestamp> {
    let doing = || "asking the API server for the time".to_owned();
    let unreadable = |_| Error::Unexpected("a request for /version that can't be made".into());
    let request = Request::get("/version").body(Body::empty()).map_err(unreadable)?;
    let answer = call(doing, client.send(request)).await?;
    let date = answer.headers().get(DATE).and_then(|date| rfc2822::parse(date.to_str().ok()?).ok());
    date.map(|date| date.timestamp()).ok_or_else(|| Error::Unexpected("the API server's answer has no date".into()))
}

/// How far the operator's clock is ahead of the API server's, at the least; negative where it is behind.
///
/// # Errors
/// When the API server does not tell the time.
pub async fn skew(client: &Client) -> Result<SignedDuration> {
    let before = clock::now();
    let server = server_time(client).await?;
    Ok(apart(before, server, clock::now()))
}

/// How far off the operator's clock is, in words. By the minute, or by the hour: a clock that drifts is no news every
/// second.
#[must_use]
pub fn in_words(skew: SignedDuration) -> String {
    let (far, side) = (skew.unsigned_abs().as_secs(), if skew.is_positive() { "ahead of" } else { "behind" });
    let far = if far >= 7200 { format!("{}h", far / 3600) } else { format!("{}m", far / 60) };
    format!("some {far} {side} the API server's")
}

/// The least distance between a second of the server's and the time in which it was told.
fn apart(before: Timestamp, server: Timestamp, after: Timestamp) -> SignedDuration {
    let ahead = before.duration_since(server) - SignedDuration::from_secs(1);
    let behind = server.duration_since(after);
    if ahead.is_positive() {
        ahead
    } else if behind.is_positive() {
        -behind
    } else {
        SignedDuration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_is_no_news_every_second() {
        let told = |seconds| in_words(SignedDuration::from_secs(seconds));
        assert_eq!(told(299), "some 4m ahead of the API server's");
        assert_eq!(told(-30 * 86_400 - 59), "some 720h behind the API server's");
    }

    #[test]
    fn clocks_are_apart_by_what_no_rounding_explains() {
        let at = |milliseconds: i64| Timestamp::from_millisecond(milliseconds).unwrap();
        let apart = |before, server, after| super::apart(at(before), at(server), at(after)).as_millis();
        assert_eq!(apart(10_200, 10_000, 10_300), 0);
        assert_eq!(apart(10_900, 10_000, 11_100), 0, "within the second that is told");
        assert_eq!(apart(9_000, 10_000, 12_000), 0, "a slow answer");
        assert_eq!(apart(14_000, 10_000, 14_100), 3000);
        assert_eq!(apart(5_000, 10_000, 6_000), -4000);
        // As the API server writes it.
        let date = rfc2822::parse("Fri, 17 Jan 2020 15:14:38 GMT").unwrap();
        assert_eq!(date.timestamp().to_string(), "2020-01-17T15:14:38Z");
    }
}
