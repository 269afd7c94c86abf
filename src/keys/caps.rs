//! What the cluster allows ApiKeys of a namespace to ask for.

use std::sync::Arc;

use jiff::SignedDuration;

use super::{
    grant::{DEFAULT_RATE, Grant, Role, limits},
    names::{Names, covers},
    policy_caps::{PolicyCaps, RESERVED, both, windows},
};
use crate::api::{ApiKeySpec, Invalid, Limits, MaxRate, RateShare, RotationPolicy, Verb};

/// What ApiKeys of a namespace may ask for: what every policy that covers it allows. Without one: no Admin, the
/// namespace as owner, default rates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caps {
    /// By the names of the policies, sorted.
    policies: Vec<(String, Arc<PolicyCaps>)>,
    /// Keys that were not used for so long are suspended.
    pub suspend_idle_after: Option<SignedDuration>,
}

impl Caps {
    /// The caps of these policies together: the strictest of each.
    #[must_use]
    pub fn of(policies: Vec<(String, Arc<PolicyCaps>)>) -> Self {
        let suspend_idle_after = policies.iter().filter_map(|(_, caps)| caps.suspend_idle_after).min();
        Self { policies, suspend_idle_after }
    }

    /// Names of the policies.
    pub fn policies(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().map(|(name, _)| name.as_str())
    }

    /// Whether all that a key asks for is allowed here, and what it may do then.
    ///
    /// # Errors
    /// At the first field that asks for more, naming the policy.
    pub fn check(&self, namespace: &str, spec: &ApiKeySpec, ttl: SignedDuration) -> Result<Grant, Invalid> {
        self.check_owner(namespace, &spec.owner.customer_id)?;
        self.check_audiences(&spec.audiences)?;
        self.check_times(spec, ttl)?;
        // What an imported token may do is not ours to say.
        if spec.imported().is_some() { Ok(Grant::nothing()) } else { self.grant(spec) }
    }

    /// What of them is given by some policies, with their names.
    fn given<'a, T>(&'a self, part: impl Fn(&'a PolicyCaps) -> Option<T>) -> impl Iterator<Item = (&'a str, T)> {
        self.policies.iter().filter_map(move |(name, caps)| Some((name.as_str(), part(caps)?)))
    }

    /// The longest time from one rotation to the next.
    #[must_use]
    pub fn max_rotation_interval(&self) -> Option<SignedDuration> {
        self.given(|caps| caps.max_rotation_interval).map(|(_, longest)| longest).min()
    }

    /// What a key may do.
    ///
    /// # Errors
    /// When its role, its permissions or its rates are not allowed here.
    pub fn grant(&self, spec: &ApiKeySpec) -> Result<Grant, Invalid> {
        let max = self.max_rate();
        self.check_rates(spec, &max)?;
        let asked = spec.rate_limit.as_ref();
        let (name, role) = match &spec.role {
            Some(name) => (name.clone(), self.role(name)?),
            None => (String::new(), self.bare(&spec.permissions)?),
        };
        let limits = limits(asked, &max, role.rate_permille);
        Ok(Grant { role: name, verbs: role.verbs, permissions: role.permissions, limits })
    }

    fn role(&self, name: &str) -> Result<Role, Invalid> {
        let at = |problem| Invalid::at("spec.role", problem);
        let mut found: Option<Role> = None;
        for (policy, roles) in self.given(|caps| caps.roles.as_ref()) {
            let Some(role) = roles.get(name) else {
                let known: Vec<&str> = roles.keys().map(String::as_str).collect();
                return Err(at(format!("must be one of {} ({})", known.join(", "), by(policy))));
            };
            found = Some(found.map_or_else(|| role.clone(), |before| both(&before, role)));
        }
        if let Some(role) = found {
            return Ok(role);
        }
        match (name, Role::built_in(name)) {
            ("Admin", _) => Err(at("Admin needs a ClusterSecurityPolicy that allows it in spec.apiKeys.roles".into())),
            (_, Some(role)) => Ok(role),
            (_, None) => Err(at(format!(
                "{name:?} is no role here: use Viewer or Editor, or define it in spec.apiKeys.roles of a ClusterSecurityPolicy"
            ))),
        }
    }

    /// What a key without a role may do: what it asks, each within a role of every policy.
    fn bare(&self, permissions: &[String]) -> Result<Role, Invalid> {
        if let Some(index) = permissions.iter().position(|asked| Verb::is_word(asked)) {
            return Err(Invalid::at(format!("spec.permissions[{index}]"), RESERVED));
        }
        let mut rate_permille = 1000;
        for (policy, roles) in self.given(|caps| caps.roles.as_ref()) {
            let has = |role: &Role, asked: &str| role.permissions.iter().any(|granted| covers(granted, asked));
            let missing = permissions.iter().position(|asked| !roles.values().any(|role| has(role, asked)));
            if let Some(index) = missing {
                let problem = format!("no role that is allowed here has it ({})", by(policy));
                return Err(Invalid::at(format!("spec.permissions[{index}]"), problem));
            }
            // Asking without a role is no way around its multiplier.
            let giving = roles.values().filter(|role| permissions.iter().any(|asked| has(role, asked)));
            rate_permille = giving.map(|role| role.rate_permille).max().unwrap_or(1000).min(rate_permille);
        }
        Ok(Role { verbs: vec![], permissions: permissions.to_vec(), rate_permille })
    }

