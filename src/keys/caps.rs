//! What the cluster allows ApiKeys of a namespace to ask for.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::grant::{DEFAULT_RATE, Grant, Role, limits};
use crate::api::{ApiKeySpec, Invalid, Limits};

/// What ApiKeys of a namespace may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caps {
    /// The longest life of a version.
    pub max_ttl: Option<SignedDuration>,
    /// The longest time from one rotation to the next; a key must be rotated by itself.
    pub max_rotation_interval: Option<SignedDuration>,
    /// Roles that keys may have.
    pub roles: BTreeMap<String, Role>,
    /// Services that keys may be for; any, unless given.
    pub audiences: Option<BTreeSet<String>>,
    /// Owners that keys may have; the namespace alone, unless given.
    pub customer_ids: Option<BTreeSet<String>>,
    /// The highest rates, before the role's multiplier.
    pub max_rate: Limits,
    /// Keys that were not used for so long are suspended.
    pub suspend_idle_after: Option<SignedDuration>,
}

impl Default for Caps {
    /// Without a cluster policy: no Admin, the namespace as owner, default rates.
    fn default() -> Self {
        let roles = ["Viewer", "Editor"].into_iter().filter_map(|name| Some((name.to_owned(), Role::built_in(name)?)));
        Self {
            max_ttl: None,
            max_rotation_interval: None,
            roles: roles.collect(),
            audiences: None,
            customer_ids: None,
            max_rate: DEFAULT_RATE,
            suspend_idle_after: None,
        }
    }
}

impl Caps {
    /// What a key may do.
    ///
    /// # Errors
    /// When its role or its rates are not allowed here.
    pub fn grant(&self, spec: &ApiKeySpec) -> Result<Grant, Invalid> {
        self.check_rates(spec)?;
        let asked = spec.rate_limit.as_ref();
        let Some(name) = &spec.role else {
            let permissions = spec.permissions.clone();
            return Ok(Grant {
                role: String::new(),
                verbs: vec![],
                permissions,
                limits: limits(asked, &self.max_rate, 1000),
            });
        };
        let Some(role) = self.roles.get(name) else {
            let known: Vec<&str> = self.roles.keys().map(String::as_str).collect();
            let problem = match name.as_str() {
                "Admin" => "Admin needs a ClusterSecurityPolicy that allows it in spec.apiKeys.roles".into(),
                _ => format!("{name:?} is no role here: use one of {}", known.join(", ")),
            };
            return Err(Invalid::at("spec.role", problem));
        };
        Ok(Grant {
            role: name.clone(),
            verbs: role.verbs.clone(),
            permissions: role.permissions.clone(),
            limits: limits(asked, &self.max_rate, role.rate_permille),
        })
    }

    fn check_rates(&self, spec: &ApiKeySpec) -> Result<(), Invalid> {
        let Some(asked) = &spec.rate_limit else { return Ok(()) };
        let max = &self.max_rate;
        let windows = [
            ("perSecond", asked.per_second, max.per_second),
            ("burst", asked.burst, max.burst),
            ("perMinute", asked.per_minute, max.per_minute),
            ("perHour", asked.per_hour, max.per_hour),
            ("perDay", asked.per_day, max.per_day),
        ];
        match windows.into_iter().find(|(_, asked, max)| asked.is_some_and(|asked| asked > *max)) {
            Some((name, _, max)) => Err(Invalid::at(
                format!("spec.rateLimit.{name}"),
                format!("must be at most {max}: a ClusterSecurityPolicy may allow more in spec.apiKeys.maxRate"),
            )),
            None => Ok(()),
        }
    }

    /// Whether keys of a namespace may have this owner.
    ///
    /// # Errors
    /// When they may not.
    pub fn check_owner(&self, namespace: &str, customer_id: &str) -> Result<(), Invalid> {
        let (allowed, words) = match &self.customer_ids {
            Some(ids) => (ids.contains(customer_id), ids.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
            None => (namespace.is_empty() || customer_id == namespace, format!("{namespace:?}, the namespace")),
        };
        let problem = format!("must be {words}: a ClusterSecurityPolicy may allow others in spec.apiKeys.customerIds");
        if allowed { Ok(()) } else { Err(Invalid::at("spec.owner.customerId", problem)) }
    }
}
