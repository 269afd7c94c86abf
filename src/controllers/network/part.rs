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
    api::{
        Finding,
        labels::{OWNER_KIND, OWNER_NAME, OWNER_UID},
    },
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
        let others: Vec<&NetworkPolicy> =
            live.values().map(|live| &live.object).filter(|other| owner.is_stranger_to(other.labels())).collect();
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
    pub(in super::super) fn namespaces_of(&self, kind: &str, name: &str) -> Vec<String> {
        let is_of = |labels: &std::collections::BTreeMap<String, String>| {
            is_managed(labels, kind) && labels.get(OWNER_NAME).is_some_and(|owner| owner == name)
        };
        let mut found: Vec<String> =
            self.index.filter(|it| is_of(it.labels())).iter().filter_map(|it| it.object.namespace()).collect();
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
        self.live.values().map(|live| &live.object).filter(move |object| {
            let labels = object.labels();
            is_managed(labels, &self.owner.kind)
                && labels.get(OWNER_NAME) == Some(&self.owner.name)
                && !is_wanted(object.name_any())
        })
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

    /// Whether it was made for this very owner.
    pub(super) fn is_own(&self, live: &Live) -> bool {
        self.owner.owns(live.object.labels())
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

/// The kind of policy that a NetworkPolicy was made for, and its name; `None` also where its labels say otherwise than
/// its name, which nobody can edit.
pub(in super::super) fn owner_of(policy: &NetworkPolicy) -> Option<(&str, &str)> {
    let labels = policy.labels();
    let kind = labels.get(OWNER_KIND).filter(|kind| is_managed(labels, kind))?;
    let (owner, uid) = (labels.get(OWNER_NAME)?, labels.get(OWNER_UID)?);
    let made_for = policy.metadata.name.as_deref()?.strip_prefix("rampart-")?.strip_prefix(owner)?.strip_prefix('-')?;
    made_for.starts_with(uid.get(..8).unwrap_or(uid)).then_some((kind, owner))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_that_name_another_owner_than_the_name_are_not_believed() {
        let of = |name: &str, owner: &str| {
            let labels = json!({"app.kubernetes.io/managed-by": "rampart", "rampart.dev/owner-kind": "SecurityPolicy",
                "rampart.dev/owner-name": owner, "rampart.dev/owner-uid": "0123456789"});
            let policy = json!({"metadata": {"name": name, "labels": labels}});
            owner_of(&serde_json::from_value(policy).unwrap()).map(|(kind, owner)| (kind.to_owned(), owner.to_owned()))
        };
        let web = Some(("SecurityPolicy".to_owned(), "web".to_owned()));
        assert_eq!(of("rampart-web-01234567", "web"), web);
        assert_eq!(of("rampart-web-01234567-89abcdef", "web"), web, "a half");
        assert_eq!((of("rampart-web-01234567", "api"), of("rampart-web-2-01234567", "web")), (None, None));
    }
}
