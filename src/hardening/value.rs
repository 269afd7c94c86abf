//! A value that an exception is for alone, where a rule refuses values one by one.

use rampart_pss::Values;

use super::{
    directory::{self, Directory},
    rules::volume_types,
};

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// What is spelt like this.
    Exact(String),
    /// Every path in a directory of the node.
    Directory(Directory),
}

impl Value {
    /// Reads a value of a rule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(values: Values, text: &str) -> Result<Self, String> {
        let spelt = |more: &str| {
            !text.is_empty()
                && text.chars().all(|character| character.is_ascii_alphanumeric() || more.contains(character))
        };
        let wrong = match values {
            Values::Directory => return Directory::parse(text).map(Self::Directory),
            Values::Volume if text.starts_with('/') => return Directory::parse(text).map(Self::Directory),
            Values::Capability if !spelt("_") => {
                "no capability: write its name as a pod does, such as \"NET_ADMIN\"".into()
            }
            Values::Sysctl if !spelt("_.-/") || text.starts_with('/') => {
                "no sysctl: write its whole name, such as \"net.core.somaxconn\"".into()
            }
            Values::HostPort if !is_port(text) => "no port: write its number, 1 to 65535".into(),
            Values::Volume if text == "hostPath" => {
                "too wide: write the directories that are needed, such as \"/var/log\"".into()
            }
            Values::Volume if !volume_types().any(|known| known == text) => {
                let known = volume_types().filter(|known| *known != "hostPath").collect::<Vec<_>>().join(", ");
                format!("no type of volume: use one of {known}, or a directory for hostPath")
            }
            _ => return Ok(Self::Exact(text.into())),
        };
        Err(format!("{text:?} is {wrong}"))
    }

    /// Whether it is about what was found in a pod.
    pub(super) fn covers(&self, found: &str) -> bool {
        match self {
            Self::Exact(text) => text == found,
            Self::Directory(directory) => directory.holds(found),
        }
    }

    /// As the API server is told it: only a directory begins with a slash, and it ends in one.
    pub(super) fn in_cel(&self) -> &str {
        match self {
            Self::Exact(text) => text,
            Self::Directory(directory) => directory.prefix(),
        }
    }
}

/// Whether one of a list of [`Value::in_cel`] covers what was found, in CEL.
pub(super) fn covered_in_cel(list: &str, found: &str) -> String {
    let holds = directory::any_holds_in_cel("x", "w");
    format!("[{found}].exists(w, {list}.exists(x, x == w || (x.startsWith('/') && {holds})))")
}

/// What a volume is in an exception ([`rampart_pss::values::volume_excepted_as`]), in CEL.
pub(super) fn volume_in_cel(volume: &str, kind: &str) -> String {
    format!("(has({volume}.hostPath) && {volume}.hostPath.path.startsWith('/') ? {volume}.hostPath.path : {kind})")
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0 && port.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_their_rule() {
        use Values::{Capability, Directory, HostPort, Sysctl, Volume};
        for (values, good, bad) in [
            (Capability, &["NET_ADMIN", "ALL"][..], &["", "NET_*", "net admin"][..]),
            (Sysctl, &["net.core.somaxconn", "kernel/msgmax"], &["", "net.*", "/kernel/msgmax"]),
            (HostPort, &["1", "65535"], &["", "0", "65536", "080", "+80", "http", "8000-8002"]),
            (Directory, &["/", "/var/log", "/var/log/"], &["", "var", "/var/../etc", "nfs"]),
            (Volume, &["nfs", "/var/log"], &["", "hostPath", "disk", "/var/.."]),
        ] {
            for text in good {
                assert!(Value::parse(values, text).is_ok(), "{values:?} {text}");
            }
            for text in bad {
                let problem = Value::parse(values, text).expect_err(text);
                assert!(problem.starts_with(&format!("{text:?} ")), "{problem}");
            }
        }
    }

    #[test]
    fn a_directory_covers_what_is_in_it() {
        for (directory, inside, outside) in [
            (
                "/var/log",
                &["/var/log", "/var/log/", "/var/log/pods"][..],
                &["/var", "/var/logs", "/var/log/../lib", "", "var/log"][..],
            ),
            ("/var/log/", &["/var/log", "/var/log/pods"], &["/var/logs"]),
            ("/", &["/", "/etc"], &["etc", "/.."]),
        ] {
            let value = Value::parse(Values::Directory, directory).unwrap();
            assert!(inside.iter().all(|path| value.covers(path)), "{directory}");
            assert!(!outside.iter().any(|path| value.covers(path)), "{directory}");
        }
        let nfs = Value::parse(Values::Volume, "nfs").unwrap();
        assert!(nfs.covers("nfs") && !nfs.covers("nfs/exports"));
    }
}
