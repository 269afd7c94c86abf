//! The controls as data: ids alone, since texts of SOC 2 and ISO are licensed.
//!
//! From Kubescape's regolibrary (nsa, soc2, cis-v1.12.0), Prowler's `compliance/kubernetes`,
//! ComplianceAsCode's `applications/openshift`, and the crosswalks of NIST and SCF that ciso-assistant packages. Where a
//! source names sections alone, paragraphs are placed by position.

use super::{
    Framework::{Ccpa, Cis, Gdpr, Hipaa, Iso27001, Nist80053, NistCsf, Nsa, PciDss, Soc2},
    Mapping, Relation, Seen,
    Source::{ComplianceAsCode, Kubescape, Nist, ProjectJudgement, Prowler, Scf, Statute},
};

/// A control.
pub(super) struct Row {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) seen: Seen,
    pub(super) supports: &'static [Mapping],
}

const fn s(
    framework: super::Framework,
    requirements: &'static [&'static str],
    sources: &'static [super::Source],
) -> Mapping {
    Mapping { framework, requirements, relation: Relation::Supports, sources }
}

const fn context(framework: super::Framework, requirements: &'static [&'static str]) -> Mapping {
    Mapping { framework, requirements, relation: Relation::Context, sources: &[ProjectJudgement] }
}

