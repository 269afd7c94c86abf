//! Where admission policies go on refusing what nobody asks for any more, as statuses tell it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::ResourceExt as _;

use super::live::Live;
use crate::hardening::{ClusterWide, Floor, Place, Policies, extent};

/// The ClusterSecurityPolicies that ask for admission policies, or asked for what is left, by the names of these: an edited
/// selector gives another, and nothing of the old one leads to who edited it.
#[derive(Default)]
pub(super) struct Askers(BTreeMap<String, Vec<String>>);

impl Askers {
    /// Notes who asks, and forgets who asked for what is gone.
    pub(super) fn note(&mut self, live: &Live, wanted: &[Floor]) {
        self.0.retain(|name, _| live.policies.contains_key(name));
        self.0.extend(wanted.iter().filter_map(|floor| match &floor.place {
            Place::Selected(names) => Some((floor.policy.name_any(), names.clone())),
            Place::Named(_) => None,
        }));
    }

    /// Where one that is there refuses what nobody asks of it, and what those who asked for it ask for now.
    pub(super) fn places(
        &self,
        old: &ValidatingAdmissionPolicy,
        (wanted, known): (&[Floor], &Policies),
    ) -> BTreeSet<String> {
        let name = old.name_any();
        let asked = wanted.iter().find(|floor| floor.policy.name_any() == name);
        let asked = asked.map(|floor| extent(&floor.policy)).unwrap_or_default();
        let askers = self.0.get(&name).into_iter().flatten().filter_map(|asker| known.wide.get(asker));
        let places = extent(old).into_iter().chain(askers.map(ClusterWide::place));
        places.filter(|place| !asked.contains(place)).collect()
    }

    /// Why they do that the prune brake holds, by place.
    pub(super) fn held(
        &self,
        held: &BTreeMap<String, String>,
        live: &Live,
        asked: (&[Floor], &Policies),
    ) -> BTreeMap<String, String> {
        let held = held.iter().filter_map(|(name, why)| Some((live.policies.get(name)?, why)));
        held.flat_map(|(old, why)| self.places(old, asked).into_iter().map(move |place| (place, why.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hardening::{Demand, compile};

    /// What a ClusterSecurityPolicy asks.
    fn asking(tier: &str) -> Demand {
        let policy = json!({"metadata": {"name": "wide"}, "spec": {"namespaceSelector": {"matchLabels": {"tier": tier}},
            "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}}}});
        let policy = ClusterWide::try_from(&serde_json::from_value(policy).unwrap()).unwrap();
        Demand { clusters: [("wide".to_owned(), (policy, BTreeMap::new()))].into(), ..Demand::default() }
    }

    fn place(demand: &Demand) -> String {
        demand.clusters["wide"].0.place()
    }

    #[test]
    fn what_is_held_of_an_edited_selector_is_told_to_who_edited_it() {
        let [before, after] = ["web", "db"].map(asking);
        let [old, new] = [&before, &after].map(compile);
        let live = |floors: &[Floor]| Live {
            policies: floors.iter().map(|it| (it.policy.name_any(), it.policy.clone())).collect(),
            bindings: BTreeMap::new(),
        };
        let wide = after.clusters.iter().map(|(name, (policy, _))| (name.clone(), policy.clone())).collect();
        let known = Policies { wide: std::sync::Arc::new(wide), ..Policies::default() };
        let held = [(old[0].policy.name_any(), "it waits".to_owned())].into();
        let mut askers = Askers::default();
        let told = |askers: &Askers| askers.held(&held, &live(&old), (&new, &known)).into_keys().collect::<Vec<_>>();
        assert_eq!(told(&askers), [place(&before)], "another leader does not know who asked");
        askers.note(&live(&[]), &old);
        askers.note(&live(&old), &new);
        assert_eq!(told(&askers).into_iter().collect::<BTreeSet<_>>(), [place(&before), place(&after)].into());
        askers.note(&live(&new), &new);
        assert_eq!(told(&askers), [place(&before)], "it was gone");
        assert!(askers.held(&held, &live(&old), (&old, &known)).is_empty(), "it is asked for");
    }
}
