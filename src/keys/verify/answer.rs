//! A verdict in the words of HTTP.
//!
//! 401 and 403 by RFC 6750, section 3; 429 by RFC 6585, section 4; `RateLimit` and `RateLimit-Policy` by
//! draft-ietf-httpapi-ratelimit-headers-10 (structured fields, RFC 9651); bodies by RFC 9457; `Deprecation` by RFC 9745
//! and `Sunset` by RFC 8594.

use std::{borrow::Cow, fmt::Write as _};

use http::{
    HeaderName,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS},
};
use jiff::{Timestamp, fmt::rfc2822};
use serde_json::json;

use super::{
    Admission, Refusal, Verdict, WINDOWS, Window,
    credential::{AUTHORIZATION, X_API_KEY},
};
use crate::api::Verb;

/// Headers that never reach the service: what carried the key, and that by which many frameworks take a GET for a DELETE:
/// another method than was judged.
pub const REMOVED: [&str; 5] =
    [AUTHORIZATION, X_API_KEY, "x-http-method-override", "x-method-override", "x-http-method"];
/// The same, as Envoy is told over HTTP.
pub const REMOVED_LIST: &str = "authorization,x-api-key,x-http-method-override,x-method-override,x-http-method";

/// How the asking proxy reads an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Every status is handed to the client.
    Plain,
    /// nginx's `auth_request`: 401 and 403 are, and any other refusal becomes a 500. What it can't say is a 403 with the
    /// true status in `X-Status`.
    AuthRequest,
}

const ID: HeaderName = HeaderName::from_static("x-apikey-id");
const OWNER: HeaderName = HeaderName::from_static("x-apikey-owner");
const ROLE: HeaderName = HeaderName::from_static("x-apikey-role");
const SCOPES: HeaderName = HeaderName::from_static("x-apikey-scopes");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");
const X_STATUS: HeaderName = HeaderName::from_static("x-status");

/// A header and its value.
pub type Header<'a> = (HeaderName, Cow<'a, str>);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<'a> {
    /// HTTP status.
    pub status: u16,
    /// Headers for the service: always all of them, so that none of the client's own is left.
    pub identity: Vec<Header<'a>>,
    /// Headers for the client.
    pub client: Vec<Header<'a>>,
    /// Body for the client.
    pub body: Option<String>,
}

/// Puts a verdict into words.
#[must_use]
pub fn answer(verdict: &Verdict, form: Form) -> Answer<'_> {
    match verdict {
        Verdict::Admitted(admission) => admitted(admission),
        Verdict::Refused(refusal) => refused(refusal, form),
        Verdict::Unavailable => unavailable("the keys are not known yet"),
        Verdict::Misrouted => unavailable("the route states no audience"),
    }
}

fn admitted(admission: &Admission) -> Answer<'_> {
    let access = &admission.access;
    let identity = vec![
        (ID, admission.id.to_string().into()),
        (OWNER, admission.owner.as_str().into()),
        (ROLE, (&*access.role).into()),
        (SCOPES, (&*access.scopes).into()),
    ];
    let mut client: Vec<Header<'_>> = Vec::with_capacity(4);
    client.push((RATELIMIT_POLICY, (&*access.policy).into()));
    // The window that ends first is what the client has to know.
    if let Some(tightest) = admission.windows().iter().min_by_key(|window| (window.remaining, -window.reset)) {
        client.push((RATELIMIT, state(&[*tightest]).into()));
    }
    if let Some(end) = admission.sunset {
        // That it is deprecated is sure, and since when nobody needs to know: the day of its end is what counts.
        client.push((DEPRECATION, format!("@{}", end.as_second()).into()));
        client.extend(http_date(end).map(|date| (SUNSET, date.into())));
    }
    Answer { status: 200, identity, client, body: None }
}

/// What keys may do, in words, for the service. A permission that is called as a verb is, which keys of before may have, is
/// none that it is told of.
pub(super) fn scopes(verbs: &[Verb], permissions: &[String]) -> String {
    let permissions = permissions.iter().map(String::as_str).filter(|it| !Verb::is_word(it));
    verbs.iter().map(|verb| verb.word()).chain(permissions).collect::<Vec<&str>>().join(" ")
}

/// IMF-fixdate (RFC 9110, section 5.6.7).
fn http_date(at: Timestamp) -> Option<String> {
    let mut date = String::new();
    let zoned = at.to_zoned(jiff::tz::TimeZone::UTC);
    rfc2822::DateTimePrinter::new().print_zoned(&zoned, &mut date).ok()?;
    Some(date.replace("+0000", "GMT").replace("-0000", "GMT"))
}

pub(super) fn policy(windows: &[Window]) -> String {
    let mut text = String::with_capacity(128);
    for window in windows {
        let (name, seconds) = named(window);
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}\"{name}\";q={};w={seconds}", window.quota);
    }
    text
}

