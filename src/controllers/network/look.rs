//! Looking at what a policy would change before it does.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use kube::ResourceExt as _;
use rampart_reach::{Change, Index, Policy};
use tokio::task::block_in_place;

use super::{Networks, Sight, index::Live, owners::Owners, part::Part};
use crate::{
    api::{Finding, NetworkPreview},
    network::{DNS_NAMESPACE, Standing, View, breaks, preview, standing, understood, widened_by},
};

/// What is asked about a change.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Asked {
    /// Whether isolation without name resolution is meant.
    pub(in super::super) allow_no_dns: bool,
    /// What may widen: any policy of others that opens more, or only those that open to everybody.
    pub(in super::super) only_open: bool,
}

/// What was seen of one part.
#[derive(Debug, Default)]
pub(in super::super) struct LookedPart {
    /// What the change would break there.
    pub(in super::super) breaks: Vec<Finding>,
    /// Policies of others that allow more, by name.
    pub(in super::super) widened_by: Vec<String>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(in super::super) struct Looked {
    /// What would change; `None` where nothing does.
    pub(in super::super) preview: Option<NetworkPreview>,
    /// By part.
    pub(in super::super) parts: Vec<LookedPart>,
}

impl Networks {
    /// What the parts of a policy change, what widens them, and what they would break. What changes of a part that was
    /// kept until now is no change of what is wanted.
    pub(in super::super) fn look(&self, parts: &[Part], sight: &Sight, asked: Asked) -> Looked {
        let index = &sight.population.index;
        let stays = |part: &Part| self.is_known(part) || part.is_in_force() || is_about_nobody(part, index);
        let stays: Vec<bool> = parts.iter().map(stays).collect();
        let may_be_widened =
            |part: &Part| !part.selected.is_empty() && part.live.values().any(|it| self.owners.is_foreign(it));
        let all_stay = stays.iter().all(|stays| *stays);
        if all_stay && !parts.iter().any(may_be_widened) {
            // Policies of the rest of the cluster need not be understood: at rest they take no memory.
            return Looked { preview: None, parts: parts.iter().map(|_| LookedPart::default()).collect() };
        }
        let began = Instant::now();
        // Threads of their own only for what takes long: each that was needed once keeps memory.
        let looked = block_in_place(|| {
            let added: Vec<Vec<Policy>> = parts.iter().map(Part::understood).collect();
            self.analyse(parts, (&added, &stays), sight, asked)
        });
        self.context.metrics.network_analysis_seconds.observe(began.elapsed().as_secs_f64());
        looked
    }

    fn analyse(
        &self,
        parts: &[Part],
        (added, stays): (&[Vec<Policy>], &[bool]),
        sight: &Sight,
        asked: Asked,
    ) -> Looked {
        let index = &sight.population.index;
        let all = self.index.filter(|_| true);
        let known = all.iter().filter_map(|live| Some((live.as_ref(), live.understood()?)));
        let changing: BTreeSet<&str> = parts
            .iter()
            .zip(stays)
            .filter(|(_, stays)| !**stays)
            .map(|(part, _)| part.owner.namespace.as_str())
            .collect();
        let is_leaving = |live: &Live| {
            parts.first().is_some_and(|part| part.is_own(live))
                && live.object.metadata.namespace.as_deref().is_some_and(|it| changing.contains(it))
        };
        let (removed, kept): (Vec<_>, Vec<_>) = known.partition(|(live, _)| is_leaving(live));
        let (removed_all, kept_all) = (policies(&removed), policies(&kept));
        let mut looked = Looked::default();
        for (part, added) in parts.iter().zip(added) {
            let widened_by = widening(part, added, (&kept, &kept_all), (sight, &self.owners), asked);
            looked.parts.push(LookedPart { widened_by, breaks: vec![] });
        }
        if changing.is_empty() {
            return looked;
        }
        let coming = || parts.iter().zip(added).zip(stays).filter(|(_, stays)| !**stays).map(|(it, _)| it);
        let added_all: Vec<&Policy> = coming().flat_map(|(_, added)| added).collect();
        let change = Change::new(index, &kept_all, &removed_all, &added_all);
        let wanted = coming().flat_map(|(part, _)| &part.wanted);
        let objects = kept.iter().chain(&removed).map(|(live, _)| &live.object).chain(wanted);
        let names: Vec<String> =
            objects.map(|it| format!("{}/{}", it.namespace().unwrap_or_default(), it.name_any())).collect();
        looked.preview = Some(preview(&change, index, &names));
        for ((part, stays), seen) in parts.iter().zip(stays).zip(&mut looked.parts) {
            if !*stays {
                seen.breaks = breaks(&View {
                    change: &change,
                    population: &sight.population,
                    selected: &part.selected,
                    around: &sight.around,
                    facts: &sight.facts,
                    policy: (&part.owner.namespace, &part.owner.name),
                    allow_no_dns: asked.allow_no_dns,
                });
            }
        }
        looked
    }

