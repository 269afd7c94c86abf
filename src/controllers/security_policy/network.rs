//! The network part of a policy: render, preview, guard, keep.

use std::collections::BTreeSet;

use kube::{core::DeserializeGuard, runtime::reflector::ObjectRef};

use super::{
    super::{
        Next,
        network::{
            Asked, Before, ENFORCE_REFUSED, Kept, Part, REFUSED_AGAIN, Sight, conditions_of, cut, failing, open_first,
            previewed, programmed, stalled, unacknowledged,
        },
    },
    SecurityPolicies,
};
use crate::{
    api::{
        Finding, MOST_FINDINGS, MOST_NAMED, MOST_RENDERED, NetworkMode, NetworkPreview, NetworkStatus, SecurityPolicy,
        condition::{Conditions, Type, WRITE_REFUSED},
    },
    cluster::{Result, owner::Owner},
    network::{Accepting, Intent, Standing, Unrenderable, unmet},
    policy::{self, Refused},
};

/// What there is to say about the network part of a policy.
pub(super) enum Network {
    /// The spec asks for none, or disables it.
    Absent,
    /// Worked out, and not written; with why it is as if every address lay outside, where it is.
    Previewed(Box<Told>, Option<(&'static str, String)>),
    /// Rendered and kept.
    Programmed(Box<Told>),
    /// Can't be, and why; with what is known all the same.
    NotProgrammed(&'static str, String, Option<Box<Told>>),
    /// Failed again and again, and why; what was said stays.
    Failed(&'static str, String),
}

/// What is known of an intent.
pub(super) struct Told {
    status: NetworkStatus,
    standing: Standing,
    sight: Sight,
    /// Rules of which less is rendered than they say.
    unmet: BTreeSet<String>,
}

impl Network {
    /// When to look again without being told of a change.
    pub(super) fn next(&self) -> Next {
        match self {
            Self::NotProgrammed(WRITE_REFUSED, ..) => Next::After(REFUSED_AGAIN),
            _ => Next::Change,
        }
    }
}

impl SecurityPolicies {
    pub(super) async fn network(&self, policy: &SecurityPolicy, owner: &Owner) -> Result<Network> {
        let refused = |reason, message: String| Ok(Network::NotProgrammed(reason, message, None));
        let intent = match policy::intent(policy, &owner.namespace) {
            Ok(intent) => intent,
            Err(error @ Refused::NotPermitted(_)) => return refused("NotPermitted", error.to_string()),
            Err(Refused::Invalid(invalid)) => return refused("Invalid", invalid.to_string()),
        };
        if !self.networks.is_on {
            return Ok(Network::Absent);
        }
        let Some((intent, spec)) = intent.zip(policy.spec.network.as_ref()) else {
            return match self.networks.remove_stale(&self.networks.nothing(owner.clone())).await? {
                Kept::Refused(message) => refused(WRITE_REFUSED, message),
                _ => Ok(Network::Absent),
            };
        };
        let sight = self.networks.sight();
        let least = self.networks.least_of(&owner.namespace);
        let least = least.iter().map(|(name, intent)| (name.as_str(), &**intent));
        let (intent, clamped) = intent.clamped(&owner.namespace, least);
        self.networks.tell_of_api_server(policy, &intent, &sight).await;
        let enforces = spec.mode == NetworkMode::Enforce;
        if !enforces {
            self.networks.freeze(&owner.uid);
        }
        let (mut part, unknown) = match self.part(owner, &intent, &sight) {
            Ok(part) => part,
            // What was rendered before stays: closing or opening anything by accident is worse.
            Err(unrenderable) => return refused(unrenderable.reason(), unrenderable.to_string()),
        };
        part.findings.extend(self.unused_consents(&intent));
        let before = before(policy);
        let parts = [part];
        let asked = Asked { allow_no_dns: spec.allow_no_dns == Some(true), only_open: false };
        // What the cluster makes of the same spec may be narrower than before, as where a clamp was added, also while
        // nobody ran: what is found otherwise after a restart is asked.
        let looked = self.networks.look(&parts, &sight, asked);
        let [part] = parts;
        let seen = looked.parts.into_iter().next().unwrap_or_default();
        let open = unacknowledged(&seen.breaks, &spec.acknowledge);
        let refusal = match &unknown {
            Some(error) => Some((error.reason(), error.to_string())),
            None if enforces => self.networks.refusal(policy, &before, &open).await,
            None => None,
        };
        if unknown.is_none() && refusal.is_some() {
            self.networks.leave(&part);
        }
        let breaks = open_first(seen.breaks, &spec.acknowledge);
        let is_told = refusal.is_some() || !enforces;
        let nothing = || is_told.then(NetworkPreview::default);
        let unmet = unmet(clamped.iter().chain(&part.findings));
        let mut status = NetworkStatus {
            selected_pods: Some(i64::try_from(part.pods()).unwrap_or(i64::MAX)),
            preview: looked.preview.filter(|_| is_told).or_else(nothing),
            widened_by: seen.widened_by,
            not_expressible: part.not_expressible.clone(),
            findings: breaks.into_iter().chain(clamped).chain(part.findings.clone()).collect(),
            ..NetworkStatus::default()
        };
        status.more_widened_by = cut(&mut status.widened_by, MOST_NAMED);
        status.more_not_expressible = cut(&mut status.not_expressible, MOST_NAMED);
        status.more_findings = cut(&mut status.findings, MOST_FINDINGS);
        let shown = (status.findings.as_slice(), status.widened_by.as_slice());
        self.networks.tell(policy, &before, status.preview.as_ref(), shown).await;
        status.rendered = part.rendered_before();
        let programs = enforces && refusal.is_none();
        if programs {
            match self.networks.program(policy, &part).await? {
                Kept::Programmed(names) => status.rendered = names,
                Kept::Conflicted(message) => return refused("Conflicted", message),
                Kept::Refused(message) => return refused(WRITE_REFUSED, message),
            }
        }
        let parts = [part];
        let standing = self.networks.standing(&parts, &sight, |_| programs);
        status.isolated = Some(standing.isolated);
        let told = Box::new(Told { status, standing, sight, unmet });
        Ok(match refusal {
            Some((reason, message)) if enforces => Network::NotProgrammed(reason, message, Some(told)),
            _ if programs => Network::Programmed(told),
            unknown => Network::Previewed(told, unknown),
        })
    }

    /// What an intent becomes. Where that can't be known for want of the cluster's ranges, what it would be if all
    /// addresses that are asked for lay outside, to be told and not written.
    fn part(
        &self,
        owner: &Owner,
        intent: &Intent,
        sight: &Sight,
    ) -> std::result::Result<(Part, Option<Unrenderable>), Unrenderable> {
        let accepted = self.accepted(intent);
        let accepting: Vec<Accepting<'_>> =
            accepted.iter().map(|(namespace, name, intent)| Accepting { namespace, name, intent }).collect();
        let part = |sight: &Sight| self.networks.part(owner.clone(), intent, &accepting, sight);
        match part(sight) {
            Err(error) if error.is_of_ranges() => Ok((part(&sight.without_ranges())?, Some(error))),
            part => Ok((part?, None)),
        }
    }

    /// The intents of other namespaces that one accepts, with namespace and name: those that are enforced.
    fn accepted(&self, intent: &Intent) -> Vec<(String, String, Intent)> {
        let find = |(namespace, name): &(String, String)| {
            let root = self.roots.store.get(&ObjectRef::new(name).within(namespace))?;
            policy::accepted(intent, root.0.as_ref().ok()?)
        };
        intent.accept_from.iter().filter_map(find).collect()
    }

    /// What an intent accepts and nothing comes of.
    fn unused_consents(&self, intent: &Intent) -> Vec<Finding> {
        let unused = |(namespace, name): &(String, String)| {
            let root = self.roots.store.get(&ObjectRef::new(name).within(namespace));
            let why = match root.as_deref().map(|root| &root.0) {
                Some(Err(_)) => "it can't be read, as its status tells",
                Some(Ok(policy)) => policy::consent_unused(Some(policy))?,
                None => policy::consent_unused(None)?,
            };
            let message =
                format!("acceptFrom names policy {name} of namespace {namespace}, and nothing is opened for it: {why}");
            Some(Finding { id: format!("ConsentUnused/{namespace}/{name}"), message })
        };
        intent.accept_from.iter().filter_map(unused).collect()
    }

    /// Wakes those that accept from a policy which changed.
    pub(super) fn wake_accepting(&self, policy: &SecurityPolicy, owner: &Owner) {
        if !self.networks.is_news(&owner.uid, policy.metadata.generation) {
            return;
        }
        let accepts = |root: &DeserializeGuard<SecurityPolicy>| accepts_from(root, &owner.namespace, &owner.name);
        self.roots.wake(&self.one, accepts);
    }
}

fn accepts_from(root: &DeserializeGuard<SecurityPolicy>, namespace: &str, name: &str) -> bool {
    let network = root.0.as_ref().ok().and_then(|policy| policy.spec.network.as_ref());
    network.is_some_and(|it| it.accept_from.iter().any(|it| it.namespace == namespace && it.policy == name))
}

/// Whether it accepts from anybody.
pub(super) fn accepts(root: &DeserializeGuard<SecurityPolicy>) -> bool {
    let network = root.0.as_ref().ok().and_then(|policy| policy.spec.network.as_ref());
    network.is_some_and(|network| !network.accept_from.is_empty())
}

fn before(policy: &SecurityPolicy) -> Before<'_> {
    let Some(status) = &policy.status else { return Before::default() };
    let network = status.network.as_ref();
    Before {
        conditions: &status.conditions,
        is_current: status.observed_generation == policy.metadata.generation,
        had_preview: network.is_some_and(|it| it.preview.is_some()),
        findings: network.map(|it| it.findings.as_slice()).unwrap_or_default(),
        widened_by: network.map(|it| it.widened_by.as_slice()).unwrap_or_default(),
    }
}

/// Sets the conditions that the network part decides; returns what status holds of it.
pub(super) fn tell_network(
    policy: &SecurityPolicy,
    network: Network,
    conditions: &mut Conditions,
) -> Option<NetworkStatus> {
    let mut unrendered = None;
    let told = match network {
        Network::Absent => {
            conditions.set(Type::Accepted, true, "Accepted", "");
            conditions.set(Type::Programmed, true, "NothingToRender", "the spec asks for no NetworkPolicies");
            conditions.set(Type::Ready, true, "Ready", "");
            return None;
        }
        Network::Previewed(told, unknown) => {
            conditions.set(Type::Accepted, true, "Accepted", "");
            previewed(conditions);
            unrendered = unknown;
            told
        }
        Network::Programmed(told) => {
            conditions.set(Type::Accepted, true, "Accepted", "");
            programmed(&format!("{} NetworkPolicies", told.status.rendered.len()), &told.unmet, conditions);
            told
        }
        Network::Failed(reason, message) => {
            let last = policy.status.as_ref();
            failing(last.map(|it| it.conditions.as_slice()).unwrap_or_default(), reason, &message, conditions);
            return last.and_then(|status| status.network.clone());
        }
        Network::NotProgrammed(reason, message, told) => {
            let is_accepted = !matches!(reason, "Invalid" | "Conflicted" | "NotPermitted");
            stalled(conditions, is_accepted, reason, &message);
            let Some(told) = told else {
                conditions.set(Type::Rendered, matches!(reason, "Conflicted" | WRITE_REFUSED), reason, "");
                conditions.set(Type::Analyzed, false, reason, "");
                return policy.status.as_ref().and_then(|status| status.network.clone());
            };
            // Worked out all the same, as if every address lay outside, but not what is to be written.
            unrendered = (reason != ENFORCE_REFUSED).then_some((reason, message));
            told
        }
    };
    let Told { mut status, standing, sight, .. } = *told;
    // How many there are was said.
    status.rendered.truncate(MOST_RENDERED);
    conditions_of(&standing, &sight, &status.widened_by, conditions);
    if let Some((reason, message)) = unrendered {
        conditions.set(Type::Rendered, false, reason, message);
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::network::{Facts, Population};

    #[test]
    fn a_preview_tells_that_ranges_are_unknown() {
        let policy: SecurityPolicy =
            serde_json::from_value(json!({"metadata": {"name": "web", "generation": 1}, "spec": {}})).unwrap();
        let told = Box::new(told(NetworkStatus::default()));
        let mut conditions = Conditions::of_generation(Some(1));
        tell_network(&policy, Network::Previewed(told, Some(("UnknownClusterRanges", "why".into()))), &mut conditions);
        let conditions = conditions.carried_from(&[], Timestamp::UNIX_EPOCH);
        let find = |kind: &str| conditions.iter().find(|it| it.type_ == kind).unwrap();
        let rendered = find("Rendered");
        assert_eq!((rendered.reason.as_str(), rendered.message.as_str()), ("UnknownClusterRanges", "why"));
        assert_eq!((rendered.status.as_str(), find("Ready").status.as_str()), ("False", "True"));
    }

    /// Of an empty cluster.
    fn told(status: NetworkStatus) -> Told {
        let population = Arc::new(Population::new(vec![], std::iter::empty()));
        let sight = Sight { population, facts: Facts::default(), around: Arc::default() };
        Told { status, standing: Standing::default(), sight, unmet: BTreeSet::new() }
    }

    #[test]
    fn status_holds_as_many_names_as_its_schema_takes_and_counts_all() {
        let policy: SecurityPolicy =
            serde_json::from_value(json!({"metadata": {"name": "web", "generation": 1}, "spec": {}})).unwrap();
        let rendered = (0..=MOST_RENDERED).map(|nth| format!("rampart-web-{nth}")).collect();
        let status = NetworkStatus { rendered, ..NetworkStatus::default() };
        let programmed = Network::Programmed(Box::new(told(status)));
        let mut conditions = Conditions::of_generation(Some(1));
        let told = tell_network(&policy, programmed, &mut conditions).unwrap();
        assert_eq!(told.rendered.len(), MOST_RENDERED);
        let conditions = conditions.carried_from(&[], Timestamp::UNIX_EPOCH);
        let programmed = conditions.iter().find(|it| it.type_ == "Programmed").unwrap();
        assert_eq!(programmed.message, "65 NetworkPolicies are as rendered");
    }
}
