//! A RetentionPolicy's spec, parsed.

use jiff::SignedDuration;

use crate::{
    GROUP,
    api::{AgeFrom, GoDuration, Invalid, RetentionMode, RetentionPolicy, selector},
    hardening::is_system_namespace,
};

/// Kinds whose loss is hard to repair.
const SENSITIVE: [(&str, &str); 2] = [("", "Secret"), ("", "PersistentVolumeClaim")];

/// What a RetentionPolicy asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Namespace that it acts in.
    pub namespace: String,
    /// Its UID, written into marks.
    pub uid: String,
    /// How far it goes.
    pub mode: RetentionMode,
    /// The service account that it acts as.
    pub service_account: String,
    /// Age beyond which an item goes.
    pub max_age: SignedDuration,
    /// Time between mark and deletion.
    pub grace: SignedDuration,
    /// The caps.
    pub caps: Caps,
    /// What it is about.
    pub targets: Vec<TargetSpec>,
}

/// Most items that one run may delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// In all.
    pub count: usize,
    /// In percent of what a target lists.
    pub percent: usize,
}

/// Objects of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSpec {
    /// API group, empty for core.
    pub group: String,
    /// Version of the group.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Which objects.
    pub selector: rampart_reach::Selector,
    /// What their age counts from.
    pub age_from: AgeFrom,
    /// The annotation that holds the time, where that is what it counts from.
    pub annotation: String,
}

impl TryFrom<&RetentionPolicy> for Spec {
    type Error = Invalid;

    fn try_from(policy: &RetentionPolicy) -> Result<Self, Invalid> {
        let spec = &policy.spec;
        let namespace = policy.metadata.namespace.clone().unwrap_or_default();
        if is_system_namespace(&namespace) || namespace == "default" {
            return Err(Invalid::at(
                "metadata.namespace",
                format!("{namespace} is protected: nothing is deleted there"),
            ));
        }
        let count = usize::try_from(spec.safety.max_deletions_per_run).unwrap_or_default();
        let percent = usize::try_from(spec.safety.max_percent_per_run).unwrap_or_default();
        if count == 0 || percent == 0 || percent > 100 {
            return Err(Invalid::at("spec.safety", "caps are at least 1, and at most 100 percent"));
        }
        let sensitive = spec.safety.allow_sensitive_kinds == Some(true);
        let parse = |(index, target): (usize, &crate::api::Target)| {
            parse_target(&target.resources, sensitive, &format!("spec.targets[{index}].resources"))
        };
        let targets = spec.targets.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        if targets.is_empty() {
            return Err(Invalid::at("spec.targets", "name at least one target"));
        }
        Ok(Self {
            namespace,
            uid: policy.metadata.uid.clone().unwrap_or_default(),
            mode: spec.mode,
            service_account: spec.service_account_name.clone(),
            max_age: positive(spec.max_age, "spec.maxAge")?,
            grace: positive(spec.safety.grace_period, "spec.safety.gracePeriod")?,
            caps: Caps { count, percent },
            targets,
        })
    }
}

fn positive(duration: GoDuration, field: &str) -> Result<SignedDuration, Invalid> {
    if duration.get().as_secs() == 0 {
        return Err(Invalid::at(field, "must be at least 1s: 0 never means \"now\" here"));
    }
    SignedDuration::try_from(duration.get()).map_err(|_| Invalid::at(field, "is too long"))
}

fn parse_target(target: &crate::api::ResourceTarget, sensitive: bool, field: &str) -> Result<TargetSpec, Invalid> {
    let (group, version) = target.api_version.split_once('/').unwrap_or(("", &target.api_version));
    if version.is_empty() || version.contains('/') {
        let problem = format!("{:?} is not an API version such as \"v1\" or \"batch/v1\"", target.api_version);
        return Err(Invalid::at(format!("{field}.apiVersion"), problem));
    }
    if (SENSITIVE.contains(&(group, &target.kind)) || group == GROUP) && !sensitive {
        let problem =
            format!("{} is hard to replace: set safety.allowSensitiveKinds: true if that is meant", target.kind);
        return Err(Invalid::at(format!("{field}.kind"), problem));
    }
    let annotation = target.annotation.clone().unwrap_or_default();
    if (target.age_from == AgeFrom::Annotation) == annotation.is_empty() {
        return Err(Invalid::at(format!("{field}.annotation"), "is for ageFrom: Annotation, which needs it"));
    }
    Ok(TargetSpec {
        group: group.into(),
        version: version.into(),
        kind: target.kind.clone(),
        selector: selector::parse(&target.selector, &format!("{field}.selector"))?,
        age_from: target.age_from,
        annotation,
    })
}
