//! What a key may do, resolved: verifiers know records, and no roles.

use crate::api::{Limits, RateLimit, RateShare, Verb};

/// Rates without a role's multiplier, where no cluster policy says otherwise: a second, ten seconds, a minute, an hour,
/// a day.
pub const DEFAULT_RATE: Limits =
    Limits { per_second: 10, burst: 20, per_minute: 100, per_hour: 1000, per_day: 10_000, shared: RateShare::Key };

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// What it may do on routes that state no permission.
    pub verbs: Vec<Verb>,
    /// Permissions that it has.
    pub permissions: Vec<String>,
    /// Thousandths by which rates are multiplied.
    pub rate_permille: i64,
}

impl Role {
    /// The roles that are always there.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        use Verb::{Admin, Delete, Read, Write};
        let (verbs, permissions, rate_permille) = match name {
            "Viewer" => (vec![Read], vec![], 100),
            "Editor" => (vec![Read, Write], vec![], 1000),
            "Admin" => (vec![Read, Write, Delete, Admin], vec!["*".to_owned()], 10_000),
            _ => return None,
        };
        Some(Self { verbs, permissions, rate_permille })
    }
}

/// What a key may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Name of the role, or nothing.
    pub role: String,
    /// What it may do on routes that state no permission.
    pub verbs: Vec<Verb>,
    /// Permissions that it has.
    pub permissions: Vec<String>,
    /// How many calls it may make.
    pub limits: Limits,
}

impl Grant {
    /// Of a key that may do nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        let limits = Limits { per_second: 1, burst: 1, per_minute: 1, per_hour: 1, per_day: 1, shared: RateShare::Key };
        Self { role: String::new(), verbs: vec![], permissions: vec![], limits }
    }
}

/// Rates that are asked for, with the cap in place of what is not, multiplied.
#[must_use]
pub fn limits(asked: Option<&RateLimit>, cap: &Limits, permille: i64) -> Limits {
    let none = RateLimit::default();
    let asked = asked.unwrap_or(&none);
    let rate = |asked: Option<i64>, cap: i64| (asked.unwrap_or(cap).saturating_mul(permille) / 1000).max(1);
    Limits {
        per_second: rate(asked.per_second, cap.per_second),
        burst: rate(asked.burst, cap.burst),
        per_minute: rate(asked.per_minute, cap.per_minute),
        per_hour: rate(asked.per_hour, cap.per_hour),
        per_day: rate(asked.per_day, cap.per_day),
        shared: asked.shared,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_the_cap_times_the_role_and_never_nothing() {
        let viewer = limits(None, &DEFAULT_RATE, 100);
        assert_eq!((viewer.per_second, viewer.burst, viewer.per_minute, viewer.per_day), (1, 2, 10, 1000));
        let asked = RateLimit { per_second: Some(3), ..RateLimit::default() };
        assert_eq!(limits(Some(&asked), &DEFAULT_RATE, 100).per_second, 1, "a third of a call is one");
        assert_eq!(limits(Some(&asked), &DEFAULT_RATE, 10_000).per_second, 30);
    }
}
