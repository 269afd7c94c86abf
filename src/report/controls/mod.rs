//! Controls: where each is in force, and which requirements of which frameworks it supports.
//!
//! A control supports a requirement; that a requirement is met is for an assessor to say, and never said here.

mod table;

use std::{collections::BTreeMap, fmt};

use serde::{Serialize, Serializer};

use super::{
    Key, RetentionClass,
    policies::{Policies, Read, State},
    posture::{Isolation, isolation},
};
use crate::{
    api::{DataClass, Direction, RetentionMode},
    hardening::{is_system_namespace, rule_of_check},
};
use table::{CONTROLS, Row};

/// What a control is, where it is in force, and what it supports.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Control {
    /// Stable id.
    pub id: &'static str,
    /// What it asks.
    pub title: &'static str,
    /// Namespaces where it is in force.
    pub in_force: Vec<String>,
    /// Namespaces where it is in part, or where it is observed and nothing is refused.
    pub partial: Vec<String>,
    /// Namespaces where it is asked for, and no status says that it is in force.
    pub asked: Vec<String>,
    /// Namespaces that were looked at: all that were read but those of the cluster and of Rampart.
    pub namespaces: usize,
    /// Requirements that it supports.
    pub supports: &'static [Mapping],
}

/// Requirements of a framework that a control supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mapping {
    /// The framework, with its version.
    pub framework: Framework,
    /// Ids of requirements; their texts are the frameworks' own.
    pub requirements: &'static [&'static str],
    /// How the control relates to them.
    pub relation: Relation,
    /// Who says so; where sources disagree, each stands with its own ids.
    pub sources: &'static [Source],
}

/// How a control relates to requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Relation {
    /// It helps to meet them.
    Supports,
    /// It is part of what they are about.
    Context,
}

/// A framework at one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Framework {
    /// CIS Kubernetes Benchmark.
    Cis,
    /// NSA and CISA, Kubernetes Hardening Guidance, by Kubescape's ids.
    Nsa,
    /// AICPA Trust Services Criteria.
    Soc2,
    /// ISO/IEC 27001, Annex A.
    Iso27001,
    /// PCI DSS.
    PciDss,
    /// HIPAA Security Rule, 45 CFR.
    Hipaa,
    /// NIST SP 800-53.
    Nist80053,
    /// NIST Cybersecurity Framework.
    NistCsf,
    /// GDPR.
    Gdpr,
    /// CCPA.
    Ccpa,
}

/// Every framework.
pub const FRAMEWORKS: [Framework; 10] = [
    Framework::Cis,
    Framework::Nsa,
    Framework::Soc2,
    Framework::Iso27001,
    Framework::PciDss,
    Framework::Hipaa,
    Framework::Nist80053,
    Framework::NistCsf,
    Framework::Gdpr,
    Framework::Ccpa,
];

impl Framework {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cis => "CIS Kubernetes Benchmark",
            Self::Nsa => "NSA/CISA Kubernetes Hardening Guidance",
            Self::Soc2 => "SOC 2 Trust Services Criteria",
            Self::Iso27001 => "ISO/IEC 27001 Annex A",
            Self::PciDss => "PCI DSS",
            Self::Hipaa => "HIPAA Security Rule (45 CFR)",
            Self::Nist80053 => "NIST SP 800-53",
            Self::NistCsf => "NIST Cybersecurity Framework",
            Self::Gdpr => "GDPR (EU 2016/679)",
            Self::Ccpa => "CCPA (Cal. Civ. Code)",
        }
    }

    /// The version that ids are of, where the framework has versions.
    #[must_use]
    pub const fn version(self) -> Option<&'static str> {
        match self {
            Self::Cis => Some("2.0.1"),
            Self::Iso27001 => Some("2022"),
            Self::PciDss => Some("4.0"),
            Self::Nist80053 => Some("Rev. 5"),
            Self::NistCsf => Some("2.0"),
            Self::Nsa | Self::Soc2 | Self::Hipaa | Self::Gdpr | Self::Ccpa => None,
        }
    }
}

impl fmt::Display for Framework {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.version().map_or(Ok(()), |version| write!(f, " {version}"))
    }
}

impl Serialize for Framework {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Who says that a control supports a requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Frameworks of Kubescape's regolibrary.
    Kubescape,
    /// Prowler's mappings for Kubernetes.
    Prowler,
    /// Rule references of ComplianceAsCode for OpenShift.
    ComplianceAsCode,
    /// NIST's crosswalks (OLIR, CPRT).
    Nist,
    /// Secure Controls Framework 2025.2.2.
    Scf,
    /// The text of the statute.
    Statute,
    /// Rampart's authors.
    ProjectJudgement,
}

