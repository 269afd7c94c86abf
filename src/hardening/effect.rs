//! What an exception lets pass in its namespace, and what policies that it does not name refuse all the same.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rampart_pss::Applied;

use super::{Covering, Exception, Origin, Policies, Requirement, check_of_rule, rule_of_check, rules::Part};
use crate::api::HardeningMode;

/// What comes of an exception.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    /// Whether something passes by it.
    pub lets_pass: bool,
    /// Policies that it does not name, with those of its rules that each refuses all the same.
    pub refused_by: BTreeMap<Origin, BTreeSet<String>>,
    /// Rules that policies which it names ask in the place of some that it names.
    pub instead: BTreeSet<String>,
}

/// How a policy asks a rule.
struct Ask {
    /// The rule by which it does: a check of the standards may stand in another's place.
    rule: String,
    how: How,
}

enum How {
    Check(&'static Applied),
    Rule(Vec<Part>),
}

impl Ask {
    fn of(requirement: &Requirement, rule: &str) -> Option<Self> {
        let Some(id) = check_of_rule(rule) else {
            return Some(Self { rule: rule.into(), how: How::Rule(requirement.rules.form_of(rule)?) });
        };
        let all = rampart_pss::checks(requirement.level, requirement.version);
        let check = all.iter().find(|it| it.check.id == id || it.check.overrides.contains(&id))?;
        Some(Self { rule: rule_of_check(check.check.id), how: How::Check(check) })
    }

    /// Whether it surely refuses whatever another does.
    fn is_as_strict_as(&self, other: &Self) -> bool {
        match (&self.how, &other.how) {
            (How::Check(one), How::Check(other)) => {
                // What stands in another's place is stricter, but for those that it exempts.
                let decides_alike = one.check.id != other.check.id || one.since == other.since;
                decides_alike && one.exempt.is_none_or(|exempt| other.exempt == Some(exempt))
            }
            (How::Rule(one), How::Rule(other)) => one == other,
            _ => false,
        }
    }
}

impl Policies {
    /// What an exception of a namespace lets pass at a time; `None` where the namespace is not known yet.
    #[must_use]
    pub fn effect(&self, namespace: &str, exception: &Exception, now: Timestamp) -> Option<Effect> {
        let covering = self.covering(namespace, self.labels.get(namespace)?);
        let (named, others): (Vec<&Covering>, Vec<&Covering>) =
            covering.iter().partition(|it| exception.policies.contains(&it.origin));
        let mut effect = Effect::default();
        for rule in exception.rules.keys() {
            let asked = named.iter().filter_map(|it| Ask::of(&it.requirement, rule));
            let (asked, instead): (Vec<Ask>, Vec<Ask>) = asked.partition(|ask| ask.rule == *rule);
            effect.instead.extend(instead.into_iter().map(|ask| ask.rule));
            let mut is_refused = false;
            for other in others.iter().filter(|it| it.requirement.mode == HardeningMode::Enforce) {
                let ask = Ask::of(&other.requirement, rule);
                if let Some(ask) = ask.filter(|ask| !is_lifted(other, &ask.rule, &named, now)) {
                    is_refused |= asked.iter().all(|own| ask.is_as_strict_as(own));
                    effect.refused_by.entry(other.origin.clone()).or_default().insert(rule.clone());
                }
            }
            effect.lets_pass |= !asked.is_empty() && !is_refused;
        }
        Some(effect)
    }
}

/// Whether an exception from a policy lets a rule pass. It does not where the policy shares its admission policy with
/// one that another exception is from: only those count there that name both.
fn is_lifted(policy: &Covering, rule: &str, named: &[&Covering], now: Timestamp) -> bool {
    let floor = |it: &Covering| {
        let is_own = matches!(it.origin, Origin::SecurityPolicy(_));
        (is_own && it.requirement.has_floor()).then(|| it.requirement.standard())
    };
    let shared = floor(policy).is_some_and(|own| named.iter().copied().any(|it| floor(it).as_ref() == Some(&own)));
    !shared && policy.exceptions.iter().any(|it| it.holds(now) && it.rules.contains_key(rule))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::{ClusterSecurityPolicy, PolicyException},
        hardening::ClusterWide,
    };

    fn with(mut json: Value, more: &Value) -> Value {
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json
    }

