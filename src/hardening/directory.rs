//! A directory of nodes, by its path.

use std::fmt;

use super::cel::string;

/// A directory and all that is below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    /// With a slash at the end.
    prefix: String,
}

impl Directory {
    /// Reads an absolute path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(path: &str) -> Result<Self, String> {
        if !path.starts_with('/') || path.split('/').any(|step| step == ".." || step == ".") {
            return Err(format!("{path:?} must be an absolute path without . and .."));
        }
        Ok(Self { prefix: format!("{}/", path.trim_end_matches('/')) })
    }

    /// Whether a path is of it; none that climbs is.
    pub(super) fn holds(&self, path: &str) -> bool {
        !path.contains("..") && format!("{path}/").starts_with(&self.prefix)
    }

    /// The same in CEL.
    pub(super) fn holds_in_cel(&self, path: &str) -> String {
        any_holds_in_cel(&string(&self.prefix), path)
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// The same for an expression that gives a [`Directory::prefix`].
pub(super) fn any_holds_in_cel(prefix: &str, path: &str) -> String {
    format!("(!{path}.contains('..') && ({path} + '/').startsWith({prefix}))")
}

impl fmt::Display for Directory {
    /// `/var/log`; the root is `/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.prefix.trim_end_matches('/');
        f.write_str(if path.is_empty() { "/" } else { path })
    }
}
