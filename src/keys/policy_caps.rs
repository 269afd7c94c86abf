//! What one ClusterSecurityPolicy says of ApiKeys, parsed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::{
    grant::Role,
    names::{Names, common},
};
use crate::api::{GoDuration, Invalid, KeyCaps, KeyRole, MaxRate, Verb};

/// What a policy says; `None` is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyCaps {
    /// The longest life of a version.
    pub max_ttl: Option<SignedDuration>,
    /// The longest time from one rotation to the next.
    pub max_rotation_interval: Option<SignedDuration>,
    /// All roles that keys may have.
    pub roles: Option<BTreeMap<String, Role>>,
    /// Services that keys may be for.
    pub audiences: Option<Names>,
    /// Owners that keys may have.
    pub customer_ids: Option<Names>,
    /// The highest rates.
    pub max_rate: MaxRate,
    /// Keys that were not used for so long are suspended.
    pub suspend_idle_after: Option<SignedDuration>,
}

const AT: &str = "spec.apiKeys";

/// Of a permission that is called as a verb is: both are told to services, side by side.
pub(super) const RESERVED: &str =
    "must not be read, write, delete or admin, which are what a role may do: give it another name, as orders.read";

impl TryFrom<&KeyCaps> for PolicyCaps {
    type Error = Invalid;

    fn try_from(caps: &KeyCaps) -> Result<Self, Invalid> {
        Ok(Self {
            max_ttl: duration(caps.max_ttl, "maxTtl")?,
            max_rotation_interval: duration(caps.max_rotation_interval, "maxRotationInterval")?,
            roles: caps.roles.as_deref().map(roles).transpose()?,
            audiences: names(caps.audiences.as_deref(), "audiences")?,
            customer_ids: names(caps.customer_ids.as_deref(), "customerIds")?,
            max_rate: rate(caps.max_rate.unwrap_or_default())?,
            suspend_idle_after: duration(caps.suspend_idle_after, "suspendIdleAfter")?,
        })
    }
}

fn duration(given: Option<GoDuration>, field: &str) -> Result<Option<SignedDuration>, Invalid> {
    let at = |problem| Invalid::at(format!("{AT}.{field}"), problem);
    let Some(given) = given else { return Ok(None) };
    if given.get().as_secs() < 1 {
        return Err(at("must be at least 1s"));
    }
    SignedDuration::try_from(given.get()).map(Some).map_err(|_| at("is too long"))
}

fn names(given: Option<&[String]>, field: &str) -> Result<Option<Names>, Invalid> {
    let parse = |given| Names::parse(given).map_err(|index| (index, "write a name, with `*` at its end if need be"));
    given.map(parse).transpose().map_err(|(index, problem)| Invalid::at(format!("{AT}.{field}[{index}]"), problem))
}

fn roles(given: &[KeyRole]) -> Result<BTreeMap<String, Role>, Invalid> {
    let mut roles = BTreeMap::new();
    for (index, written) in given.iter().enumerate() {
        let at = |field: &str| format!("{AT}.roles[{index}]{field}");
        if roles.insert(written.name.clone(), role(written, &at)?).is_some() {
            return Err(Invalid::at(at(".name"), format!("{} is there twice", written.name)));
        }
    }
    Ok(roles)
}

fn role(written: &KeyRole, at: &impl Fn(&str) -> String) -> Result<Role, Invalid> {
    let says = !written.verbs.is_empty() || !written.permissions.is_empty();
    if let Some(role) = Role::built_in(&written.name) {
        if says || written.rate_multiplier.is_some() {
            let problem = format!("{} is built in, and is given by name alone: call yours otherwise", written.name);
            return Err(Invalid::at(at(""), problem));
        }
        return Ok(role);
    }
    if !says {
        return Err(Invalid::at(at(""), "say what the role may do: it needs verbs or permissions"));
    }
    let bad = written.permissions.iter().position(|it| !is_permission(it));
    if let Some(index) = bad {
        let problem = "must be a dotted name, with `*` as its last part if need be: orders.read, orders.*";
        return Err(Invalid::at(at(&format!(".permissions[{index}]")), problem));
    }
    let rate_permille = permille(written.rate_multiplier.unwrap_or(1.0)).ok_or_else(|| {
        Invalid::at(at(".rateMultiplier"), "must be from 0.001 to 1000, and have three decimals at the most")
    })?;
    let verbs: BTreeSet<_> = written.verbs.iter().copied().collect();
    // The schema refuses those that are called as verbs are. One that was stored before gives nothing: the rest of its
    // policy is to hold.
    let permissions = written.permissions.iter().filter(|it| !Verb::is_word(it)).cloned().collect();
    Ok(Role { verbs: verbs.into_iter().collect(), permissions, rate_permille })
}

fn is_permission(text: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-".contains(&it));
    text == "*" || text.strip_suffix(".*").unwrap_or(text).split('.').all(is_part)
}

