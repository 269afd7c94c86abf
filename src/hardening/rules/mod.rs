//! Rules beyond the Pod Security Standards: a file each, which says what a rule finds wrong with a Pod and
//! how an admission policy states the same, in the same words.

mod affinity;
mod app_armor;
mod capabilities;
mod expression;
mod host_paths;
mod host_ports;
mod images;
mod names;
mod pod;
mod probes;
mod read_only_root_filesystem;
pub mod reference;
mod resources;
mod seccomp;
mod service_account_token;
mod termination_grace_period;
#[cfg(test)]
mod tests;
mod user_namespaces;
mod users;
mod volumes;

use std::{cmp::Ordering, fmt, sync::Arc};

use rampart_pss::{ContainerKind, Excepted, Path, Values};

pub use names::Moved;
pub use pod::Pod;
pub(super) use pod::is_positive;
use pod::{Placed, Volume};
pub(super) use reference::{Pattern, normal, normal_in_cel};
pub(super) use volumes::types as volume_types;

use super::Covered;
use crate::api::{self, Invalid};

/// What is to be known of a rule, whoever asks for it.
#[derive(Debug, PartialEq, Eq)]
pub struct About {
    /// Stable identifier, without `hardening/`.
    pub id: &'static str,
    /// What it asks, in a line.
    pub title: &'static str,
    /// Whether Windows pods are judged, too.
    pub windows: bool,
    /// What of a cluster may still change its verdict on a manifest.
    pub depends_on: Option<&'static str>,
    /// What it refuses one by one, so that an exception may be for some alone.
    pub values: Option<Values>,
}

impl About {
    /// The rule's id among all: `hardening/ID`.
    #[must_use]
    pub fn rule(&self) -> String {
        format!("hardening/{}", self.id)
    }
}

/// A rule as one policy asks it.
trait Rule: fmt::Debug + Send + Sync {
    fn about(&self) -> &'static About;
    /// What is wrong with a Pod.
    fn complaints(&self, pod: &Pod) -> Vec<Complaint>;
    /// The same, as an admission policy states it.
    fn form(&self) -> Vec<Part>;
}

/// Something that a rule finds wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Who, and how: `container "a" must ...`.
    pub text: String,
    /// The field.
    pub path: Path,
    /// What an exception must cover for it to pass.
    pub about: Whose,
    /// What was found, where an exception may be for it alone.
    pub value: Option<String>,
    /// The value to set, as JSON, where there is one that any policy would accept.
    pub fix: Option<&'static str>,
}

/// What a complaint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A container.
    Container(ContainerKind, usize),
    /// The Pod as a whole: all its containers.
    Pod,
    /// An image that no container runs: no exception covers it.
    OtherImage,
}

/// A rule that a Pod violates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule.
    pub about: &'static About,
    /// What is wrong; never empty.
    pub complaints: Vec<Complaint>,
}

/// A part of a rule in CEL (see `floor`). Expressions for a text are evaluated only where it is bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// For each item `c` of a list.
    Each {
        /// The list.
        of: &'static str,
        /// What an item is called: `container`.
        noun: &'static str,
        /// Whether it is bad.
        bad: String,
        /// How.
        text: String,
        /// Whether it passes where exceptions cover all containers.
        of_pod: bool,
        /// What was found, where exceptions may be for it alone.
        value: Option<String>,
    },
    /// For each item `n` of a list of each container `c`.
    Values {
        /// The list.
        list: &'static str,
        /// What was found: exceptions may be for it alone.
        value: &'static str,
        /// Whether it is bad.
        bad: String,
        /// How.
        text: String,
    },
    /// For the Pod.
    Pod {
        /// Whether it is bad.
        bad: String,
        /// How.
        text: String,
    },
}

/// How the volume is called that the API server adds for the service account token.
pub(super) const INJECTED: &str = "kube-api-access-";

/// Lists of [`Part::Each`].
const CONTAINERS: &str = "variables.containers";
/// Without ephemeral ones.
const LASTING: &str = "variables.lasting";
const VOLUMES: &str = "variables.volumes";

/// The rules that a policy asks, parsed. Equal where the policies ask the same.
#[derive(Clone, Default)]
pub struct Rules {
    wire: api::Rules,
    rules: Arc<[Box<dyn Rule>]>,
}

/// Every rule that there is.
pub static RULES: [&About; 22] = [
    &app_armor::ABOUT,
    &capabilities::ABOUT,
    &host_ports::ABOUT,
    &images::ALLOW,
    &images::DENY,
    &images::FORBID_TAGS,
    &images::REQUIRE_DIGEST,
    &names::NODE_SELECTOR,
    &names::PRIORITY_CLASSES,
    &probes::ABOUT,
    &read_only_root_filesystem::ABOUT,
    &resources::LIMITS,
    &resources::REQUESTS,
    &names::RUNTIME_CLASSES,
    &seccomp::ABOUT,
    &service_account_token::ABOUT,
    &termination_grace_period::ABOUT,
    &names::TOLERATIONS,
    &user_namespaces::ABOUT,
    &users::ABOUT,
    &volumes::ABOUT,
    &host_paths::ABOUT,
];

impl TryFrom<&api::Rules> for Rules {
    type Error = Invalid;