    fn exception(more: &Value) -> Exception {
        let spec = json!({"policies": [{"kind": "SecurityPolicy", "name": "one"}], "rules": ["pss/privileged"],
            "images": ["**"], "reason": "a test", "expiresAt": "2026-12-31T00:00:00Z"});
        let metadata = json!({"name": "e", "namespace": "shop", "creationTimestamp": "2026-12-01T00:00:00Z"});
        let wire = json!({"metadata": metadata, "spec": with(spec, more)});
        Exception::try_from(&serde_json::from_value::<PolicyException>(wire).unwrap()).unwrap()
    }

    fn hardening(more: &Value) -> Value {
        with(json!({"mode": "Enforce", "podSecurity": {"level": "baseline"}}), more)
    }

    /// Of a namespace of the web tier, with SecurityPolicies and ClusterSecurityPolicies by name.
    fn policies(own: &[(&str, Value)], wide: &[(&str, &str, Value)], exceptions: Vec<Exception>) -> Policies {
        let own = own.iter().map(|(name, hardening)| Covering {
            origin: Origin::SecurityPolicy((*name).to_owned()),
            made: None,
            requirement: Requirement::try_from(&serde_json::from_value(hardening.clone()).unwrap()).unwrap(),
            exceptions: Arc::default(),
        });
        let wide = wide.iter().map(|(name, tier, hardening)| {
            let policy = json!({"metadata": {"name": name}, "spec": {
                "namespaceSelector": {"matchLabels": {"tier": tier}}, "hardening": hardening,
                "exceptions": {"namespaces": ["shop"], "maxDuration": "8760h"}}});
            let policy: ClusterSecurityPolicy = serde_json::from_value(policy).unwrap();
            ((*name).to_owned(), ClusterWide::try_from(&policy).unwrap())
        });
        let labels = BTreeMap::from([("tier".to_owned(), "web".to_owned())]);
        Policies {
            own: Arc::new([("shop".to_owned(), own.collect())].into()),
            wide: Arc::new(wide.collect()),
            labels: Arc::new([("shop".to_owned(), Arc::new(labels))].into()),
            exceptions: Arc::new([("shop".to_owned(), exceptions)].into()),
        }
    }

    /// Whether it lets something pass, and who refuses which rules all the same.
    fn told(policies: &Policies, exception: &Exception) -> (bool, Vec<String>) {
        let effect = policies.effect("shop", exception, Timestamp::UNIX_EPOCH).unwrap();
        let refused = |(origin, rules): (&Origin, &BTreeSet<String>)| {
            let (_, name) = origin.named().unwrap();
            format!("{name}: {}", rules.iter().cloned().collect::<Vec<_>>().join(" "))
        };
        (effect.lets_pass, effect.refused_by.iter().map(refused).collect())
    }

