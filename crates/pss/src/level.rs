//! Levels and versions of the standards.

use std::{fmt, str::FromStr};

/// A level of the Pod Security Standards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Anything goes.
    Privileged,
    /// Known privilege escalations are refused.
    Baseline,
    /// Hardening best practice is required.
    Restricted,
}

/// A version of the standards: a minor version of Kubernetes 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(Option<u32>);

/// Why a level or version was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    expected: &'static str,
    found: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be {}, not {:?}", self.expected, self.found)
    }
}

impl std::error::Error for ParseError {}

impl Version {
    /// The newest version that this crate knows.
    pub const LATEST: Self = Self(None);

    /// The minor version of [`Self::LATEST`]; what is newer is decided like it.
    pub const NEWEST_MINOR: u32 = 37;

    /// Version 1.`minor`.
    #[must_use]
    pub const fn minor(minor: u32) -> Self {
        Self(Some(minor))
    }

    /// The minor version whose rules hold.
    #[must_use]
    pub fn known_minor(self) -> u32 {
        self.0.map_or(Self::NEWEST_MINOR, |own| own.min(Self::NEWEST_MINOR))
    }

    /// Whether it is newer than any that this crate knows, and decided like the newest.
    #[must_use]
    pub fn is_future(self) -> bool {
        self.0.is_some_and(|own| own > Self::NEWEST_MINOR)
    }

    /// Whether a rule that came with version 1.`minor` holds at this version.
    #[must_use]
    pub fn since(self, minor: u32) -> bool {
        self.known_minor() >= minor
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(minor) => write!(f, "v1.{minor}"),
            None => f.write_str("latest"),
        }
    }
}

impl FromStr for Version {
    type Err = ParseError;

    /// `latest`, or `v1.N` without leading zeros (the reference's `ParseVersion`).
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let minor = text.strip_prefix("v1.").filter(|digits| {
            !digits.is_empty()
                && digits.bytes().all(|byte| byte.is_ascii_digit())
                && (*digits == "0" || !digits.starts_with('0'))
        });
        match minor.map(str::parse) {
            Some(Ok(minor)) => Ok(Self(Some(minor))),
            // More digits than fit: newer than anything known.
            Some(Err(_)) => Ok(Self::LATEST),
            None if text == "latest" => Ok(Self::LATEST),
            None => Err(ParseError { expected: "\"latest\" or \"v1.N\"", found: text.into() }),
        }
    }
}

impl Level {
    /// The level's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        [Self::Privileged, Self::Baseline, Self::Restricted]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| ParseError { expected: "privileged, baseline or restricted", found: text.into() })
    }
}
