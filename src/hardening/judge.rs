//! The verdict on a pod: every policy decides, and the strictest wins.

use std::{borrow::Cow, fmt, sync::Arc};

use jiff::Timestamp;
use rampart_pss::{Level, Pod, Violation, aggregate, explain, explain_except, reasons};

use super::{Covered, Exception, Moved, Requirement, RuleViolation, RulesPod, rule_of_check};
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
#[derive(Debug, Clone, PartialEq)]
pub struct Covering {
    /// Where it comes from.
    pub origin: Origin,
    /// When that was made, which no edit changes; `None` where it is not known.
    pub made: Option<Timestamp>,
    /// What it asks.
    pub requirement: Requirement,
    /// Exceptions from it that are permitted; whether they have ended is for the time of judging.
    pub exceptions: Arc<[Exception]>,
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
#[derive(Debug, Clone, PartialEq)]
pub struct Finding<'p> {
    /// The policy.
    pub covering: &'p Covering,
    /// Checks of the standard that fail.
    pub violations: Vec<Violation>,
    /// Rules that it violates.
    pub rules: Vec<RuleViolation>,
}

/// A rule that a pod violates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Broken {
    /// Id of the rule, as exceptions name it.
    pub rule: String,
    /// The level that brings it, where it is of the standards.
    pub level: Option<Level>,
    /// Where and how.
    pub what: String,
}

/// A pod as it is judged.
#[derive(Debug)]
pub struct Seen<'a> {
    /// As the standards see it.
    pub standards: Cow<'a, Pod<'a>>,
    /// As rules and exceptions see it; `None` where there are none.
    pub rules: Option<RulesPod>,
}

impl<'a> Seen<'a> {
    /// Reads a pod from JSON, with what rules look at where they are asked.
    ///
    /// # Errors
    /// When it has not the shape of a pod.
    pub fn read(json: &'a str, rules: bool) -> serde_json::Result<Self> {
        let rules = rules.then(|| serde_json::from_str(json)).transpose()?;
        Ok(Self { standards: Cow::Owned(serde_json::from_str(json)?), rules })
    }

    /// As it is once it is there: the scheduler has named its node.
    #[must_use]
    pub fn scheduled(self) -> Self {
        Self { rules: self.rules.map(RulesPod::scheduled), ..self }
    }
}

/// Whether some policy asks rules of a pod, or has exceptions.
#[must_use]
pub fn ask_rules(policies: &[Covering]) -> bool {
    policies.iter().any(|covering| !covering.requirement.rules.is_empty() || !covering.exceptions.is_empty())
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

impl Covering {
    /// What it asks at an update that changes nothing that runs: no standard, as the reference does, and rules on what
    /// is changed alone. `None` for nothing.
    #[must_use]
    pub fn of_update(&self, moved: Moved) -> Option<Self> {
        let rules = self.requirement.rules.of_update(moved);
        let requirement = Requirement { level: Level::Privileged, rules, ..self.requirement.clone() };
        (!requirement.rules.is_empty()).then(|| Self { requirement, ..self.clone() })
    }
}

impl Finding<'_> {
    /// What is wrong, in the words of Pod Security Admission and those of the rules:
    /// `PodSecurity "restricted:latest": REASON (DETAIL), ...; hardening/RULE (DETAIL), ...`.
    #[must_use]
    pub fn what(&self) -> String {
        let Requirement { level, version, .. } = &self.covering.requirement;
        let standard = (!self.violations.is_empty())
            .then(|| format!("PodSecurity \"{level}:{version}\": {}", aggregate(&self.violations)));
        let rules: Vec<String> = self.rules.iter().map(ToString::to_string).collect();
        let rules = (!rules.is_empty()).then(|| rules.join(", "));
        standard.into_iter().chain(rules).collect::<Vec<_>>().join("; ")
    }

    /// Why, without saying where: `host namespaces, privileged, hardening/probes`.
    #[must_use]
    pub fn reasons(&self) -> String {
        let checks = (!self.violations.is_empty()).then(|| reasons(&self.violations));
        checks
            .into_iter()
            .chain(self.rules.iter().map(|violation| violation.about.rule()))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// What is wrong, rule by rule, each in its part of [`Self::what`].
    #[must_use]
    pub fn broken(&self) -> Vec<Broken> {
        let of_standard = |violation: &Violation| Broken {
            rule: rule_of_check(violation.check),
            level: Some(violation.level),
            what: aggregate(std::slice::from_ref(violation)),
        };
        let of_rule = |violation: &RuleViolation| Broken {
            rule: violation.about.rule(),
            level: None,
            what: violation.to_string(),
        };
        self.violations.iter().map(of_standard).chain(self.rules.iter().map(of_rule)).collect()
    }
}

impl fmt::Display for Finding<'_> {
    /// What is wrong, and the policy that asks: `... [SecurityPolicy web]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
        self.covering.origin.named().map_or(Ok(()), |(kind, name)| write!(f, " [{kind} {name}]"))
    }
}

