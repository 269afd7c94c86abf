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

pub use fix::{Fixed, fix};
pub use own_kinds::{decide_api_key, is_of_api_key};
pub use preview::Preview;
pub use review::{Answer, BadReview, Operation, Request, Review, Status};
pub use rules::{
    ENFORCE, ENFORCE_CONFIGURATION, FIX_CONFIGURATION, MUTATE, VALIDATE, WEBHOOK_CONFIGURATION, WEBHOOK_SERVICE,
    enforce_configuration, fix_configuration, pods_client, webhook_configuration,
};
pub use target::{Target, template_path};

use crate::{
    api::HardeningMode,
    hardening::{Covering, Enforcement, Moved, Seen, Subject, ask_rules, findings, judge},
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
    let narrowed: Vec<Covering>;
    let policies = match insignificant(request, subject) {
        None => policies,
        Some(moved) => {
            narrowed = policies.iter().filter_map(|covering| covering.of_update(moved)).collect();
            narrowed.as_slice()
        }
    };
    if policies.is_empty() {
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

/// What an update of a pod changes that is judged, where it changes nothing that runs.
fn insignificant(request: &Request<'_>, subject: Subject) -> Option<Moved> {
    if subject != Subject::Pod || request.operation != Operation::Update {
        return None;
    }
    let (new, old) = request.object().zip(request.old_object)?;
    update::insignificant(new.get(), old.get())
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
    let seen = Seen { standards, rules: target.pod(object.get())? };
    let is_new = request.operation == Operation::Create || target.subject() == Subject::Template;
    Ok(Some(if is_new { seen } else { seen.scheduled() }))
}

fn answer(
    request: &Request<'_>,
    (policies, enforcement, now): (&[Covering], Enforcement, Timestamp),
    subject: Subject,
    pod: &Seen<'_>,
) -> Answer {
    let verdict = judge(&findings(policies, pod, now), subject, enforcement);
    let help = |silent: HardeningMode| {
        let profile = debug::profile(request, policies, silent, now);
        profile.map(|profile| format!("; `kubectl debug --profile={profile}` would pass")).unwrap_or_default()
    };
    let mut answer = if verdict.admitted {
        Answer::allow()
    } else {
        let name = request.name.as_deref().unwrap_or_default();
        let what = verdict.denials.join("; ") + &help(HardeningMode::Warn);
        Answer::deny(403, "Forbidden", format!("pods \"{name}\" is forbidden: {what}"))
    };
    answer.warnings = verdict.warnings;
    // As with denials: once, at the end.
    if let Some(last) = answer.warnings.last_mut() {
        last.push_str(&help(HardeningMode::Audit));
    }
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
