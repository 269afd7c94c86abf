//! What an admission policy refuses, and in which words: everything about it but where it holds.

use k8s_openapi::api::admissionregistration::v1::{Validation, Variable};
use sha2::{Digest as _, Sha256};

use super::{
    exceptions::{self, Excepted},
    rules,
    standards::{self, Form, shared},
};
use crate::hardening::{
    Standard,
    cel::{join_present, string},
};

/// The variables and the validation of an admission policy.
#[derive(Clone)]
pub(super) struct Content {
    /// What its names begin with.
    pub(super) base: String,
    pub(super) standard: Standard,
    pub(super) variables: Vec<Variable>,
    pub(super) validation: Validation,
}

impl Content {
    /// `None` where nothing is to be refused, or where a check has no form here: it would be a floor with
    /// a hole.
    pub(super) fn of(standard: &Standard) -> Option<Self> {
        Self::excepting(standard, &Excepted::new())
    }

    /// The same with exceptions; its names are those without, so that one that comes or goes changes the
    /// policy in place.
    pub(super) fn with(&self, excepted: &Excepted<'_>) -> Option<Self> {
        let content = Self::excepting(&self.standard, excepted)?;
        Some(Self { base: self.base.clone(), ..content })
    }

    fn excepting(standard: &Standard, excepted: &Excepted<'_>) -> Option<Self> {
        let Standard { level, version, rules } = standard;
        let named = exceptions::rules(excepted);
        let lift = |rule: String, form: Form| {
            if !named.contains(rule.as_str()) {
                return form;
            }
            exceptions::except(&rule, &form.unless(&format!("!{}", exceptions::ALL)))
        };
        let checks: Vec<(String, Form)> = rampart_pss::checks(*level, *version)
            .iter()
            .map(|applied| {
                let id = applied.check.id;
                Some((format!("violates_{id}"), lift(format!("pss/{id}"), standards::form(applied)?)))
            })
            .collect::<Option<_>>()?;
        let of_rules: Vec<(String, Form)> = rules
            .forms()
            .map(|(about, parts)| {
                let id = format!("hardening/{}", about.id);
                let lifted = named.contains(id.as_str());
                let (name, form) = rules::form(about, &parts, lifted);
                (name, if lifted { exceptions::except(&id, &form) } else { form })
            })
            .collect();
        if checks.is_empty() && of_rules.is_empty() {
            return None;
        }
        let mut variables = shared();
        if !excepted.is_empty() {
            variables.extend(exceptions::variables(excepted));
        }
        for (name, form) in checks.iter().chain(&of_rules) {
            for variable in &form.variables {
                // Two checks may look at the same thing.
                if !variables.contains(variable) {
                    variables.push(variable.clone());
                }
            }
            variables.push((name.clone(), form.violated.clone()));
            // Each by itself: an expression has at most 100,000 characters.
            variables.push((format!("said_{name}"), form.said.clone()));
        }
        let violated: Vec<String> =
            checks.iter().chain(&of_rules).map(|(name, _)| format!("variables.{name}")).collect();
        variables.push(("refused".into(), violated.join(" || ")));
        let said = |forms: &[(String, Form)]| {
            let said: Vec<String> =
                forms.iter().map(|(name, _)| format!("(variables.{name} ? variables.said_{name} : '')")).collect();
            join_present(&said, ", ")
        };
        let of_standard = format!("PodSecurity \"{level}:{version}\"");
        let what = if of_rules.is_empty() {
            format!("{} + {}", string(&format!("{of_standard}: ")), said(&checks))
        } else {
            variables.push(("saidOfStandard".into(), if checks.is_empty() { "''".into() } else { said(&checks) }));
            let named = format!(
                "(variables.saidOfStandard == '' ? '' : {} + variables.saidOfStandard)",
                string(&format!("{of_standard}: "))
            );
            join_present(&[named, said(&of_rules)], "; ")
        };
        // The expression is evaluated for pods that pass, too.
        let message = format!(
            "!variables.refused ? '' : 'violates ' + {what} + ' [kubectl get rsp,rcsp -n ' + request.namespace + ']'"
        );
        let fallback = if rules.is_empty() { of_standard } else { format!("{of_standard} or rules of hardening") };
        let validation = Validation {
            expression: "!variables.refused".into(),
            message: Some(format!("violates {fallback} [kubectl get rsp,rcsp]")),
            message_expression: Some(message),
            reason: Some("Forbidden".into()),
        };
        let variables: Vec<Variable> =
            variables.into_iter().map(|(name, expression)| Variable { name, expression }).collect();
        let mut digest = Sha256::new();
        for variable in &variables {
            digest.update(format!("{}\0{}\0", variable.name, variable.expression));
        }
        digest.update(validation.message_expression.as_deref().unwrap_or_default());
        // Two that are spelt differently are two, though they may refuse the same.
        digest.update(format!("{rules:?}"));
        let base = format!("rampart-{level}-{version}-{}", short(digest));
        Some(Self { base, standard: standard.clone(), variables, validation })
    }
}

/// Characters that differ where the content does: enough of them that nobody finds two contents with the
/// same, for tenants choose some of the text.
pub(super) fn short(digest: Sha256) -> String {
    hex::encode(digest.finalize()).chars().take(32).collect()
}
