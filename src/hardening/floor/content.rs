//! What an admission policy refuses, and in which words: everything about it but where it holds.

use k8s_openapi::api::admissionregistration::v1::{Validation, Variable};
use sha2::{Digest as _, Sha256};

use super::{
    exceptions::{self, ByNamespace, LeftOut, Lifted},
    form::{Form, Violated},
    rules,
    standards::{self, shared},
    updates,
};
use crate::hardening::{
    Standard,
    cel::{join_present, string},
    rule_of_check,
    rules::{About, Part},
};

/// The variables and the validation of an admission policy.
#[derive(Clone)]
pub(super) struct Content {
    /// What its names begin with.
    pub(super) base: String,
    pub(super) standard: Standard,
    pub(super) variables: Vec<Variable>,
    pub(super) validation: Validation,
    /// Exceptions that there was no room for.
    pub(super) left_out: LeftOut,
}

impl Content {
    /// `None` where nothing is to be refused, or where a check has no form here: it would be a floor with
    /// a hole.
    pub(super) fn of(standard: &Standard) -> Option<Self> {
        Self::excepting(standard, &ByNamespace::new())
    }

    /// The same with exceptions; its names are those without, so that one that comes or goes changes the
    /// policy in place.
    pub(super) fn with(&self, excepted: &ByNamespace<'_>) -> Option<Self> {
        let content = Self::excepting(&self.standard, excepted)?;
        Some(Self { base: self.base.clone(), ..content })
    }

    /// What its admission policy for a part of the namespaces is called that ask for it by name.
    pub(super) fn shard_name(&self, shard: usize) -> String {
        format!("{}-{shard}", self.base)
    }

    fn excepting(standard: &Standard, excepted: &ByNamespace<'_>) -> Option<Self> {
        let Standard { level, version, rules } = standard;
        let lifted = Lifted::by(excepted);
        let (checks, of_rules) = (checks(standard, &lifted)?, of_rules(standard, &lifted));
        if checks.is_empty() && of_rules.is_empty() {
            return None;
        }
        let (mut variables, mut left_out) = (shared(), LeftOut::new());
        variables.extend(updates::variable(rules));
        if !excepted.is_empty() {
            let (more, out) = exceptions::variables(excepted);
            variables.extend(more);
            left_out = out;
        }
        for (name, form) in checks.iter().chain(&of_rules) {
            for variable in &form.variables {
                // Two checks may look at the same thing.
                if !variables.contains(variable) {
                    variables.push(variable.clone());
                }
            }
            variables.push((name.clone(), form.violated.expression()));
            // Each by itself: an expression has at most 100,000 characters.
            variables.push((format!("said_{name}"), form.said.clone()));
        }
        // Rules may be long, and stay apart.
        let mut violated = Violated::any(checks.iter().map(|(_, form)| &form.violated));
        violated.extend(of_rules.iter().map(|(name, _)| format!("variables.{name}")));
        variables.push(("refused".into(), violated.join(" || ")));
        variables.push(("said_of_checks".into(), said(&checks)));
        let of_standard = format!("PodSecurity \"{level}:{version}\"");
        let validation = validation(&of_standard, &of_rules);
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
        Some(Self { base, standard: standard.clone(), variables, validation, left_out })
    }
}

/// Variables and forms of checks or rules.
type Forms = Vec<(String, Form)>;

/// The checks of the standard; `None` where one has no form.
fn checks(standard: &Standard, lifted: &Lifted<'_>) -> Option<Forms> {
    let form = |applied: &rampart_pss::Applied| {
        let id = rule_of_check(applied.check.id);
        let form = standards::form(applied, &lifted.spared(&id))?;
        let lift = |form: Form| exceptions::except(&id, &form.only_if(&format!("!{}", exceptions::ALL)));
        let form = if lifted.whole(&id) { lift(form) } else { form };
        Some((format!("violates_{}", applied.check.id), updates::judged(form, None, &standard.rules)))
    };
    rampart_pss::checks(standard.level, standard.version).iter().map(form).collect()
}

/// The rules beyond it.
fn of_rules(standard: &Standard, lifted: &Lifted<'_>) -> Forms {
    let form = |(about, parts): (&About, Vec<Part>)| {
        let id = about.rule();
        let whole = lifted.whole(&id);
        let (name, form) = rules::form(about, &parts, whole, &lifted.spared(&id));
        let form = if whole { exceptions::except(&id, &form) } else { form };
        (name, updates::judged(form, Some(about), &standard.rules))
    };
    standard.rules.forms().map(form).collect()
}

/// What is said of those that are violated, joined.
fn said(forms: &Forms) -> String {
    let said = forms.iter().map(|(name, _)| format!("(variables.{name} ? variables.said_{name} : '')"));
    if forms.is_empty() { "''".into() } else { join_present(&said.collect::<Vec<_>>(), ", ") }
}

/// Refuses, in the words of the webhook: the standard and its failed checks, then violated rules.
fn validation(of_standard: &str, of_rules: &Forms) -> Validation {
    let checks = format!(
        "(variables.said_of_checks == '' ? '' : {} + variables.said_of_checks)",
        string(&format!("{of_standard}: "))
    );
    let what = if of_rules.is_empty() { checks } else { join_present(&[checks, said(of_rules)], "; ") };
    // The expression is evaluated for pods that pass, too.
    let message = format!(
        "!variables.refused ? '' : 'violates ' + {what} + ' [kubectl get rsp,rcsp -n ' + request.namespace + ']'"
    );
    let fallback = if of_rules.is_empty() { "" } else { " or rules of hardening" };
    Validation {
        expression: "!variables.refused".into(),
        message: Some(format!("violates {of_standard}{fallback} [kubectl get rsp,rcsp]")),
        message_expression: Some(message),
        reason: Some("Forbidden".into()),
    }
}

/// Characters that differ where the content does: enough of them that nobody finds two contents with the
/// same, for tenants choose some of the text.
pub(super) fn short(digest: Sha256) -> String {
    hex::encode(digest.finalize()).chars().take(32).collect()
}
