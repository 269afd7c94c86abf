//! At which updates a pod is judged. Those of the reference change what runs in it. At others nothing is said of what
//! they leave alone, but rules on what Kubernetes lets anybody add to a pod that is there must not be walked around.

use k8s_openapi::api::admissionregistration::v1::MatchCondition;

use super::form::Form;
use crate::hardening::{RULES, Rules, rules::About};

/// The reference's `isSignificantPodUpdate`: an update that changes neither number nor image of
/// containers, and adds no ephemeral one, is not judged.
const SIGNIFICANT: &str = "request.operation == 'CREATE' || !(\
    object.spec.containers.map(c, c.?image.orValue('')) == oldObject.spec.containers.map(c, c.?image.orValue('')) && \
    object.spec.?initContainers.orValue([]).map(c, c.?image.orValue('')) == \
    oldObject.spec.?initContainers.orValue([]).map(c, c.?image.orValue('')) && \
    object.spec.?ephemeralContainers.orValue([]).all(c, oldObject.spec.?ephemeralContainers.orValue([]).exists(o, \
    o.name == c.name && o.?image.orValue('') == c.?image.orValue(''))))";

/// Whether it is such an update, where an admission policy looks at others, too.
const VARIABLE: &str = "significant";

/// The match condition under which a webhook is asked about a pod: whatever rules it knows.
#[must_use]
pub fn significant() -> MatchCondition {
    condition(RULES.iter().copied())
}

/// The match condition under which a pod is judged by any of these rules, or a standard.
pub(super) fn condition(rules: impl Iterator<Item = &'static About>) -> MatchCondition {
    let all: Vec<&str> = [SIGNIFICANT].into_iter().chain(rules.filter_map(About::changed)).collect();
    MatchCondition { name: "significant".into(), expression: all.join(" || ") }
}

/// The variable that [`judged`] needs, if any.
pub(super) fn variable(rules: &Rules) -> Option<(String, String)> {
    looks_at_others(rules).then(|| (VARIABLE.into(), SIGNIFICANT.into()))
}

/// The form of a check, or of a rule, among rules: at no update that it is not about.
pub(super) fn judged(form: Form, about: Option<&About>, rules: &Rules) -> Form {
    if !looks_at_others(rules) {
        return form;
    }
    let changed = about.and_then(About::changed).map(|changed| format!(" || {changed}"));
    form.only_if(&format!("(variables.{VARIABLE}{})", changed.unwrap_or_default()))
}

fn looks_at_others(rules: &Rules) -> bool {
    rules.asked().any(|about| about.changed().is_some())
}

#[cfg(test)]
mod tests {
    use rampart_pss::{Level, Version};
    use serde_json::{Value, json};

    use super::*;
    use crate::hardening::{Demand, Standard, compile};

    /// The match condition, and the variables, of what enforces a standard and rules.
    fn enforced(rules: Value) -> (String, Vec<(String, String)>) {
        let wire: crate::api::Rules = serde_json::from_value(rules).unwrap();
        let rules = Rules::try_from(&wire).unwrap();
        let standard = Standard { level: Level::Restricted, version: Version::LATEST, rules };
        let namespaces = [("a".to_owned(), [(standard, vec![])].into())].into();
        let floors = compile(&Demand { namespaces, ..Demand::default() });
        let spec = floors[0].policy.spec.clone().unwrap();
        let condition = spec.match_conditions.unwrap().into_iter().find(|it| it.name == "significant").unwrap();
        let variables = spec.variables.unwrap().into_iter().map(|it| (it.name, it.expression));
        (condition.expression, variables.collect())
    }

    #[test]
    fn without_rules_on_what_may_be_added_it_is_the_references_test() {
        let (condition, variables) = enforced(json!({"probes": ["liveness"]}));
        assert_eq!(condition, SIGNIFICANT);
        assert!(variables.iter().all(|(name, text)| name != VARIABLE && !text.contains("oldObject")), "{variables:?}");
    }

    #[test]
    fn what_is_added_is_judged_by_the_rule_on_it_alone() {
        let (condition, variables) = enforced(json!({"probes": ["liveness"], "tolerations": {"forbid": ["role"]}}));
        let changed = "object.spec.?tolerations.orValue([]) != oldObject.spec.?tolerations.orValue([])";
        assert_eq!(condition, format!("{SIGNIFICANT} || {changed}"));
        let mut judged = 0;
        for (name, text) in &variables {
            let wanted = match name.as_str() {
                "breaks_tolerations" => format!("(variables.significant || {changed}) && ("),
                name if name.starts_with("breaks_") || name.starts_with("violates_") => {
                    "(variables.significant) && (".into()
                }
                _ => continue,
            };
            assert!(text.starts_with(&wanted), "{name}: {text}");
            judged += 1;
        }
        assert!(judged > 10, "{variables:?}");
        let at = |wanted: &str| variables.iter().position(|(name, _)| name == wanted).unwrap();
        assert!(at(VARIABLE) < at("breaks_tolerations"), "the API server reads them in order");
    }

    #[test]
    fn webhooks_are_asked_about_all_that_may_be_added() {
        let expression = significant().expression;
        for field in ["nodeSelector", "tolerations"] {
            assert!(expression.contains(&format!("oldObject.spec.?{field}")), "{expression}");
        }
    }
}
