//! What is wrong with a resource, said so that its author can mend it.

use thiserror::Error;

/// A value that is not accepted: where it stands, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Path of the field: `spec.network.egress[0].peers[1].external.cidrs[0]`.
    pub field: String,
    /// What is wrong, and the fix.
    pub problem: String,
}

impl Invalid {
    /// A problem at a field.
    #[must_use]
    pub fn at(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}
