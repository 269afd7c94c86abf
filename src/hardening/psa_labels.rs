//! Pod Security Admission's labels of a namespace, as policies that ask the same (KEP-2579;
//! `k8s.io/pod-security-admission`, api/helpers.go).

use std::collections::BTreeMap;

use rampart_pss::{Level, Version};
use serde_json::{Value, json};

use super::is_system_namespace;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// A level and a version of the standards.
type Asked = (Level, Version);

/// What labels ask.
struct Labels<'l> {
    labels: &'l BTreeMap<String, String>,
    /// What can't be read, and what Pod Security Admission makes of it.
    remarks: Vec<String>,
}

impl Labels<'_> {
    /// What the labels of a mode ask; a level that can't be read counts as `unreadable`.
    fn asked(&mut self, mode: &str, unreadable: Level) -> Option<(Option<Level>, Option<Version>)> {
        let (level, version) = (format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version"));
        let level = self.labels.get(&level).map(|text| {
            text.parse().unwrap_or_else(|error| {
                self.remarks.push(format!("{level} {error}: it counts as {unreadable}"));
                unreadable
            })
        });
        let version = self.labels.get(&version).map(|text| {
            text.parse().unwrap_or_else(|error| {
                self.remarks.push(format!("{version} {error}: it counts as latest"));
                Version::LATEST
            })
        });
        (level.is_some() || version.is_some()).then_some((level, version))
    }
}

/// SecurityPolicies that ask what the labels of a namespace ask, and what their reader should know.
///
/// What one policy asks anyway is not asked twice: a refusal is audited too, and is a warning for templates.
#[must_use]
pub fn policies(namespace: &str, labels: &BTreeMap<String, String>) -> (Vec<Value>, Vec<String>) {
    let mut labels = Labels { labels, remarks: vec![] };
    let whole = |asked: Option<(Option<Level>, Option<Version>)>| -> Asked {
        let (level, version) = asked.unwrap_or_default();
        (level.unwrap_or(Level::Privileged), version.unwrap_or(Version::LATEST))
    };
    let enforce = whole(labels.asked("enforce", Level::Restricted));
    // Warnings follow what is enforced only where that could be read.
    let readable = labels.labels.get(&format!("{PREFIX}enforce")).is_none_or(|text| text.parse::<Level>().is_ok());
    let followed = if readable { enforce } else { (Level::Privileged, Version::LATEST) };
    let audit = whole(labels.asked("audit", Level::Privileged));
    let warn = match labels.asked("warn", Level::Privileged) {
        // Who enforces and says nothing of warnings is warned of what is enforced.
        None => followed,
        Some((None, version)) => (followed.0, version.unwrap_or(followed.1)),
        asked => whole(asked),
    };
    let mut asked: Vec<(&str, Asked)> = vec![];
    for (mode, (level, version)) in [("Enforce", enforce), ("Warn", warn), ("Audit", audit)] {
        let covered = asked.iter().any(|(_, (other, at))| *other >= level && *at == version);
        if level != Level::Privileged && !covered {
            asked.push((mode, (level, version)));
        }
    }
    if is_system_namespace(namespace) && !asked.is_empty() {
        asked.clear();
        labels.remarks.push(
            "it is a system namespace, where SecurityPolicies are not heard: keep its labels, or write a \
             ClusterSecurityPolicy with spec.includeSystemNamespaces"
                .into(),
        );
    }
    let policy = |(mode, (level, version)): (&str, Asked)| {
        json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
            "metadata": {"name": format!("psa-{}", mode.to_lowercase()), "namespace": namespace},
            "spec": {"hardening": {
                "mode": mode, "podSecurity": {"level": level.as_str(), "version": version.to_string()},
            }},
        })
    };
    (asked.into_iter().map(policy).collect(), labels.remarks)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn asked(namespace: &str, labels: &[(&str, &str)]) -> (Vec<String>, usize) {
        let labels = labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect();
        let (policies, remarks) = policies(namespace, &labels);
        let text = |policy: &Value| {
            let hardening = &policy["spec"]["hardening"];
            let (mode, standard) = (hardening["mode"].as_str().unwrap(), &hardening["podSecurity"]);
            format!("{mode} {}:{}", standard["level"].as_str().unwrap(), standard["version"].as_str().unwrap())
        };
        (policies.iter().map(text).collect(), remarks.len())
    }

    #[rstest]
    #[case::nothing(&[], &[], 0)]
    #[case::a_version_alone(&[("enforce-version", "v1.30")], &[], 0)]
    #[case::warnings_follow_what_is_enforced(&[("enforce", "baseline")], &["Enforce baseline:latest"], 0)]
    #[case::warnings_of_another_version(
        &[("enforce", "baseline"), ("warn-version", "v1.30")], &["Enforce baseline:latest", "Warn baseline:v1.30"], 0)]
    #[case::each_its_own(
        &[("enforce", "baseline"), ("enforce-version", "v1.30"), ("warn", "restricted"), ("audit", "restricted")],
        &["Enforce baseline:v1.30", "Warn restricted:latest"], 0)]
    #[case::less_than_enforced(
        &[("enforce", "restricted"), ("warn", "baseline"), ("audit", "privileged")], &["Enforce restricted:latest"], 0)]
    #[case::audit_alone(&[("audit", "baseline"), ("audit-version", "v1.25")], &["Audit baseline:v1.25"], 0)]
    #[case::unreadable(
        &[("enforce", "strict"), ("enforce-version", "1.30"), ("warn", "x"), ("audit", "y")],
        &["Enforce restricted:latest"], 4)]
    #[case::warnings_do_not_follow_what_is_unreadable(
        &[("enforce", "strict"), ("warn-version", "v1.30")], &["Enforce restricted:latest"], 1)]
    fn labels_become_policies(#[case] labels: &[(&str, &str)], #[case] wanted: &[&str], #[case] remarks: usize) {
        let wanted: Vec<String> = wanted.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(asked("n", labels), (wanted, remarks));
    }

    #[test]
    fn a_system_namespace_is_named() {
        assert_eq!(asked("kube-system", &[("enforce", "baseline")]), (vec![], 1));
        assert_eq!(asked("kube-system", &[("enforce", "privileged")]), (vec![], 0));
    }
}