/// Thousandths of a multiplier that is a whole number of them.
fn permille(multiplier: f64) -> Option<i64> {
    let thousandths = multiplier * 1000.0;
    let rounded = thousandths.round();
    let fits = (1.0..=1_000_000.0).contains(&rounded) && (thousandths - rounded).abs() < 1e-6;
    #[expect(clippy::cast_possible_truncation, reason = "it lies in the range")]
    let whole = rounded as i64;
    fits.then_some(whole)
}

fn rate(given: MaxRate) -> Result<MaxRate, Invalid> {
    let mut last = 1;
    for (name, value) in windows(given) {
        let Some(value) = value else { continue };
        if value < last {
            let problem = format!("must be at least {last}: a longer window never allows less than a shorter one");
            return Err(Invalid::at(format!("{AT}.maxRate.{name}"), problem));
        }
        last = value;
    }
    Ok(given)
}

/// From the shortest to the longest, with their names.
pub(super) const fn windows(rate: MaxRate) -> [(&'static str, Option<i64>); 5] {
    [
        ("perSecond", rate.per_second),
        ("burst", rate.burst),
        ("perMinute", rate.per_minute),
        ("perHour", rate.per_hour),
        ("perDay", rate.per_day),
    ]
}

/// The role that may do what both may.
pub(super) fn both(one: &Role, other: &Role) -> Role {
    Role {
        verbs: one.verbs.iter().filter(|verb| other.verbs.contains(verb)).copied().collect(),
        permissions: common(&one.permissions, &other.permissions),
        rate_permille: one.rate_permille.min(other.rate_permille),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    #[allow(clippy::unwrap_in_result, reason = "a test")]
    fn parse(caps: Value) -> Result<PolicyCaps, Invalid> {
        PolicyCaps::try_from(&serde_json::from_value::<KeyCaps>(caps).unwrap())
    }

    #[test]
    fn a_policy_is_read() {
        let caps = parse(json!({
            "maxTtl": "24h", "roles": [{"name": "Admin"},
                {"name": "architect", "permissions": ["admin.config"], "verbs": ["Write", "Read"], "rateMultiplier": 0.1}],
            "audiences": ["orders-*"], "maxRate": {"perDay": 5},
        }))
        .unwrap();
        assert_eq!(caps.max_ttl, Some(SignedDuration::from_hours(24)));
        let roles = caps.roles.unwrap();
        assert_eq!(roles["Admin"].rate_permille, 10_000);
        let architect = &roles["architect"];
        assert_eq!((architect.rate_permille, architect.verbs.as_slice()), (100, [Verb::Read, Verb::Write].as_slice()));
    }

    #[rstest]
    #[case(json!({"maxTtl": "0s"}), "spec.apiKeys.maxTtl: must be at least 1s")]
    #[case(json!({"audiences": ["a", "b*c"]}), "spec.apiKeys.audiences[1]: write a name")]
    #[case(json!({"roles": [{"name": "Viewer", "verbs": ["Write"]}]}), "spec.apiKeys.roles[0]: Viewer is built in")]
    #[case(json!({"roles": [{"name": "Viewer", "rateMultiplier": 5}]}), "spec.apiKeys.roles[0]: Viewer is built in")]
    #[case(json!({"roles": [{"name": "mine"}]}), "spec.apiKeys.roles[0]: say what the role may do")]
    #[case(json!({"roles": [{"name": "a", "permissions": ["x.*.y"]}]}), "spec.apiKeys.roles[0].permissions[0]: must be")]
    #[case(json!({"roles": [{"name": "a", "permissions": ["x"], "rateMultiplier": 0.0001}]}), "spec.apiKeys.roles[0].rateMultiplier: must be from")]
    #[case(json!({"roles": [{"name": "a", "permissions": ["x"], "rateMultiplier": 1.2345}]}), "spec.apiKeys.roles[0].rateMultiplier: must be from")]
    #[case(json!({"roles": [{"name": "a", "permissions": ["x"], "rateMultiplier": 1e300}]}), "spec.apiKeys.roles[0].rateMultiplier: must be from")]
    #[case(json!({"roles": [{"name": "Viewer"}, {"name": "Viewer"}]}), "spec.apiKeys.roles[1].name: Viewer is there twice")]
    #[case(json!({"maxRate": {"perSecond": 5, "perDay": 3}}), "spec.apiKeys.maxRate.perDay: must be at least 5")]
    #[case(json!({"maxRate": {"burst": 0}}), "spec.apiKeys.maxRate.burst: must be at least 1")]
    fn what_can_not_be_is_refused_with_the_field(#[case] caps: Value, #[case] said: &str) {
        let refused = parse(caps).unwrap_err().to_string();
        assert!(refused.starts_with(said), "{refused}");
    }
}
