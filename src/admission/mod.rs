//! From an AdmissionReview to its answer: which object it is about, which policies cover it, and what
//! they say.

mod debug;
mod fix;
mod own_kinds;
mod preview;
mod review;
mod rules;
mod target;
mod update;

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::value::RawValue;

pub use fix::{Fixed, fix};
pub use own_kinds::{decide_api_key, is_of_api_key};
pub use preview::Preview;
pub use review::{Answer, BadReview, Operation, Request, Review, Status};
pub use rules::{
    ENFORCE, ENFORCE_CONFIGURATION, FIX_CONFIGURATION, MUTATE, VALIDATE, WEBHOOK_CONFIGURATION, enforce_configuration,
    fix_configuration, pods_client, webhook_configuration,
};
pub use target::{Target, template_path};

use crate::{
    api::HardeningMode,
    hardening::{Covering, Enforcement, Seen, Subject, ask_rules, findings, judge},
};

/// Decides a request at a time. `policies` are those that cover the request's namespace. ApiKeys are decided by
/// [`decide_api_key`].
#[must_use]
pub fn decide(request: &Request<'_>, policies: &[Covering], enforcement: Enforcement, now: Timestamp) -> Answer {
    if request.kind.group == crate::GROUP {
        return own_kinds::decide(request);
    }
    let Some(target) = Target::of(request) else { return Answer::allow() };
    let asked = policies.iter().any(|covering| covering.requirement.mode != HardeningMode::Disabled);
    if !asked {
        return Answer::allow();
    }
    let subject = target.subject();
    let same = |(new, old): (&RawValue, &RawValue)| update::is_insignificant(new.get(), old.get());
    let insignificant = subject == Subject::Pod
        && request.operation == Operation::Update
        && request.object().zip(request.old_object).is_some_and(same);
    if insignificant {
        return Answer::allow();
    }
    match seen(request, target, policies) {
        Ok(Some(pod)) => answer(request, (policies, enforcement, now), subject, &pod),
        // There is no object; or a template kind without a template, such as a ReplicationController that lets
        // the API server refuse it.
        Ok(None) => Answer::allow(),
        Err(error) if subject == Subject::Pod => {
            Answer::deny(400, "BadRequest", format!("the object of the review can't be read: {error}"))
        }
        Err(error) => Answer::allow().with_warning(format!("the pod template can't be read: {error}")),
    }
}

fn seen<'a>(request: &'a Request<'_>, target: Target, policies: &[Covering]) -> serde_json::Result<Option<Seen<'a>>> {
    let standards = if let Some((pod, _)) = &request.new_pod {
        Cow::Borrowed(pod)
    } else {
        let Some(object) = request.object() else { return Ok(None) };
        let Some(pod) = target.pod(object.get())? else { return Ok(None) };
        Cow::Owned(pod)
    };
    if !ask_rules(policies) {
        return Ok(Some(Seen { standards, rules: None }));
    }
    let Some(object) = request.object() else { return Ok(None) };
    Ok(Some(Seen { standards, rules: target.pod(object.get())? }))
}

fn answer(
    request: &Request<'_>,
    (policies, enforcement, now): (&[Covering], Enforcement, Timestamp),
    subject: Subject,
    pod: &Seen<'_>,
) -> Answer {
    let verdict = judge(&findings(policies, pod, now), subject, enforcement);
    let mut answer = if verdict.admitted {
        Answer::allow()
    } else {
        let name = request.name.as_deref().unwrap_or_default();
        let help = debug::profile(request, policies, now);
        let help = help.map(|profile| format!("; `kubectl debug --profile={profile}` would pass"));
        let what = verdict.denials.join("; ") + &help.unwrap_or_default();
        Answer::deny(403, "Forbidden", format!("pods \"{name}\" is forbidden: {what}"))
    };
    answer.warnings = verdict.warnings;
    if subject == Subject::Template {
        answer.warnings.extend(fix::told_of_template(request, policies, now));
    }
    let enforced: Vec<String> = policies
        .iter()
        .filter(|covering| covering.requirement.mode == HardeningMode::Enforce && subject == Subject::Pod)
        .map(|covering| format!("{}:{}", covering.requirement.level, covering.requirement.version))
        .collect();
    if !enforced.is_empty() {
        answer.audit_annotations.insert("enforce-policy".into(), enforced.join(", "));
    }
    if !verdict.audit.is_empty() {
        answer.audit_annotations.insert("audit-violations".into(), verdict.audit.join("; "));
    }
    answer
}