    /// How the pods of some parts stand under the policies that are in force; of those parts of which `is_programmed`
    /// says so, what they want is.
    pub(in super::super) fn standing(
        &self,
        parts: &[Part],
        sight: &Sight,
        is_programmed: impl Fn(&Part) -> bool,
    ) -> Standing {
        let selected: Vec<usize> = parts.iter().flat_map(|part| part.selected.iter().copied()).collect();
        if selected.is_empty() {
            return Standing::default();
        }
        let others = |part: &Part, programmed: bool| -> Vec<Arc<Live>> {
            part.live.values().filter(|live| !(programmed && part.is_own(live))).cloned().collect()
        };
        let mut policies: Vec<Policy> = vec![];
        for part in parts {
            let programmed = is_programmed(part);
            policies.extend(others(part, programmed).iter().filter_map(|live| understood(&live.object)));
            policies.extend(if programmed { part.understood() } else { vec![] });
        }
        if !parts.iter().any(|part| part.owner.namespace == DNS_NAMESPACE) {
            let of_servers = self.index.in_namespace(DNS_NAMESPACE);
            policies.extend(of_servers.values().filter_map(|live| understood(&live.object)));
        }
        standing(&sight.population, &sight.facts, &selected, &policies.iter().collect::<Vec<_>>())
    }
}

/// Whether neither what shall be nor what there is of a part is about any pod.
fn is_about_nobody(part: &Part, index: &Index) -> bool {
    if index.pods().is_empty() {
        return true;
    }
    let own = part.live.values().filter(|live| part.is_own(live)).filter_map(|live| live.understood());
    let added = part.understood();
    added.iter().chain(own).all(|policy| index.selected(&part.owner.namespace, &policy.pods).is_empty())
}

/// Policies of others that allow pods of a part more than it does.
fn widening(
    part: &Part,
    added: &[Policy],
    (kept, kept_all): (&[(&Live, &Policy)], &[&Policy]),
    (sight, owners): (&Sight, &Owners),
    asked: Asked,
) -> Vec<String> {
    let is_here = |live: &Live| live.object.metadata.namespace.as_ref() == Some(&part.owner.namespace);
    let is_open = |policy: &Policy| {
        let open = |rules: &Option<Vec<rampart_reach::Rule>>| rules.iter().flatten().any(|rule| rule.peers.is_none());
        open(&policy.ingress) || open(&policy.egress)
    };
    let foreign: Vec<(&Live, &Policy)> = kept
        .iter()
        .filter(|(live, policy)| is_here(live) && owners.is_foreign(live) && (!asked.only_open || is_open(policy)))
        .copied()
        .collect();
    if foreign.is_empty() || part.selected.is_empty() {
        return vec![];
    }
    let ours: Vec<&Policy> = added.iter().collect();
    let found = widened_by(&sight.population.index, &ours, kept_all, &policies(&foreign), &part.selected);
    found.into_iter().filter_map(|place| Some(foreign.get(place)?.0.object.name_any())).collect()
}

fn policies<'p>(known: &[(&Live, &'p Policy)]) -> Vec<&'p Policy> {
    known.iter().map(|(_, policy)| *policy).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::Network,
        cluster::{client::tests::nobody, owner::Owner, policy_index::PolicyIndex},
        controllers::{Context, Residents},
        network::{Facts, Intent, Population, Resident, Service, Surroundings},
    };

    fn networks() -> Networks {
        let context = Context::of_client(nobody());
        let policies = PolicyIndex::default();
        Networks::off(&context, Residents::new(policies.clone()), policies)
    }

    /// The pod `web` in each of some namespaces, behind a Service for callers outside.
    fn called_from_outside(namespaces: &[&str]) -> Sight {
        let pod = |namespace: &&str| {
            let metadata = json!({"namespace": namespace, "name": "web", "labels": {"app": "web"}});
            Resident::of(&serde_json::from_value(metadata).unwrap(), &json!({"spec": {}})).unwrap()
        };
        let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80}]});
        let service = Service::of(&serde_json::from_value(json!({"spec": spec})).unwrap()).unwrap();
        let services = namespaces.iter().map(|it| (((*it).to_owned(), "outer".to_owned()), service.clone())).collect();
        Sight {
            population: Arc::new(Population::new(vec![], namespaces.iter().map(pod))),
            facts: Facts::default(),
            around: Arc::new(Surroundings { services, ..Surroundings::default() }),
        }
    }

    fn owner(namespace: &str) -> Owner {
        let [kind, namespace, name, uid] =
            ["ClusterSecurityPolicy", namespace, "least", "0123456789"].map(str::to_owned);
        Owner { kind, namespace, name, uid }
    }

    fn isolating() -> Intent {
        let network = json!({"podSelector": {}, "isolate": ["Ingress"]});
        Intent::try_from(&serde_json::from_value::<Network>(network).unwrap()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_kept_is_put_back_without_asking_whatever_is_refused_elsewhere() {
        let (networks, sight) = (networks(), called_from_outside(&["fine", "breaking"]));
        let parts = ["fine", "breaking"].map(|it| networks.part(owner(it), &isolating(), &[], &sight).unwrap());
        let broken = || -> Vec<String> {
            let looked = networks.look(&parts, &sight, Asked { allow_no_dns: false, only_open: true });
            looked.parts.into_iter().flat_map(|it| it.breaks).map(|it| it.id).collect()
        };
        let (fine, breaking) = ("ServiceBlocked/fine/outer", "ServiceBlocked/breaking/outer");
        assert_eq!(broken(), [fine, breaking], "after a restart nobody knows what was kept");
        let [of_fine, of_breaking] = &parts;
        networks.ledger.render(&of_fine.owner.uid, "fine", Some(of_fine.fingerprint()));
        networks.leave(of_breaking);
        assert_eq!(broken(), [breaking]);
        networks.freeze(&of_fine.owner.uid);
        assert_eq!(broken(), [fine, breaking], "nothing is kept of what is suspended, or only previewed");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_predecessor_of_the_name_opened_goes_and_what_that_breaks_is_told() {
        let (networks, sight) = (networks(), called_from_outside(&["shop"]));
        let predecessor = Owner { uid: "89abcdef01".into(), ..owner("shop") };
        let policy = json!({"metadata": {"name": "rampart-least-89abcdef", "namespace": "shop",
            "labels": predecessor.labels(), "resourceVersion": "1"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}});
        networks.index.wrote(serde_json::from_value(policy).unwrap());
        let parts = [networks.part(owner("shop"), &isolating(), &[], &sight).unwrap()];
        let looked = networks.look(&parts, &sight, Asked { allow_no_dns: false, only_open: true });
        let [seen] = looked.parts.as_slice() else { panic!("{looked:?}") };
        assert_eq!(seen.breaks.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["ServiceBlocked/shop/outer"]);
        assert!(seen.widened_by.is_empty(), "{looked:?}");
        let standing = networks.standing(&parts, &sight, |_| true);
        assert_eq!(standing.isolated.ingress, 1);
    }
}