    #[rstest]
    #[case::the_same(json!({}), json!({}), (false, vec!["two: pss/privileged"]))]
    #[case::a_stricter_level(json!({"podSecurity": {"level": "restricted"}}), json!({}), (false, vec!["two: pss/privileged"]))]
    #[case::it_only_warns(json!({"mode": "Warn"}), json!({}), (true, vec![]))]
    #[case::it_asks_nothing_of_this(json!({"podSecurity": {"level": "privileged"}}), json!({}), (true, vec![]))]
    #[case::it_is_named(
        json!({}),
        json!({"policies": [{"kind": "SecurityPolicy", "name": "one"}, {"kind": "SecurityPolicy", "name": "two"}]}),
        (true, vec![])
    )]
    #[case::of_two_rules_one(
        json!({}),
        json!({"rules": ["pss/privileged", "hardening/hostPorts"]}),
        (true, vec!["two: pss/privileged"])
    )]
    #[case::it_asks_otherwise(
        json!({"podSecurity": {"level": "privileged"}, "rules": {"hostPorts": {"allow": [{"min": 80, "max": 81}]}}}),
        json!({"rules": ["hardening/hostPorts"]}),
        (true, vec!["two: hardening/hostPorts"])
    )]
    #[case::it_asks_alike(
        json!({"podSecurity": {"level": "privileged"}, "rules": {"hostPorts": {"allow": [{"min": 80, "max": 80}]}}}),
        json!({"rules": ["hardening/hostPorts"]}),
        (false, vec!["two: hardening/hostPorts"])
    )]
    #[case::what_stands_in_its_place(
        json!({"podSecurity": {"level": "restricted"}}),
        json!({"rules": ["pss/hostPathVolumes"]}),
        (false, vec!["two: pss/hostPathVolumes"])
    )]
    #[case::what_stands_in_its_place_exempts_windows(
        json!({"podSecurity": {"level": "restricted"}}),
        json!({"rules": ["pss/capabilities_baseline"]}),
        (true, vec!["two: pss/capabilities_baseline"])
    )]
    #[case::another_version_decides_alike(
        json!({"podSecurity": {"level": "baseline", "version": "v1.30"}}),
        json!({}),
        (false, vec!["two: pss/privileged"])
    )]
    #[case::another_version_decides_otherwise(
        json!({"podSecurity": {"level": "baseline", "version": "v1.0"}}),
        json!({"rules": ["pss/sysctls"]}),
        (true, vec!["two: pss/sysctls"])
    )]
    fn what_another_policy_refuses_stays_refused(
        #[case] two: Value,
        #[case] more: Value,
        #[case] wanted: (bool, Vec<&str>),
    ) {
        let one = hardening(&json!({"rules": {"hostPorts": {"allow": [{"min": 80, "max": 80}]}}}));
        let policies = policies(&[("one", one), ("two", hardening(&two))], &[], vec![]);
        let (lets_pass, refused) = told(&policies, &exception(&more));
        assert_eq!((lets_pass, refused.iter().map(String::as_str).collect::<Vec<_>>()), wanted);
    }

    #[test]
    fn policies_of_the_cluster_count_where_they_cover_the_namespace() {
        let of = |tier| policies(&[("one", hardening(&json!({})))], &[("wide", tier, hardening(&json!({})))], vec![]);
        assert_eq!(told(&of("web"), &exception(&json!({}))), (false, vec!["wide: pss/privileged".to_owned()]));
        assert_eq!(told(&of("db"), &exception(&json!({}))), (true, vec![]));
        let from = |kind: &str, name: &str| json!({"policies": [{"kind": kind, "name": name}]});
        let from_wide = exception(&from("ClusterSecurityPolicy", "wide"));
        assert_eq!(told(&of("web"), &from_wide), (false, vec!["one: pss/privileged".to_owned()]));
        assert_eq!(of("web").effect("books", &from_wide, Timestamp::UNIX_EPOCH), None, "nothing is known of it");
    }

    #[test]
    fn what_an_exception_of_its_own_lets_pass_is_not_refused() {
        let restricted = json!({"podSecurity": {"level": "restricted"}});
        let permits = || [("permits", "db", json!({"mode": "Disabled", "podSecurity": {"level": "privileged"}}))];
        let from_two =
            |rule: &str| exception(&json!({"policies": [{"kind": "SecurityPolicy", "name": "two"}], "rules": [rule]}));
        let of_rule = |two: &Value, rule: &str, lifted: &str| {
            let own = [("one", hardening(&json!({}))), ("two", hardening(two))];
            let exception = exception(&json!({"rules": [rule]}));
            told(&policies(&own, &permits(), vec![from_two(lifted)]), &exception).0
        };
        assert!(of_rule(&restricted, "pss/privileged", "pss/privileged"));
        assert!(!of_rule(&restricted, "pss/privileged", "pss/hostPorts"));
        // By the rule that is violated there.
        assert!(of_rule(&restricted, "pss/hostPathVolumes", "pss/restrictedVolumes"));
        assert!(!of_rule(&restricted, "pss/hostPathVolumes", "pss/hostPathVolumes"));
        assert!(!of_rule(&json!({}), "pss/privileged", "pss/privileged"), "they share an admission policy");
        let own = [("one", hardening(&json!({}))), ("two", hardening(&restricted))];
        let policies = policies(&own, &permits(), vec![from_two("pss/privileged")]);
        let later = policies.effect("shop", &exception(&json!({})), Timestamp::MAX).unwrap();
        assert!(!later.lets_pass, "it has ended");
    }

    #[test]
    fn a_rule_that_nobody_asks_lets_nothing_pass() {
        let policies = policies(&[("one", hardening(&json!({"podSecurity": {"level": "restricted"}})))], &[], vec![]);
        let of = |rule: &str| {
            let exception = exception(&json!({"rules": [rule]}));
            policies.effect("shop", &exception, Timestamp::UNIX_EPOCH).unwrap()
        };
        assert_eq!(of("hardening/hostPorts"), Effect::default());
        let instead = BTreeSet::from(["pss/restrictedVolumes".to_owned()]);
        assert_eq!(of("pss/hostPathVolumes"), Effect { instead, ..Effect::default() });
    }
}
