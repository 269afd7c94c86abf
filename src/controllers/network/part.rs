//! What a policy becomes in one namespace, and what there is.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use rampart_reach::Policy;

use super::{
    Networks, Sight,
    index::{ByName, Live},
};
use crate::{
    api::Finding,
    cluster::{
        apply::is_as_wanted,
        owner::{Owner, is_managed},
    },
    network::{Accepting, Intent, Rendered, Unrenderable, not_expressible, render, understood},
};

/// What a policy becomes in one namespace, and what there is.
pub(in super::super) struct Part {
    /// The policy, with the namespace.
    pub(in super::super) owner: Owner,
    /// The NetworkPolicies of the namespace.
    pub(super) live: ByName,
    /// What shall be.
    pub(super) wanted: Vec<NetworkPolicy>,
    /// What rendering found.
    pub(in super::super) findings: Vec<Finding>,
    /// What can't be said.
    pub(in super::super) not_expressible: Vec<String>,
    /// The pods that it is about, by their places in the population.
    pub(super) selected: Vec<usize>,
}

impl Networks {
    /// What an intent becomes in the namespace of `owner`; `accepted` are intents of other namespaces whose other half
    /// is rendered here.
    pub(in super::super) fn part(
        &self,
        owner: Owner,
        intent: &Intent,
        accepted: &[Accepting<'_>],
        sight: &Sight,
    ) -> Result<Part, Unrenderable> {
        let live = self.index.in_namespace(&owner.namespace);
        let base = format!("rampart-{}-{}", owner.name, owner.short_uid());
        let others = live.values().filter(|other| owner.is_stranger_to(&other.object, other.was_applied));
        let others: Vec<&NetworkPolicy> = others.map(|other| &other.object).collect();
        let cluster = sight.cluster();
        let rendered = render(intent, (&owner.namespace, &base), &cluster, (&others, accepted))?;
        let Rendered { policies: mut wanted, findings } = rendered;
        for wanted in &mut wanted {
            wanted.metadata.labels.get_or_insert_default().extend(owner.labels());
        }
        let not_expressible = not_expressible(intent, &owner.namespace, &cluster);
        let selected = intent.selected(&sight.population.index, &owner.namespace);
        Ok(Part { owner, live, wanted, findings, not_expressible, selected })
    }

    /// What nothing is asked for any more in the namespace of `owner`.
    pub(in super::super) fn nothing(&self, owner: Owner) -> Part {
        let live = self.index.in_namespace(&owner.namespace);
        Part { owner, live, wanted: vec![], findings: vec![], not_expressible: vec![], selected: vec![] }
    }

    /// Namespaces where there are NetworkPolicies of a policy, and of a predecessor of its name.
    pub(in super::super) fn namespaces_of(&self, owner: &Owner) -> Vec<String> {
        let managed = self.index.filter(|it| is_managed(it.labels(), &owner.kind));
        let made = managed.iter().filter(|it| owner.made(&it.object, it.was_applied));
        let mut found: Vec<String> = made.filter_map(|it| it.object.namespace()).collect();
        found.sort();
        found.dedup();
        found
    }
}

impl Part {
    /// What shall be, as the analysis understands it.
    pub(super) fn understood(&self) -> Vec<Policy> {
        self.wanted.iter().filter_map(understood).collect()
    }

    /// Whether the cluster holds exactly what shall be.
    pub(super) fn is_in_force(&self) -> bool {
        let holds = |wanted: &NetworkPolicy| {
            self.live.get(&wanted.name_any()).is_some_and(|live| is_as_wanted(&live.object, wanted))
        };
        self.wanted.iter().all(holds) && self.stale().next().is_none()
    }

    /// What was made for this owner, or for a predecessor of its name, and is no longer rendered.
    pub(super) fn stale(&self) -> impl Iterator<Item = &NetworkPolicy> {
        let is_wanted = |name: String| self.wanted.iter().any(|wanted| wanted.name_any() == name);
        let own = self.live.values().filter(|live| self.is_own(live)).map(|live| &live.object);
        own.filter(move |object| !is_wanted(object.name_any()))
    }

    /// What Enforce rendered before, and what nothing keeps now.
    pub(in super::super) fn rendered_before(&self) -> Vec<String> {
        let own = self.live.values().filter(|live| self.is_own(live));
        own.map(|live| live.object.name_any()).collect()
    }

    /// How many pods it is about.
    pub(in super::super) fn pods(&self) -> usize {
        self.selected.len()
    }

    /// Whether it was made for this owner, or for a predecessor of its name.
    pub(super) fn is_own(&self, live: &Live) -> bool {
        self.owner.made(&live.object, live.was_applied)
    }

    /// What shall be, as a number: the same for the same specs.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for wanted in &self.wanted {
            wanted.metadata.name.hash(&mut hasher);
            serde_json::to_string(&wanted.spec).unwrap_or_default().hash(&mut hasher);
        }
        hasher.finish()
    }
}