    /// The highest rates: the least that is given of each window, else its default; a longer window allows no less
    /// than a shorter one.
    #[must_use]
    pub fn max_rate(&self) -> Limits {
        let least =
            |window: fn(&MaxRate) -> Option<i64>| self.given(|caps| window(&caps.max_rate)).map(|it| it.1).min();
        let given = [
            (least(|rate| rate.per_second), DEFAULT_RATE.per_second),
            (least(|rate| rate.burst), DEFAULT_RATE.burst),
            (least(|rate| rate.per_minute), DEFAULT_RATE.per_minute),
            (least(|rate| rate.per_hour), DEFAULT_RATE.per_hour),
            (least(|rate| rate.per_day), DEFAULT_RATE.per_day),
        ];
        let mut shorter = 1;
        let mut all = given.map(|(given, default)| {
            let rate = given.unwrap_or(default.max(shorter));
            shorter = shorter.max(rate);
            rate
        });
        let mut longer = i64::MAX;
        for rate in all.iter_mut().rev() {
            *rate = (*rate).min(longer);
            longer = *rate;
        }
        let [per_second, burst, per_minute, per_hour, per_day] = all;
        Limits { per_second, burst, per_minute, per_hour, per_day, shared: RateShare::Key }
    }

    fn check_rates(&self, spec: &ApiKeySpec, max: &Limits) -> Result<(), Invalid> {
        let Some(asked) = &spec.rate_limit else { return Ok(()) };
        let asked = windows(MaxRate {
            per_second: asked.per_second,
            burst: asked.burst,
            per_minute: asked.per_minute,
            per_hour: asked.per_hour,
            per_day: asked.per_day,
        });
        let max = [max.per_second, max.burst, max.per_minute, max.per_hour, max.per_day];
        let over = asked.into_iter().zip(max).find(|((_, asked), max)| asked.is_some_and(|asked| asked > *max));
        let Some(((name, _), max)) = over else { return Ok(()) };
        let limiting: Vec<&str> =
            self.given(|caps| (caps.max_rate != MaxRate::default()).then_some(())).map(|(name, ())| name).collect();
        let problem = if limiting.is_empty() {
            format!("must be at most {max}: a ClusterSecurityPolicy may allow more in spec.apiKeys.maxRate")
        } else {
            format!("must be at most {max} ({})", by(&limiting.join(", ")))
        };
        Err(Invalid::at(format!("spec.rateLimit.{name}"), problem))
    }

    fn check_owner(&self, namespace: &str, customer_id: &str) -> Result<(), Invalid> {
        let at = |problem| Err(Invalid::at("spec.owner.customerId", problem));
        let mut is_given = false;
        for (policy, ids) in self.given(|caps| caps.customer_ids.as_ref()) {
            is_given = true;
            if !ids.contain(customer_id) {
                return at(format!("must be {} ({})", one_of(ids), by(policy)));
            }
        }
        if is_given || namespace.is_empty() || customer_id == namespace {
            return Ok(());
        }
        at(format!(
            "must be {namespace:?}, the namespace: a ClusterSecurityPolicy may allow others in spec.apiKeys.customerIds"
        ))
    }

    fn check_audiences(&self, audiences: &[String]) -> Result<(), Invalid> {
        for (policy, allowed) in self.given(|caps| caps.audiences.as_ref()) {
            if let Some(index) = audiences.iter().position(|audience| !allowed.contain(audience)) {
                let problem = format!("must be {} ({})", one_of(allowed), by(policy));
                return Err(Invalid::at(format!("spec.audiences[{index}]"), problem));
            }
        }
        Ok(())
    }

    fn check_times(&self, spec: &ApiKeySpec, ttl: SignedDuration) -> Result<(), Invalid> {
        let least = |part: fn(&PolicyCaps) -> Option<SignedDuration>| self.given(part).min_by_key(|(_, max)| *max);
        if let Some((policy, max)) = least(|caps| caps.max_ttl).filter(|(_, max)| ttl > *max) {
            let unless = if spec.ttl.is_none() { "it is 8760h unless given, and " } else { "" };
            return Err(Invalid::at("spec.ttl", format!("{unless}must be at most {} ({})", hours(max), by(policy))));
        }
        let Some((policy, max)) = least(|caps| caps.max_rotation_interval) else { return Ok(()) };
        if spec.rotation.policy != RotationPolicy::Automatic {
            let problem = format!("must be Automatic, at least every {} ({})", hours(max), by(policy));
            return Err(Invalid::at("spec.rotation.policy", problem));
        }
        let interval = SignedDuration::try_from(spec.rotation.interval.get()).unwrap_or(SignedDuration::MAX);
        if interval > max {
            let problem = format!("must be at most {} ({})", hours(max), by(policy));
            return Err(Invalid::at("spec.rotation.interval", problem));
        }
        Ok(())
    }
}

fn by(policies: &str) -> String {
    format!("ClusterSecurityPolicy {policies}")
}

fn one_of(names: &Names) -> String {
    let names = names.to_string();
    if names.contains(", ") { format!("one of {names}") } else { names }
}

/// As durations are written in resources.
fn hours(duration: SignedDuration) -> String {
    std::time::Duration::try_from(duration).map(|it| crate::api::GoDuration::from(it).to_string()).unwrap_or_default()
}

#[cfg(test)]
#[path = "caps_tests.rs"]
mod tests;