/// What each policy that covers a namespace finds wrong with a pod of it at a time.
#[must_use]
pub fn findings<'p>(policies: &'p [Covering], pod: &Seen<'_>, now: Timestamp) -> Vec<Finding<'p>> {
    policies
        .iter()
        .filter(|covering| covering.requirement.mode != HardeningMode::Disabled)
        .filter_map(|covering| finding(covering, &covering.exceptions, pod, now))
        .collect()
}

/// What a policy finds wrong with a pod at a time, but for what some of its exceptions cover.
pub(super) fn finding<'p>(
    covering: &'p Covering,
    exceptions: &[Exception],
    pod: &Seen<'_>,
    now: Timestamp,
) -> Option<Finding<'p>> {
    let Requirement { level, version, rules, .. } = &covering.requirement;
    let covered = Covered::of(exceptions, pod.rules.as_ref(), now);
    let violations = match &covered {
        None => explain(*level, *version, &pod.standards),
        Some(covered) => {
            explain_except(*level, *version, &pod.standards, |check, what| covered.covers(&rule_of_check(check), what))
        }
    };
    let rules = pod.rules.as_ref().map(|pod| rules.violations(pod, covered.as_ref())).unwrap_or_default();
    (!(violations.is_empty() && rules.is_empty())).then_some(Finding { covering, violations, rules })
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
                verdict.denials.push(format!("violates {finding}; to fix, {}", fixes(finding)));
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

/// `set a=x, b=y and remove c and change d`.
fn fixes(finding: &Finding<'_>) -> String {
    let (mut set, mut removed, mut changed) = (vec![], vec![], vec![]);
    for fix in finding.violations.iter().flat_map(|violation| &violation.fixes) {
        match &fix.value {
            Some(value) => set.push(format!("{}={value}", fix.path)),
            None => removed.push(fix.path.to_string()),
        }
    }
    for complaint in finding.rules.iter().flat_map(|violation| &violation.complaints) {
        match complaint.fix {
            Some(value) => set.push(format!("{}={value}", complaint.path)),
            None => changed.push(complaint.path.to_string()),
        }
    }
    let parts = [("set", set), ("remove", removed), ("change", changed)].map(|(verb, mut fields)| {
        fields.dedup();
        (!fields.is_empty()).then(|| format!("{verb} {}", fields.join(", ")))
    });
    parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use rampart_pss::Version;
    use rstest::rstest;

    use super::*;
    use crate::{
        api::{AdmissionPolicy, Fix},
        hardening::Rules,
    };

    fn bare() -> Seen<'static> {
        let standards = serde_json::from_str(r#"{"spec": {"containers": [{"name": "a"}]}}"#).unwrap();
        Seen { standards: Cow::Owned(standards), rules: None }
    }

    fn covering(policy: &str, mode: HardeningMode) -> Covering {
        let (admission_policy, fix) = (AdmissionPolicy::Generate, Fix::Disabled);
        let (level, version, rules) = (Level::Restricted, Version::LATEST, Rules::default());
        let requirement = Requirement { mode, level, version, rules, admission_policy, fix };
        Covering { origin: Origin::SecurityPolicy(policy.into()), made: None, requirement, exceptions: Arc::default() }
    }

    fn bare_pod(policies: &[Covering], subject: Subject) -> Verdict {
        judge(&findings(policies, &bare(), Timestamp::UNIX_EPOCH), subject, Enforcement::InForce)
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
        let policies = [covering("p", HardeningMode::Enforce)];
        let verdict = judge(&findings(&policies, &bare(), Timestamp::UNIX_EPOCH), Subject::Pod, Enforcement::Paused);
        assert!(verdict.admitted);
        assert_eq!((verdict.warnings.len(), verdict.audit.len()), (1, 1));
    }

    #[test]
    fn an_undecided_verdict_refuses() {
        assert!(!Verdict::default().admitted);
    }
}
