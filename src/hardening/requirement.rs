//! What a policy asks of pods, parsed.

use rampart_pss::{Level, Version};

use super::Rules;
use crate::api::{self, AdmissionPolicy, HardeningMode, Invalid};

/// What a policy asks of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// What happens to a pod that does not meet it.
    pub mode: HardeningMode,
    /// Level of the Pod Security Standards.
    pub level: Level,
    /// Version of the standards.
    pub version: Version,
    /// What it asks beyond them.
    pub rules: Rules,
    /// Whether the API server shall refuse by itself, by admission policy.
    pub admission_policy: AdmissionPolicy,
}

/// What an admission policy refuses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standard {
    /// Level of the Pod Security Standards.
    pub level: Level,
    /// Version of the standards.
    pub version: Version,
    /// What is asked beyond them.
    pub rules: Rules,
}

impl Requirement {
    /// What the admission policies enforce for it. Versions that are newer than any known one are decided
    /// like the newest, and share its policy: a namespace can't have one made for each number.
    #[must_use]
    pub fn standard(&self) -> Standard {
        let known = self.version == Version::minor(self.version.known_minor());
        let version = if known { self.version } else { Version::LATEST };
        Standard { level: self.level, version, rules: self.rules.clone() }
    }

    /// Whether there is to be an admission policy for it.
    #[must_use]
    pub fn has_floor(&self) -> bool {
        self.mode == HardeningMode::Enforce
            && self.admission_policy == AdmissionPolicy::Generate
            && (self.level != Level::Privileged || !self.rules.is_empty())
    }
}

impl TryFrom<&api::Hardening> for Requirement {
    type Error = Invalid;

    fn try_from(hardening: &api::Hardening) -> Result<Self, Invalid> {
        let level = match hardening.pod_security.level {
            api::Level::Privileged => Level::Privileged,
            api::Level::Baseline => Level::Baseline,
            api::Level::Restricted => Level::Restricted,
        };
        let version = hardening.pod_security.version.parse();
        let version = version.map_err(|error: rampart_pss::ParseError| {
            Invalid::at("spec.hardening.podSecurity.version", error.to_string())
        })?;
        let rules = hardening.rules.as_ref().map(Rules::try_from).transpose()?.unwrap_or_default();
        Ok(Self { mode: hardening.mode, level, version, rules, admission_policy: hardening.admission_policy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_newer_than_any_known_share_one_standard() {
        let standard = |version: &str| {
            let hardening =
                serde_json::json!({"mode": "Enforce", "podSecurity": {"level": "baseline", "version": version}});
            Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap().standard()
        };
        assert_eq!(standard("v1.38"), standard("latest"));
        assert_eq!(standard("v1.4000000000"), standard("latest"));
        assert_ne!(standard("v1.37"), standard("v1.36"));
    }
}
