//! A RetentionPolicy's spec, parsed.

use jiff::SignedDuration;

use crate::{
    GROUP,
    api::{
        AgeFrom, AnnotationSays, DataClass, GoDuration, Invalid, MOST_ITEMS, Processing, Propagation, RetentionMode,
        RetentionPolicy, RetentionRecord,
        cron::Cron,
        dns::{is_label, is_subdomain},
        selector,
    },
    hardening::is_system_namespace,
};

/// Kinds whose loss is hard to repair.
const SENSITIVE: [(&str, &str); 5] = [
    ("", "Secret"),
    ("", "PersistentVolumeClaim"),
    ("", "PersistentVolume"),
    ("", "Namespace"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
];

/// The longest that can be asked for, so that sums of times stay in range.
const LONGEST: SignedDuration = SignedDuration::from_hours(100 * 8766);

/// What a RetentionPolicy asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Namespace that it acts in.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, written into marks.
    pub uid: String,
    /// Generation of its spec.
    pub generation: i64,
    /// How far it goes.
    pub mode: RetentionMode,
    /// The service account that it acts as.
    pub service_account: String,
    /// Class of the data.
    pub data_class: Option<DataClass>,
    /// Age beyond which an item goes.
    pub max_age: SignedDuration,
    /// Age below which it stays, whatever it says itself.
    pub min_age: SignedDuration,
    /// When something may be done; without it, whenever something is due.
    pub schedule: Option<Cron>,
    /// Time between mark and deletion.
    pub grace: SignedDuration,
    /// The caps.
    pub caps: Caps,
    /// Items of each target that stay: the youngest.
    pub min_remaining: usize,
    /// Most items of one run.
    pub batch: usize,
    /// Whether the namespace must agree.
    pub opt_in: bool,
    /// Whether it does, or need not: without that nothing is marked or deleted, whatever the mode.
    pub agreed: bool,
    /// Whether what a controller owns stays.
    pub skip_controlled: bool,
    /// How far two clocks may be apart.
    pub max_skew: SignedDuration,
    /// What happens to what an item owns.
    pub propagation: Propagation,
    /// Record of processing.
    pub processing: Option<Processing>,
    /// How long reports are kept.
    pub retain_for: SignedDuration,
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
    /// What that says.
    pub says: AnnotationSays,
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
        let (max_age, min_age) = ages(policy)?;
        let zone = spec.time_zone.as_deref().unwrap_or("UTC");
        let cron = spec.schedule.as_deref();
        let cron = cron.map(|cron| Cron::parse((cron, "spec.schedule"), (zone, "spec.timeZone"))).transpose()?;
        Ok(Self {
            namespace,
            name: policy.metadata.name.clone().unwrap_or_default(),
            uid: policy.metadata.uid.clone().unwrap_or_default(),
            generation: policy.metadata.generation.unwrap_or_default(),
            mode: spec.mode,
            service_account: spec.service_account_name.clone(),
            data_class: spec.data_class,
            max_age,
            min_age,
            schedule: cron,
            grace: positive(spec.safety.grace_period, "spec.safety.gracePeriod")?,
            caps: Caps { count, percent },
            min_remaining: usize::try_from(spec.safety.min_remaining).unwrap_or_default(),
            batch: usize::try_from(spec.safety.batch_size).unwrap_or_default().clamp(1, MOST_ITEMS),
            opt_in: spec.safety.require_namespace_opt_in,
            agreed: !spec.safety.require_namespace_opt_in,
            skip_controlled: spec.safety.skip_controller_owned,
            max_skew: positive(spec.safety.max_clock_skew, "spec.safety.maxClockSkew")?,
            propagation: spec.safety.propagation_policy,
            processing: spec.processing.clone(),
            retain_for: positive(spec.evidence.retain_for, "spec.evidence.retainFor")?,
            targets,
        })
    }
}

impl Spec {
    /// Whether a report is of this very spec. Who changes it is asked anew: its caps are the author's.
    #[must_use]
    pub fn is_of(&self, record: &RetentionRecord) -> bool {
        record.policy.generation == self.generation && record.mode == self.mode
    }
}

/// The age beyond which items go, and the one below which they stay.
fn ages(policy: &RetentionPolicy) -> Result<(SignedDuration, SignedDuration), Invalid> {
    let spec = &policy.spec;
    let most = spec.data_class.map(|class| GoDuration::hours(class.hours_kept()));
    let Some(max_age) = spec.max_age.or(most) else {
        return Err(Invalid::at("spec.maxAge", "say maxAge, or dataClass, which brings one"));
    };
    if let (Some(class), Some(most)) = (spec.data_class, most.filter(|most| max_age > *most)) {
        return Err(Invalid::at("spec.maxAge", format!("{max_age} is longer than {class:?} allows: {most}")));
    }
    let max_age = positive(max_age, "spec.maxAge")?;
    let min_age = spec.min_age.map_or(Ok(SignedDuration::ZERO), |age| within(age, "spec.minAge"))?;
    if min_age > max_age {
        return Err(Invalid::at("spec.minAge", "must not be longer than maxAge"));
    }
    Ok((max_age, min_age))
}

fn positive(duration: GoDuration, field: &str) -> Result<SignedDuration, Invalid> {
    if duration.get().as_secs() == 0 {
        return Err(Invalid::at(field, "must be at least 1s: 0 never means \"now\" here"));
    }
    within(duration, field)
}

fn within(duration: GoDuration, field: &str) -> Result<SignedDuration, Invalid> {
    let read = SignedDuration::try_from(duration.get()).ok().filter(|duration| *duration <= LONGEST);
    read.ok_or_else(|| Invalid::at(field, "is longer than a hundred years"))
}

fn parse_target(target: &crate::api::ResourceTarget, sensitive: bool, field: &str) -> Result<TargetSpec, Invalid> {
    let (group, version) = target.api_version.split_once('/').unwrap_or(("", &target.api_version));
    // They stand in the path of a question to the API server.
    if !is_label(version) || (target.api_version.contains('/') && !is_subdomain(group)) {
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
        says: target.annotation_says,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::core("v1", Some(("", "v1")))]
    #[case::group("batch/v1", Some(("batch", "v1")))]
    #[case::custom("widgets.example.com/v1alpha1", Some(("widgets.example.com", "v1alpha1")))]
    #[case::none("", None)]
    #[case::no_group("/v1", None)]
    #[case::no_version("batch/", None)]
    #[case::too_much("batch/v1/jobs", None)]
    #[case::another_path("v1%2Fsecrets", None)]
    #[case::another_path_of_a_group("batch%2Fv1%2Fnamespaces/x", None)]
    #[case::parent("../v1", None)]
    #[case::query("v1?watch=1", None)]
    fn an_api_version_is_a_group_and_a_version(#[case] api_version: &str, #[case] wanted: Option<(&str, &str)>) {
        let target = json!({"apiVersion": api_version, "kind": "ConfigMap", "selector": {}});
        let parsed = parse_target(&serde_json::from_value(target).unwrap(), false, "spec.targets[0].resources");
        match (parsed, wanted) {
            (Ok(parsed), Some(wanted)) => assert_eq!((parsed.group.as_str(), parsed.version.as_str()), wanted),
            (Err(error), None) => assert!(error.to_string().contains("apiVersion"), "{error}"),
            (parsed, _) => panic!("{parsed:?}"),
        }
    }
}
