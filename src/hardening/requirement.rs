//! What a policy asks of pods, parsed.

use rampart_pss::{Level, Version};

use crate::api::{self, AdmissionPolicy, HardeningMode, Invalid};

/// What a policy asks of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirement {
    /// What happens to a pod that does not meet it.
    pub mode: HardeningMode,
    /// Level of the Pod Security Standards.
    pub level: Level,
    /// Version of the standards.
    pub version: Version,
    /// Whether the API server shall refuse by itself, by admission policy.
    pub admission_policy: AdmissionPolicy,
}

impl Requirement {
    /// Whether there is to be an admission policy for it.
    #[must_use]
    pub fn has_floor(&self) -> bool {
        self.mode == HardeningMode::Enforce
            && self.admission_policy == AdmissionPolicy::Generate
            && self.level != Level::Privileged
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
        Ok(Self { mode: hardening.mode, level, version, admission_policy: hardening.admission_policy })
    }
}
