//! The verdict on a pod: every policy decides, and the strictest wins.

use rampart_pss::{Pod, Violation, aggregate, evaluate};

use super::Requirement;
use crate::api::HardeningMode;

/// A policy that covers a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covering {
    /// Name of the SecurityPolicy.
    pub policy: String,
    /// What it asks.
    pub requirement: Requirement,
}

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A pod, which may be refused.
    Pod,
    /// An object with a pod template: its pods are refused when they come, it is only warned about.
    Template,
}

/// What policies say of a pod. The default refuses: code that forgets to decide must not admit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is admitted.
    pub admitted: bool,
    /// Why not, each naming its policy.
    pub denials: Vec<String>,
    /// What the client is told.
    pub warnings: Vec<String>,
    /// What the audit log is told.
    pub audit: Vec<String>,
}

/// Judges a pod, or the pod of a template, by every policy that covers its namespace.
#[must_use]
pub fn judge(policies: &[Covering], subject: Subject, pod: &Pod<'_>) -> Verdict {
    let mut verdict = Verdict { admitted: true, ..Verdict::default() };
    for Covering { policy, requirement } in policies {
        if requirement.mode == HardeningMode::Disabled {
            continue;
        }
        let violations = evaluate(requirement.level, requirement.version, pod);
        if violations.is_empty() {
            continue;
        }
        let standard = format!("PodSecurity \"{}:{}\"", requirement.level, requirement.version);
        let what = format!("{standard}: {} [SecurityPolicy {policy}]", aggregate(&violations));
        match (requirement.mode, subject) {
            (HardeningMode::Enforce, Subject::Pod) => {
                verdict.admitted = false;
                verdict.denials.push(format!("violates {what}; to fix, {}", fixes(&violations)));
            }
            (HardeningMode::Enforce | HardeningMode::Warn, _) => verdict.warnings.push(format!("would violate {what}")),
            _ => {}
        }
        verdict.audit.push(format!("would violate {what}"));
    }
    if !verdict.admitted {
        // As Pod Security Admission: who is refused is not also warned.
        verdict.warnings.clear();
    }
    verdict
}

/// `set a=x, b=y and remove c`.
fn fixes(violations: &[Violation]) -> String {
    let all = || violations.iter().flat_map(|violation| &violation.fixes);
    let set: Vec<String> = all().filter_map(|fix| Some(format!("{}={}", fix.path, fix.value?))).collect();
    let removed: Vec<&str> = all().filter(|fix| fix.value.is_none()).map(|fix| fix.path.as_str()).collect();
    let mut parts = vec![];
    if !set.is_empty() {
        parts.push(format!("set {}", set.join(", ")));
    }
    if !removed.is_empty() {
        parts.push(format!("remove {}", removed.join(", ")));
    }
    parts.join(" and ")
}

#[cfg(test)]
mod tests {
    use rampart_pss::{Level, Version};
    use rstest::rstest;

    use super::*;

    fn covering(policy: &str, mode: HardeningMode) -> Covering {
        let requirement = Requirement { mode, level: Level::Restricted, version: Version::LATEST };
        Covering { policy: policy.into(), requirement }
    }

    fn bare_pod(policies: &[Covering], subject: Subject) -> Verdict {
        let pod = serde_json::from_str(r#"{"spec": {"containers": [{"name": "a"}]}}"#).unwrap();
        judge(policies, subject, &pod)
    }

    #[rstest]
    #[case(HardeningMode::Disabled, Subject::Pod, (true, 0, 0, 0))]
    #[case(HardeningMode::Audit, Subject::Pod, (true, 0, 0, 1))]
    #[case(HardeningMode::Warn, Subject::Pod, (true, 0, 1, 1))]
    #[case(HardeningMode::Enforce, Subject::Pod, (false, 1, 0, 1))]
    #[case(HardeningMode::Enforce, Subject::Template, (true, 0, 1, 1))]
    fn each_mode(#[case] mode: HardeningMode, #[case] subject: Subject, #[case] wanted: (bool, usize, usize, usize)) {
        let verdict = bare_pod(&[covering("p", mode)], subject);
        assert_eq!((verdict.admitted, verdict.denials.len(), verdict.warnings.len(), verdict.audit.len()), wanted);
    }

    #[test]
    fn the_strictest_wins_and_each_message_names_its_policy() {
        let verdict =
            bare_pod(&[covering("soft", HardeningMode::Warn), covering("hard", HardeningMode::Enforce)], Subject::Pod);
        assert!(!verdict.admitted);
        assert!(verdict.denials[0].contains("[SecurityPolicy hard]"), "{:?}", verdict.denials);
        assert!(verdict.warnings.is_empty());
        assert_eq!(verdict.audit.len(), 2);
    }

    #[test]
    fn a_denial_says_what_to_do() {
        let verdict = bare_pod(&[covering("p", HardeningMode::Enforce)], Subject::Pod);
        assert!(
            verdict.denials[0].ends_with(
                r#"; to fix, set spec.containers[0].securityContext.capabilities.drop=["ALL"], spec.securityContext.runAsNonRoot=true, spec.securityContext.seccompProfile.type="RuntimeDefault""#
            ),
            "{:?}",
            verdict.denials
        );
    }

    #[test]
    fn an_undecided_verdict_refuses() {
        assert!(!Verdict::default().admitted);
    }
}