    fn try_from(wire: &api::Rules) -> Result<Self, Invalid> {
        let mut rules: Vec<Box<dyn Rule>> = vec![];
        rules.extend(read_only_root_filesystem::parse(wire));
        rules.extend(resources::parse(wire));
        rules.extend(images::parse(wire)?);
        rules.extend(users::parse(wire));
        rules.extend(capabilities::parse(wire));
        rules.extend(seccomp::parse(wire));
        rules.extend(app_armor::parse(wire));
        rules.extend(user_namespaces::parse(wire));
        rules.extend(service_account_token::parse(wire));
        rules.extend(volumes::parse(wire)?);
        rules.extend(host_paths::parse(wire)?);
        rules.extend(probes::parse(wire));
        rules.extend(host_ports::parse(wire));
        rules.extend(termination_grace_period::parse(wire));
        rules.extend(names::parse(wire));
        rules.sort_by_key(|rule| rule.about().id);
        Ok(Self { wire: wire.clone(), rules: rules.into() })
    }
}

impl Rules {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What is wrong with a Pod, by rule, sorted by id, but for what exceptions cover.
    #[must_use]
    pub fn violations(&self, pod: &Pod, covered: Option<&Covered<'_>>) -> Vec<Violation> {
        let complaints = |rule: &dyn Rule| {
            let all = rule.complaints(pod);
            let Some(covered) = covered.filter(|_| !all.is_empty()) else { return all };
            let id = rule.about().rule();
            let stays = |complaint: &Complaint| match (complaint.about, complaint.value.as_deref()) {
                (Whose::OtherImage, _) => true,
                (Whose::Container(kind, index), None) => !covered.covers(&id, Excepted::Container(kind, index)),
                (Whose::Container(kind, index), Some(value)) => {
                    !covered.covers(&id, Excepted::ValueOf(kind, index, value))
                }
                (Whose::Pod, None) => !covered.covers_pod(&id),
                (Whose::Pod, Some(value)) => !covered.covers(&id, Excepted::Value(value)),
            };
            all.into_iter().filter(stays).collect()
        };
        let judged = self.rules.iter().filter(|rule| rule.about().windows || !pod.is_windows());
        judged
            .map(|rule| Violation { about: rule.about(), complaints: complaints(rule.as_ref()) })
            .filter(|violation| !violation.complaints.is_empty())
            .collect()
    }

    /// Those on what an update changes, though it changes nothing that runs.
    #[must_use]
    pub fn of_update(&self, moved: Moved) -> Self {
        let wire = api::Rules {
            node_selector: self.wire.node_selector.clone().filter(|_| moved.node_selector),
            tolerations: self.wire.tolerations.clone().filter(|_| moved.tolerations),
            ..api::Rules::default()
        };
        let rules: Vec<_> = names::parse(&wire).collect();
        Self { wire, rules: rules.into() }
    }

    /// The rules that are asked.
    pub fn asked(&self) -> impl Iterator<Item = &'static About> {
        self.rules.iter().map(|rule| rule.about())
    }

    /// A rule in CEL, by its id among all; `None` where it is not asked.
    pub(super) fn form_of(&self, id: &str) -> Option<Vec<Part>> {
        self.rules.iter().find(|rule| rule.about().rule() == id).map(|rule| rule.form())
    }

    /// Each rule in CEL.
    pub(super) fn forms(&self) -> impl Iterator<Item = (&'static About, Vec<Part>)> {
        self.rules.iter().map(|rule| (rule.about(), rule.form()))
    }
}

impl fmt::Display for Violation {
    /// `hardening/ID (WHO HOW; WHO HOW)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.about.rule(), self.detail())
    }
}

impl Violation {
    /// Who, and how: each complaint.
    #[must_use]
    pub fn detail(&self) -> String {
        self.complaints.iter().map(|complaint| complaint.text.as_str()).collect::<Vec<_>>().join("; ")
    }
}

impl Complaint {
    /// About the Pod.
    fn pod(text: impl Into<String>, path: Path) -> Self {
        Self { text: text.into(), path, about: Whose::Pod, value: None, fix: None }
    }

    /// About a container.
    fn container(it: Placed<'_>, field: impl Into<std::borrow::Cow<'static, str>>, text: &str) -> Self {
        Self {
            text: format!("container \"{}\" {text}", it.container.name()),
            path: it.field(field),
            about: Whose::Container(it.kind, it.index),
            value: None,
            fix: None,
        }
    }

    /// About a volume.
    fn volume(index: usize, volume: &Volume, field: &'static str, text: &str) -> Self {
        Self::pod(format!("volume \"{}\" {text}", volume.name()), Path::volume(index, field))
    }

    /// About something that was found.
    fn of_value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// With what would mend it.
    fn fixed_by(mut self, json: &'static str) -> Self {
        self.fix = Some(json);
        self
    }
}

impl Part {
    /// Containers of a list that are bad.
    fn containers(of: &'static str, bad: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Each { of, noun: "container", bad: bad.into(), text: text.into(), of_pod: false, value: None }
    }

    /// Volumes that are bad.
    fn volumes(bad: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Each { of: VOLUMES, noun: "volume", bad: bad.into(), text: text.into(), of_pod: true, value: None }
    }

    /// Volumes that show a bad image: an exception is for images of containers.
    fn image_volumes(bad: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Each { of: VOLUMES, noun: "volume", bad: bad.into(), text: text.into(), of_pod: false, value: None }
    }

    /// About what is found by an expression.
    fn of_value(mut self, found: &str) -> Self {
        if let Self::Each { value, .. } = &mut self {
            *value = Some(found.into());
        }
        self
    }

    /// The Pod, if it is bad.
    fn pod(bad: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Pod { bad: bad.into(), text: text.into() }
    }
}

/// `a, b`: how lists are told.
fn told<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// `a, b`, or `none`.
fn told_or_none<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let told = told(items);
    if told.is_empty() { "none".into() } else { told }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.wire == other.wire
    }
}

impl Eq for Rules {}

impl PartialOrd for Rules {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rules {
    fn cmp(&self, other: &Self) -> Ordering {
        self.wire.cmp(&other.wire)
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wire.fmt(f)
    }
}
