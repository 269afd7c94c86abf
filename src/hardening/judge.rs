//! The verdict on a pod: every policy decides, and the strictest wins.

use std::fmt;

use rampart_pss::{Pod, Violation, aggregate, explain};

use super::Requirement;
use crate::api::HardeningMode;

/// Where a requirement comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A ClusterSecurityPolicy of this name.
    ClusterSecurityPolicy(String),
    /// A SecurityPolicy of this name, in the pod's namespace.
    SecurityPolicy(String),
    /// Flags of a command.
    CommandLine,
}

/// A policy that covers a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covering {
    /// Where it comes from.
    pub origin: Origin,
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

/// What one policy finds wrong with a pod; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'p> {
    /// The policy.
    pub covering: &'p Covering,
    /// What is wrong.
    pub violations: Vec<Violation>,
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

impl Origin {
    /// Kind and name, where there are some: `SecurityPolicy web`.
    #[must_use]
    pub fn named(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::ClusterSecurityPolicy(name) => Some(("ClusterSecurityPolicy", name)),
            Self::SecurityPolicy(name) => Some(("SecurityPolicy", name)),
            Self::CommandLine => None,
        }
    }
}

impl fmt::Display for Finding<'_> {
    /// `PodSecurity "restricted:latest": REASON (DETAIL), ... [SecurityPolicy web]`, the words of Pod
    /// Security Admission and the policy that asks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement { level, version, .. } = self.covering.requirement;
        write!(f, "PodSecurity \"{level}:{version}\": {}", aggregate(&self.violations))?;
        self.covering.origin.named().map_or(Ok(()), |(kind, name)| write!(f, " [{kind} {name}]"))
    }
}

/// What each policy that covers a namespace finds wrong with a pod of it.
#[must_use]
pub fn findings<'p>(policies: &'p [Covering], pod: &Pod<'_>) -> Vec<Finding<'p>> {
    policies
        .iter()
        .filter(|covering| covering.requirement.mode != HardeningMode::Disabled)
        .map(|covering| {
            let Requirement { level, version, .. } = covering.requirement;
            Finding { covering, violations: explain(level, version, pod) }
        })
        .filter(|finding| !finding.violations.is_empty())
        .collect()
}

/// Whether what is enforced is refused, or only warned about for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// It is refused.
    InForce,
    /// Somebody has broken the glass: it is warned about.
    Paused,
}

/// What becomes of a pod, or of an object with a pod template.
#[must_use]
pub fn judge(findings: &[Finding<'_>], subject: Subject, enforcement: Enforcement) -> Verdict {
    let mut verdict = Verdict { admitted: true, ..Verdict::default() };
    for finding in findings {
        match (finding.covering.requirement.mode, subject) {
            (HardeningMode::Enforce, Subject::Pod) if enforcement == Enforcement::InForce => {
                verdict.admitted = false;
                verdict.denials.push(format!("violates {finding}; to fix, {}", fixes(&finding.violations)));
            }
            (HardeningMode::Enforce | HardeningMode::Warn, _) => {
                verdict.warnings.push(format!("would violate {finding}"));
            }
            _ => {}
        }
        verdict.audit.push(format!("would violate {finding}"));
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
    let set: Vec<String> = all().filter_map(|fix| Some(format!("{}={}", fix.path, fix.value.as_deref()?))).collect();
    let removed: Vec<String> = all().filter(|fix| fix.value.is_none()).map(|fix| fix.path.to_string()).collect();
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
    use crate::api::AdmissionPolicy;

    fn covering(policy: &str, mode: HardeningMode) -> Covering {
        let admission_policy = AdmissionPolicy::Generate;
        let requirement = Requirement { mode, level: Level::Restricted, version: Version::LATEST, admission_policy };
        Covering { origin: Origin::SecurityPolicy(policy.into()), requirement }
    }

    fn bare_pod(policies: &[Covering], subject: Subject) -> Verdict {
        let pod = serde_json::from_str(r#"{"spec": {"containers": [{"name": "a"}]}}"#).unwrap();
        judge(&findings(policies, &pod), subject, Enforcement::InForce)
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
                r#"; to fix, set spec.containers[0].securityContext.allowPrivilegeEscalation=false, spec.containers[0].securityContext.capabilities.drop=["ALL"], spec.securityContext.runAsNonRoot=true, spec.securityContext.seccompProfile={"type":"RuntimeDefault"}"#
            ),
            "{:?}",
            verdict.denials
        );
    }

    #[test]
    fn a_pause_turns_refusals_into_warnings() {
        let pod = serde_json::from_str(r#"{"spec": {"containers": [{"name": "a"}]}}"#).unwrap();
        let policies = [covering("p", HardeningMode::Enforce)];
        let verdict = judge(&findings(&policies, &pod), Subject::Pod, Enforcement::Paused);
        assert!(verdict.admitted);
        assert_eq!((verdict.warnings.len(), verdict.audit.len()), (1, 1));
    }

    #[test]
    fn an_undecided_verdict_refuses() {
        assert!(!Verdict::default().admitted);
    }
}