fn state(windows: &[Window]) -> String {
    let mut text = String::with_capacity(32);
    for window in windows {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}\"{}\";r={};t={}", named(window).0, window.remaining, window.reset);
    }
    text
}

fn named(window: &Window) -> (&'static str, i64) {
    WINDOWS.get(window.index).copied().unwrap_or_default()
}

fn refused(refusal: &Refusal, form: Form) -> Answer<'static> {
    let (status, detail) = words(refusal);
    let mut client: Vec<Header<'static>> = vec![];
    match refusal {
        Refusal::Missing => client.push((WWW_AUTHENTICATE, "Bearer realm=\"rampart\"".into())),
        Refusal::Permission(_, needed) => client.push((
            WWW_AUTHENTICATE,
            format!("Bearer realm=\"rampart\", error=\"insufficient_scope\", scope=\"{}\"", quotable(needed)).into(),
        )),
        Refusal::Audience(_) | Refusal::Customer(_) => {
            client.push((WWW_AUTHENTICATE, "Bearer realm=\"rampart\", error=\"insufficient_scope\"".into()));
        }
        Refusal::Limited(_, windows) => {
            let violated = violated(&**windows);
            client.push((RATELIMIT_POLICY, policy(&**windows).into()));
            client.push((RATELIMIT, state(&violated).into()));
            let wait = violated.iter().map(|it| it.retry_after).max().unwrap_or(1);
            client.push((RETRY_AFTER, wait.to_string().into()));
        }
        Refusal::Address(seconds) => client.push((RETRY_AFTER, seconds.to_string().into())),
        _ => client.push((WWW_AUTHENTICATE, "Bearer realm=\"rampart\", error=\"invalid_token\"".into())),
    }
    let mut problem = json!({"status": status, "detail": detail, "title": title(status)});
    if let (Refusal::Limited(_, windows), Some(problem)) = (refusal, problem.as_object_mut()) {
        problem.insert("type".into(), "https://iana.org/assignments/http-problem-types#quota-exceeded".into());
        let names = violated(&**windows).iter().map(|window| named(window).0).collect::<Vec<_>>();
        problem.insert("violated-policies".into(), names.into());
    }
    let status = match (form, status) {
        (Form::AuthRequest, 429) => {
            client.push((X_STATUS, "429".into()));
            403
        }
        _ => status,
    };
    finish(status, client, &problem)
}

fn violated(windows: &[Window]) -> Vec<Window> {
    windows.iter().filter(|window| window.retry_after > 0).copied().collect()
}

/// A quoted string can't hold what ends it (RFC 6750, section 3).
fn quotable(text: &str) -> String {
    text.chars().filter(|character| character.is_ascii_graphic() && !"\"\\".contains(*character)).collect()
}

/// Expired and suspended are told apart from unknown only to those who have the key.
fn words(refusal: &Refusal) -> (u16, String) {
    match refusal {
        Refusal::Missing => (401, "send an API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`".into()),
        Refusal::Ambiguous => (401, "more than one credential was sent: send one".into()),
        Refusal::TooLong | Refusal::Malformed => {
            (401, "the credential is not an API key, or was cut or mistyped".into())
        }
        Refusal::Unknown => (401, "the API key is not known".into()),
        Refusal::Suspended(id) => (401, format!("the API key {id} is suspended")),
        Refusal::Expired(id) => (401, format!("the API key {id} has expired")),
        Refusal::Audience(id) => (403, format!("the API key {id} is not for this service")),
        Refusal::Permission(id, needed) => (403, format!("the API key {id} lacks {needed}")),
        Refusal::Customer(id) => (403, format!("the API key {id} belongs to another customer")),
        Refusal::Limited(id, _) => (429, format!("the API key {id} made too many calls")),
        Refusal::Address(_) => (429, "too many requests from this address were refused".into()),
    }
}

const fn title(status: u16) -> &'static str {
    match status {
        401 => "Unauthorized",
        403 => "Forbidden",
        429 => "Too Many Requests",
        _ => "Service Unavailable",
    }
}

fn unavailable(detail: &str) -> Answer<'static> {
    finish(503, vec![], &json!({"status": 503, "title": title(503), "detail": detail}))
}

fn finish(status: u16, mut client: Vec<Header<'static>>, problem: &serde_json::Value) -> Answer<'static> {
    client.extend([
        (CONTENT_TYPE, "application/problem+json".into()),
        (CACHE_CONTROL, "no-store".into()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".into()),
    ]);
    Answer { status, identity: vec![], client, body: Some(problem.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_permission_reads_as_a_verb() {
        let permissions = ["admin", "orders.read", "write", "admin.*"].map(ToOwned::to_owned);
        assert_eq!(scopes(&[Verb::Read], &permissions), "read orders.read admin.*");
    }
}