pub(super) static CONTROLS: [Row; 10] = [
    Row {
        id: "runAsNonRoot",
        title: "Containers do not run as root",
        seen: Seen::Check("pss/runAsNonRoot"),
        supports: &[
            s(Cis, &["5.2.7"], &[Prowler]),
            s(Nsa, &["C-0013"], &[Kubescape]),
            s(Soc2, &["CC6.1"], &[Scf]),
            s(Iso27001, &["A.8.2"], &[Prowler]),
            s(PciDss, &["7.2.1", "7.2.2", "7.2.5"], &[Prowler]),
            s(Hipaa, &["164.312(a)(1)"], &[Nist]),
            s(Nist80053, &["AC-6"], &[ProjectJudgement]),
            s(Nist80053, &["CM-6"], &[ComplianceAsCode]),
            s(NistCsf, &["PR.AA-05"], &[ProjectJudgement]),
            s(Gdpr, &["32(1)(b)"], &[Statute]),
        ],
    },
    Row {
        id: "dropCapabilities",
        title: "Containers drop all capabilities",
        seen: Seen::Check("pss/capabilities_restricted"),
        supports: &[
            s(Cis, &["5.2.8", "5.2.9"], &[Prowler]),
            s(Nsa, &["C-0046"], &[Kubescape]),
            s(Soc2, &["CC6.1.7", "CC6.7.1"], &[Scf]),
            s(Iso27001, &["A.8.9"], &[Scf]),
            s(Iso27001, &["A.8.16"], &[Prowler]),
            s(PciDss, &["2.2.4"], &[Scf]),
            s(Hipaa, &["164.312(a)(1)"], &[Nist]),
            s(Nist80053, &["CM-7", "CM-6"], &[ComplianceAsCode]),
            s(NistCsf, &["PR.PS-05"], &[Scf]),
            s(Gdpr, &["32(1)(b)"], &[Statute]),
        ],
    },
    Row {
        id: "noPrivilegeEscalation",
        title: "Processes gain no more privileges than their parent",
        seen: Seen::Check("pss/allowPrivilegeEscalation"),
        supports: &[
            s(Cis, &["5.2.6"], &[Prowler]),
            s(Nsa, &["C-0016"], &[Kubescape]),
            s(Soc2, &["CC6.1"], &[Scf]),
            s(Iso27001, &["A.5.15", "A.8.14"], &[Prowler]),
            s(PciDss, &["2.2.1"], &[Scf]),
            s(Hipaa, &["164.312(a)(1)"], &[Nist]),
            s(Nist80053, &["AC-6"], &[ProjectJudgement]),
            s(Nist80053, &["CM-6(1)"], &[ComplianceAsCode]),
            s(Gdpr, &["32"], &[Statute]),
        ],
    },
    Row {
        id: "seccomp",
        title: "Containers run with a seccomp profile",
        seen: Seen::Check("pss/seccompProfile_restricted"),
        supports: &[
            s(Cis, &["5.6.2"], &[Prowler]),
            s(Nsa, &["C-0055"], &[Kubescape]),
            s(Soc2, &["CC6.1.7", "CC7.1"], &[Scf]),
            s(Iso27001, &["A.8.9"], &[Scf]),
            s(PciDss, &["2.2.1"], &[Scf]),
            s(Nist80053, &["CM-6(1)"], &[ComplianceAsCode]),
            s(NistCsf, &["PR.PS-05"], &[Scf]),
            s(Gdpr, &["32"], &[Statute]),
        ],
    },
    Row {
        id: "readOnlyRootFilesystem",
        title: "Containers can't write to their root filesystem",
        seen: Seen::Rule("hardening/readOnlyRootFilesystem"),
        supports: &[
            context(Cis, &["5.6.3"]),
            s(Nsa, &["C-0017"], &[Kubescape]),
            s(Soc2, &["CC7.1"], &[Scf]),
            s(Iso27001, &["A.8.9"], &[Scf]),
            s(PciDss, &["2.2.1"], &[Scf]),
            s(Hipaa, &["164.312(c)(1)"], &[Nist]),
            s(Nist80053, &["CM-6", "SI-7"], &[ProjectJudgement]),
            s(Gdpr, &["32"], &[Statute]),
        ],
    },
    Row {
        id: "noServiceAccountToken",
        title: "Pods mount no token of their service account",
        seen: Seen::NoToken,
        supports: &[s(Cis, &["5.1.6"], &[Kubescape, Prowler]), s(Nsa, &["C-0034"], &[Kubescape])],
    },
    Row {
        id: "networkIsolation",
        title: "Networks are deny by default, with a list of what is allowed",
        seen: Seen::Isolation,
        supports: &[
            s(Cis, &["5.3.2"], &[Prowler]),
            s(Nsa, &["C-0030"], &[Kubescape]),
            s(Soc2, &["CC6.1", "CC6.6", "CC7.2"], &[Kubescape]),
            s(Soc2, &["CC6.6"], &[Scf]),
            s(Iso27001, &["A.8.20", "A.8.22"], &[Nist]),
            s(Iso27001, &["A.5.14"], &[ProjectJudgement]),
            s(PciDss, &["1.3.1", "1.3.2", "1.4.2"], &[Scf]),
            s(Hipaa, &["164.308(a)(4)"], &[Nist]),
            s(Nist80053, &["SC-7", "SC-7(5)", "AC-4(21)", "CM-7"], &[ComplianceAsCode]),
            s(NistCsf, &["PR.IR-01"], &[ProjectJudgement]),
            s(Gdpr, &["25(2)", "32(1)(b)"], &[Statute]),
        ],
    },
    Row {
        id: "keyRotation",
        title: "Keys are replaced at intervals, and old ones destroyed",
        seen: Seen::Rotation,
        supports: &[
            context(Cis, &["5.4.1", "5.4.2"]),
            s(Nsa, &["C-0012"], &[Kubescape]),
            s(Soc2, &["CC6.1", "CC6.6", "CC6.7"], &[Kubescape]),
            s(Soc2, &["CC6.1.11"], &[Scf]),
            s(Iso27001, &["A.8.24"], &[Nist]),
            s(PciDss, &["3.7.4", "3.7.5"], &[Scf]),
            s(Hipaa, &["164.312(e)(2)(ii)"], &[Nist]),
            s(Nist80053, &["SC-12"], &[ProjectJudgement]),
            s(NistCsf, &["PR.DS-01"], &[Scf]),
            s(Gdpr, &["32(1)(a)"], &[Statute]),
        ],
    },
    Row {
        id: "retention",
        title: "What is too old is deleted, with evidence",
        seen: Seen::Retention,
        supports: &[
            s(Soc2, &["C1.2", "CC6.5", "P4.2", "P4.3"], &[Scf]),
            s(Iso27001, &["A.8.10", "A.5.33"], &[Scf]),
            s(PciDss, &["3.2.1", "9.4.7"], &[Scf]),
            s(Hipaa, &["164.310(d)(2)(i)", "164.316(b)(2)(i)"], &[Nist]),
            s(Nist80053, &["SI-12", "SI-12(3)", "MP-6"], &[ProjectJudgement]),
            s(NistCsf, &["ID.AM-08", "ID.AM-07"], &[Scf]),
            s(Gdpr, &["5(1)(e)", "30(1)(f)"], &[Statute]),
            s(Ccpa, &["1798.100(a)(3)", "1798.100(c)"], &[Statute]),
        ],
    },
    Row {
        id: "dataClassification",
        title: "The class of data is named, and asks for the least that it needs",
        seen: Seen::Classification,
        supports: &[
            s(Soc2, &["C1.1", "CC2.1.7", "CC6.1.1"], &[Scf]),
            s(Iso27001, &["A.5.12"], &[Scf]),
            s(PciDss, &["9.4.2"], &[Scf]),
            s(NistCsf, &["ID.AM-05"], &[Scf]),
            s(Gdpr, &["30(1)(c)"], &[Statute]),
        ],
    },
];