impl Source {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kubescape => "Kubescape regolibrary",
            Self::Prowler => "Prowler",
            Self::ComplianceAsCode => "ComplianceAsCode",
            Self::Nist => "NIST crosswalk",
            Self::Scf => "SCF 2025.2.2",
            Self::Statute => "statute text",
            Self::ProjectJudgement => "project-judgement",
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// By what a control is seen to be in force.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// Pods are asked to pass a check of the Pod Security Standards.
    Check(&'static str),
    /// Pods are asked to keep a rule, by its full id.
    Rule(&'static str),
    /// Pods may mount no token.
    NoToken,
    /// Pods are isolated both ways.
    Isolation,
    /// Keys rotate by themselves, and in time.
    Rotation,
    /// What is too old is deleted.
    Retention,
    /// The class of data is named.
    Classification,
}

type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// Every control.
pub(super) fn controls(
    namespaces: &Namespaces,
    policies: &Policies,
    keys: &[Key],
    classes: &[RetentionClass],
) -> Vec<Control> {
    let looked_at: Namespaces = namespaces
        .iter()
        .filter(|(name, _)| !is_system_namespace(name))
        .map(|(name, it)| (name.clone(), it.clone()))
        .collect();
    let told = |row: &Row| {
        let mut control = Control {
            id: row.id,
            title: row.title,
            in_force: vec![],
            partial: vec![],
            asked: vec![],
            namespaces: looked_at.len(),
            supports: row.supports,
        };
        for (name, labels) in &looked_at {
            let state = match row.seen {
                Seen::Check(_) | Seen::Rule(_) | Seen::NoToken => hardening(row.seen, policies, name, labels),
                Seen::Isolation => isolated(policies, name, labels),
                Seen::Rotation => rotating(keys.iter().filter(|key| key.namespace == *name)),
                Seen::Retention => kept(classes, name),
                Seen::Classification => classified(policies, classes, name, labels),
            };
            match state {
                Some(State::InForce) => control.in_force.push(name.clone()),
                Some(State::Partial) => control.partial.push(name.clone()),
                Some(State::Asked) => control.asked.push(name.clone()),
                None => {}
            }
        }
        control
    };
    CONTROLS.iter().map(told).collect()
}

/// The best of what policies say.
fn hardening(seen: Seen, policies: &Policies, name: &str, labels: &BTreeMap<String, String>) -> Option<State> {
    let asking = policies.all.iter().filter(|policy| policy.covers(name, labels) && asks(seen, policy));
    asking.map(|policy| policy.hardening_state(policies.pause.is_some())).max()
}

fn asks(seen: Seen, policy: &Read) -> bool {
    policy.asked().is_some_and(|asked| match seen {
        Seen::Check(id) => {
            rampart_pss::checks(asked.level, asked.version).iter().any(|it| rule_of_check(it.check.id) == id)
        }
        Seen::Rule(id) => asked.rules.asked().any(|about| about.rule() == id),
        Seen::NoToken => policy.forbids_token,
        _ => false,
    })
}

fn isolated(policies: &Policies, name: &str, labels: &BTreeMap<String, String>) -> Option<State> {
    let ways = [Direction::Ingress, Direction::Egress].map(|way| isolation(policies, name, labels, way));
    let is_asked = policies.all.iter().any(|policy| policy.isolates(name, labels).is_some());
    match ways {
        [Isolation::All, Isolation::All] => Some(State::InForce),
        [Isolation::None, Isolation::None] => is_asked.then_some(State::Asked),
        _ => Some(State::Partial),
    }
}

fn rotating<'k>(keys: impl Iterator<Item = &'k Key>) -> Option<State> {
    let rotate: Vec<bool> = keys.filter(|key| key.state != super::KeyStanding::Revoked).map(Key::rotates).collect();
    match (rotate.iter().all(|it| *it), rotate.contains(&true)) {
        _ if rotate.is_empty() => None,
        (true, _) => Some(State::InForce),
        (false, true) => Some(State::Partial),
        (false, false) => Some(State::Asked),
    }
}

fn kept(classes: &[RetentionClass], name: &str) -> Option<State> {
    let own = classes.iter().flat_map(|class| &class.policies).filter(|policy| policy.namespace == name);
    let states = own.filter(|policy| policy.mode != RetentionMode::Disabled).map(|policy| match policy.mode {
        _ if !policy.ready || policy.suspended => State::Asked,
        RetentionMode::Enforce => State::InForce,
        _ => State::Partial,
    });
    states.max()
}

fn classified(
    policies: &Policies,
    classes: &[RetentionClass],
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Option<State> {
    let by_policy =
        policies.all.iter().filter(|policy| policy.covers(name, labels)).filter_map(|policy| policy.data_class);
    let of_data = classes.iter().filter(|class| class.policies.iter().any(|it| it.namespace == name));
    let named: Vec<DataClass> = by_policy.chain(of_data.filter_map(|class| class.class)).collect();
    (!named.is_empty()).then_some(State::InForce)
}

/// Checks and rules by whose ids controls are seen.
#[cfg(test)]
pub(super) fn asked() -> impl Iterator<Item = &'static str> {
    CONTROLS.iter().filter_map(|row| match row.seen {
        Seen::Check(id) | Seen::Rule(id) => Some(id),
        _ => None,
    })
}
