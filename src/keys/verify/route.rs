//! What is asked of which service.

use std::net::IpAddr;

use super::credential::Credentials;
use crate::api::Verb;

/// What the proxy states of the route that a request takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Route<'a> {
    /// The service; a route without one admits nobody.
    pub audience: Option<&'a str>,
    /// The permission that it needs, instead of the verb of the method.
    pub permission: Option<&'a str>,
    /// The customer whose data it is.
    pub customer: Option<&'a str>,
}

/// A request to a service.
pub struct Request<'a> {
    /// What it presents.
    pub credentials: Credentials<'a>,
    /// HTTP method.
    pub method: &'a str,
    /// Path, with or without its query.
    pub path: &'a str,
    /// The route.
    pub route: Route<'a>,
    /// Address that it comes from, where that is known.
    pub source: Option<IpAddr>,
}

/// The verb of a method (RFC 9110, section 9); none of one that is not known.
pub(super) fn verb(method: &str, path: &str, admin_paths: &[String]) -> Option<Verb> {
    if !admin_paths.is_empty() && is_for_admins(path, admin_paths) {
        return Some(Verb::Admin);
    }
    match method {
        "GET" | "HEAD" | "OPTIONS" => Some(Verb::Read),
        "POST" | "PUT" | "PATCH" => Some(Verb::Write),
        "DELETE" => Some(Verb::Delete),
        _ => None,
    }
}

/// A path that proxy and service could read differently is taken for one of administrators. Many services take `/ADMIN` for
/// `/admin`.
fn is_for_admins(path: &str, admin_paths: &[String]) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let ambiguous = |segment: &str| matches!(segment, "." | "..") || segment.contains(['\\', '%', ';', '?', '#', '\0']);
    if path.contains("//") || path.split('/').any(ambiguous) {
        return true;
    }
    admin_paths.iter().any(|admin| {
        let admin = admin.trim_end_matches('/');
        let parts = path.split_at_checked(admin.len());
        parts.is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(admin) && (rest.is_empty() || rest.starts_with('/'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs() {
        let admin = ["/admin".to_owned()];
        let of = |method, path| verb(method, path, &admin);
        assert_eq!(of("GET", "/a"), Some(Verb::Read));
        assert_eq!(of("PATCH", "/a"), Some(Verb::Write));
        assert_eq!(of("DELETE", "/a"), Some(Verb::Delete));
        assert_eq!(of("TRACE", "/a"), None);
        assert_eq!(of("get", "/a"), None, "methods are case-sensitive");
        for path in [
            "/admin",
            "/admin/",
            "/admin/users?x=/",
            "/admin?x",
            "/%61dmin",
            "/a/../admin",
            "/a//b",
            "/a%2fb/..;/admin",
            "/ADMIN/users",
            "/%41dmiN",
        ] {
            assert_eq!(of("GET", path), Some(Verb::Admin), "{path}");
        }
        for path in ["/administrator", "/a?/admin", "/a/admin", "/adm\u{e9}n", "/admi\u{e9}"] {
            assert_eq!(of("GET", path), Some(Verb::Read), "{path}");
        }
    }
}
