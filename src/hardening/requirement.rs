//! What a policy asks of pods, parsed.

use rampart_pss::{Level, Version};

use super::Rules;
use crate::api::{self, AdmissionPolicy, Fix, HardeningMode, Invalid};

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
    /// Whether pods are completed by what it asks.
    pub fix: Fix,
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
    /// One that asks nothing.
    #[must_use]
    pub fn none() -> Self {
        Self {
            mode: HardeningMode::Disabled,
            level: Level::Privileged,
            version: Version::LATEST,
            rules: Rules::default(),
            admission_policy: AdmissionPolicy::None,
            fix: Fix::Disabled,
        }
    }

    /// What the admission policies enforce for it. Versions that are newer than any known one are decided
    /// like the newest, and share its policy: a namespace can't have one made for each number.
    #[must_use]
    pub fn standard(&self) -> Standard {
        let version = if self.version.is_future() { Version::LATEST } else { self.version };
        Standard { level: self.level, version, rules: self.rules.clone() }
    }

    /// Whether it asks anything of some pod.
    fn asks(&self) -> bool {
        self.level != Level::Privileged || !self.rules.is_empty()
    }

    /// Whether it refuses some pod.
    pub(super) fn refuses(&self) -> bool {
        self.mode == HardeningMode::Enforce && self.asks()
    }

    /// Whether there is to be an admission policy for it.
    #[must_use]
    pub fn has_floor(&self) -> bool {
        self.refuses() && self.admission_policy == AdmissionPolicy::Generate
    }

    /// Whether the webhook alone refuses what it refuses.
    #[must_use]
    pub fn needs_webhook(&self) -> bool {
        self.refuses() && self.admission_policy == AdmissionPolicy::None
    }

    /// Whether pods are completed by it, or whoever makes them is told how they would be.
    #[must_use]
    pub fn fixes(&self) -> bool {
        self.fix != Fix::Disabled && self.mode != HardeningMode::Disabled
    }

    /// Whether some pod is completed by it.
    #[must_use]
    pub fn completes(&self) -> bool {
        self.fix == Fix::Apply && self.fixes() && self.asks()
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
        let (admission_policy, fix) = (hardening.admission_policy, hardening.fix);
        Ok(Self { mode: hardening.mode, level, version, rules, admission_policy, fix })
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
