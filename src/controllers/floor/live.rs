//! The admission policies that are there, and bringing them to what is wanted.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Resource, ResourceExt as _, api::ListParams};
use serde::de::DeserializeOwned;

use super::{KIND, room::are_about};
use crate::{
    admission::{ENFORCE_CONFIGURATION, WEBHOOK_CONFIGURATION, pods_client},
    api::labels::{FLOOR, MANAGED_BY, MANAGER, PART},
    cluster::{
        Error, Result,
        apply::{Kept, Outcome, delete_seen_in, keep_in},
        error::{call, found},
        pages,
    },
    hardening::{Demand, Floor, Policies, Roomless, SELECTOR, extent, holds_in},
    runtime::metrics::{KindLabel, Metrics},
};

const FIELD_MANAGER: &str = "rampart-floor";

/// What a pass found live.
pub(super) struct Live {
    pub(super) policies: BTreeMap<String, ValidatingAdmissionPolicy>,
    pub(super) bindings: BTreeMap<String, ValidatingAdmissionPolicyBinding>,
}

impl Live {
    pub(super) async fn read(client: &Client) -> Result<Self> {
        Ok(Self { policies: list(client).await?, bindings: list(client).await? })
    }

    /// Names of what nobody wants any more.
    pub(super) fn stale<'a>(&'a self, wanted: &'a [Floor]) -> impl Iterator<Item = &'a String> {
        let names: BTreeSet<&String> = self.policies.keys().chain(self.bindings.keys()).collect();
        names.into_iter().filter(|name| !wanted.iter().any(|floor| floor.policy.metadata.name.as_ref() == Some(*name)))
    }

    /// Policies that would go, or hold in fewer namespaces.
    pub(super) fn narrowing(&self, wanted: &[Floor]) -> Vec<&ValidatingAdmissionPolicy> {
        let after = |name: &str| {
            let floor = wanted.iter().find(|floor| floor.policy.metadata.name.as_deref() == Some(name));
            floor.map(|floor| extent(&floor.policy)).unwrap_or_default()
        };
        let narrows = |name: &str, policy| !extent(policy).is_subset(&after(name));
        self.policies.iter().filter(|(name, policy)| narrows(name, policy)).map(|(_, policy)| policy).collect()
    }

    /// Those of them that hold somewhere where none of their kind is wanted: what nobody asks for any more. All others
    /// are replaced there: a policy's name follows from its content, so that an edit gives it another; and where there is
    /// no room for one, the webhook refuses in its stead.
    pub(super) fn shrinking(&self, wanted: &[Floor], roomless: &Roomless) -> Vec<&ValidatingAdmissionPolicy> {
        let mut after: BTreeSet<String> = wanted.iter().flat_map(|floor| extent(&floor.policy)).collect();
        after.extend(roomless.keys().cloned());
        self.policies.values().filter(|policy| !extent(policy).is_subset(&after)).collect()
    }

    /// Those that hold somewhere where what is wanted could not be put into force, for the places that `failed`: it may be
    /// what replaces them. No SecurityPolicy replaces what a ClusterSecurityPolicy asks, or any tenant could keep it: of
    /// namespaces, those count that are `unasked`, where the webhook is to refuse and is not asked yet.
    pub(super) fn replaced(
        &self,
        (failed, unasked): (&BTreeSet<String>, &BTreeSet<String>),
        (known, demand): (&Policies, &Demand),
    ) -> BTreeSet<String> {
        if failed.is_empty() {
            return BTreeSet::new();
        }
        let is_wide = |place: &String| place.starts_with(SELECTOR);
        let of_clusters: BTreeSet<String> =
            failed.iter().filter(|place| is_wide(place) || unasked.contains(*place)).cloned().collect();
        let [by_any, by_clusters] = [failed, &of_clusters].map(|failed| are_about(failed, (known, demand)));
        let is_replaced = |policy: &ValidatingAdmissionPolicy| {
            let (places, holds) = (extent(policy), holds_in(policy));
            if !places.iter().any(is_wide) {
                return places.iter().any(|name| by_any(name));
            }
            let mut labelled = known.labels.iter();
            !places.is_disjoint(failed) || labelled.any(|(name, labels)| holds(name, labels) && by_clusters(name))
        };
        let replaced = self.policies.iter().filter(|(_, policy)| is_replaced(policy));
        replaced.map(|(name, _)| name.clone()).collect()
    }

    /// Whether it was there, with its binding, for all the places that it is for.
    pub(super) fn has(&self, floor: &Floor) -> bool {
        let name = floor.policy.name_any();
        let there = self.policies.get(&name).map(extent).unwrap_or_default();
        self.bindings.contains_key(&name) && extent(&floor.policy).is_subset(&there)
    }

    pub(super) async fn put(&self, client: &Client, metrics: &Metrics, floor: &Floor) -> Result<()> {
        let name = floor.policy.name_any();
        let outcomes = [
            put(client, &floor.policy, self.policies.get(&name)).await?,
            put(client, &floor.binding, self.bindings.get(&name)).await?,
        ];
        for outcome in outcomes.iter().filter(|outcome| **outcome != Outcome::Unchanged) {
            tracing::info!(name, ?outcome, "admission policy");
        }
        // A binding is made once and never changes by our own doing.
        if matches!(outcomes, [_, Outcome::Changed]) {
            metrics.drift_reverted.get_or_create(&KindLabel { kind: "ValidatingAdmissionPolicyBinding" }).inc();
        }
        Ok(())
    }

    /// What bindings do that are there although nobody asks for them: a pause, and its end, are for them, too.
    pub(super) async fn set_action(
        &self,
        client: &Client,
        held: &BTreeSet<String>,
        wanted: &[Floor],
        action: &str,
    ) -> Result<()> {
        let is_wanted = |name: &String| wanted.iter().any(|floor| floor.policy.metadata.name.as_ref() == Some(name));
        for (name, binding) in self.bindings.iter().filter(|(name, _)| held.contains(*name) && !is_wanted(name)) {
            let mut as_wanted = binding.clone();
            as_wanted.metadata = ObjectMeta {
                name: Some(name.clone()),
                labels: binding.metadata.labels.clone(),
                ..ObjectMeta::default()
            };
            as_wanted.spec.validation_actions = vec![action.into()];
            put(client, &as_wanted, Some(binding)).await?;
        }
        Ok(())
    }

    /// The binding first: a policy without one refuses nothing, a binding without one is an error.
    pub(super) async fn remove(&self, client: &Client, name: &str) -> Result<()> {
        if let Some(binding) = self.bindings.get(name) {
            delete_seen_in(&Api::all(client.clone()), binding).await?;
        }
        if let Some(policy) = self.policies.get(name) {
            delete_seen_in(&Api::all(client.clone()), policy).await?;
        }
        tracing::info!(name, "admission policy removed");
        Ok(())
    }
}

fn is_ours(labels: &BTreeMap<String, String>) -> bool {
    let has = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
    has(MANAGED_BY, MANAGER) && has(PART, FLOOR)
}

pub(super) fn selector() -> String {
    format!("{MANAGED_BY}={MANAGER},{PART}={FLOOR}")
}

async fn put<K>(client: &Client, wanted: &K, live: Option<&K>) -> Result<Outcome>
where
    K: Kept + Resource<Scope = k8s_openapi::ClusterResourceScope>,
{
    let api: Api<K> = Api::all(client.clone());
    if live.is_none() {
        // Not among ours by label. One that we wrote has lost its labels; somebody else's of that name is
        // never overwritten.
        let name = wanted.name_any();
        if let Some(other) = found(call(|| format!("reading {name}"), api.get(&name)).await)?
            && !other.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
        {
            return Err(Error::Foreign { kind: KIND, name });
        }
    }
    keep_in(&api, FIELD_MANAGER, is_ours, wanted, live).await.map(|(_, outcome)| outcome)
}

async fn list<K>(client: &Client) -> Result<BTreeMap<String, K>>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let (ours, mut all) = (ListParams::default().labels(&selector()), BTreeMap::new());
    let take = |item: K| drop(all.insert(item.name_any(), item));
    pages::each(&api, ours, "admission policies", take).await?;
    Ok(all)
}

/// Whether the API server asks our webhook about pods, and can trust it.
pub(super) async fn webhook_is_asked(client: &Client) -> Result<bool> {
    Ok(configuration(client, WEBHOOK_CONFIGURATION).await?.is_some_and(|it| pods_client(&it).is_some()))
}

/// Namespaces where no pod is made without the webhook's word.
pub(in super::super) async fn webhook_alone(client: &Client) -> Result<BTreeSet<String>> {
    let webhooks = configuration(client, ENFORCE_CONFIGURATION).await?.and_then(|it| it.webhooks);
    let selectors = webhooks.into_iter().flatten().filter_map(|webhook| webhook.namespace_selector?.match_expressions);
    Ok(selectors.flatten().filter_map(|expression| expression.values).flatten().collect())
}

async fn configuration(client: &Client, name: &str) -> Result<Option<ValidatingWebhookConfiguration>> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    found(call(|| format!("reading the webhook configuration {name}"), api.get(name)).await)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rampart_pss::{Level, Version};
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::hardening::{ClusterWide, Rules, Standard, compile};

    /// What SecurityPolicies ask that differ by their version of the standard.
    fn asked(policies: &[(&str, u32)]) -> Demand {
        let mut demand = Demand::default();
        for (namespace, minor) in policies {
            let version = Version::minor(*minor);
            let standard = Standard { level: Level::Restricted, version, rules: Rules::default() };
            demand.namespaces.entry((*namespace).to_owned()).or_default().insert(standard, vec![]);
        }
        demand
    }

    /// What a ClusterSecurityPolicy asks.
    fn asked_widely(minor: u32, included: &[&str]) -> Demand {
        let policy = json!({"metadata": {"name": "wide"}, "spec": {
            "namespaceSelector": {"matchLabels": {"tier": "web"}}, "includeSystemNamespaces": included,
            "hardening": {"mode": "Enforce", "podSecurity": {"level": "restricted", "version": format!("v1.{minor}")}},
        }});
        let policy = ClusterWide::try_from(&serde_json::from_value(policy).unwrap()).unwrap();
        Demand { clusters: [("wide".to_owned(), (policy, BTreeMap::new()))].into(), ..Demand::default() }
    }

    /// How many policies narrow, and how many of them shrink, when what is asked changes.
    fn changed(before: &Demand, after: &Demand) -> (usize, usize) {
        let policies = compile(before).into_iter().map(|it| (it.policy.name_any(), it.policy)).collect();
        let (live, wanted) = (Live { policies, bindings: BTreeMap::new() }, compile(after));
        (live.narrowing(&wanted).len(), live.shrinking(&wanted, &Roomless::new()).len())
    }

    #[test]
    fn what_is_edited_is_replaced_and_does_not_shrink() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let all = |from: u32| asked(&names.iter().copied().zip(from..).collect::<Vec<_>>());
        assert_eq!(changed(&all(25), &all(25)), (0, 0));
        assert_eq!(changed(&all(25), &all(10)), (7, 0), "each has a successor");
        assert_eq!(changed(&all(25), &asked(&names.map(|name| (name, 10)))), (7, 0), "one for all of them");
        assert_eq!(changed(&asked(&[("a", 25), ("b", 25)]), &asked(&[("a", 25), ("b", 24)])), (1, 0));
        assert_eq!(changed(&asked_widely(25, &[]), &asked_widely(24, &[])), (1, 0));
    }

    #[test]
    fn what_there_is_no_room_for_does_not_shrink() {
        let before = asked(&[("a", 25), ("b", 24), ("c", 23)]);
        let policies = compile(&before).into_iter().map(|it| (it.policy.name_any(), it.policy)).collect();
        let live = Live { policies, bindings: BTreeMap::new() };
        let (within, roomless) = before.within(1);
        assert_eq!(live.shrinking(&compile(&within), &roomless).len(), 0, "the webhook refuses there");
        assert_eq!(live.shrinking(&compile(&within), &Roomless::new()).len(), 2);
    }

    #[rstest]
    #[case::a_policy_of_the_namespace(asked(&[("shop", 25)]), &["shop"], &[], 1)]
    #[case::of_another(asked(&[("books", 25)]), &["shop"], &[], 0)]
    #[case::by_the_webhook(asked_widely(25, &[]), &["shop"], &["shop"], 1)]
    #[case::by_the_webhook_elsewhere(asked_widely(25, &[]), &["books"], &["books"], 0)]
    #[case::no_tenant_keeps_a_cluster_policy(asked_widely(25, &[]), &["shop"], &[], 0)]
    #[case::by_a_cluster_policy_over_it(asked(&[("shop", 25)]), &["wide"], &[], 1)]
    #[case::by_a_cluster_policy_over_another(asked(&[("books", 25)]), &["wide"], &[], 0)]
    #[case::by_another_selector_of_the_same(asked_widely(25, &[]), &["wide"], &[], 1)]
    #[case::nothing_failed(asked_widely(25, &[]), &[], &[], 0)]
    fn what_could_not_be_put_into_force_keeps_what_it_would_replace(
        #[case] before: Demand,
        #[case] failed: &[&str],
        #[case] unasked: &[&str],
        #[case] kept: usize,
    ) {
        let policies = compile(&before).into_iter().map(|it| (it.policy.name_any(), it.policy)).collect();
        let live = Live { policies, bindings: BTreeMap::new() };
        let labels = [("tier", "web"), ("team", "shop")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let shop = ("shop".to_owned(), Arc::new(labels.into()));
        let known = Policies { labels: Arc::new([shop].into()), ..Policies::default() };
        let wide = json!({"metadata": {"name": "wide"}, "spec": {"namespaceSelector": {"matchLabels": {"team": "shop"}},
            "hardening": {"mode": "Enforce", "podSecurity": {"level": "restricted"}}}});
        let wide = ClusterWide::try_from(&serde_json::from_value(wide).unwrap()).unwrap();
        let place = |name: &&str| if *name == "wide" { wide.place() } else { (*name).to_owned() };
        let [failed, unasked] = [failed, unasked].map(|places| places.iter().map(place).collect::<BTreeSet<_>>());
        let clusters = [("wide".to_owned(), (wide.clone(), BTreeMap::new()))].into();
        let demand = Demand { clusters, ..Demand::default() };
        assert_eq!(live.replaced((&failed, &unasked), (&known, &demand)).len(), kept);
    }

    #[test]
    fn what_was_written_only_now_was_not_there() {
        let of = |floors: Vec<Floor>| Live {
            policies: floors.iter().map(|it| (it.policy.name_any(), it.policy.clone())).collect(),
            bindings: floors.into_iter().map(|it| (it.policy.name_any(), it.binding)).collect(),
        };
        let [narrow, wide] = [asked(&[("a", 25)]), asked(&[("a", 25), ("b", 25)])].map(|demand| compile(&demand));
        assert!(of(wide.clone()).has(&narrow[0]) && of(wide.clone()).has(&wide[0]));
        assert!(!of(narrow).has(&wide[0]) && !of(vec![]).has(&wide[0]));
        assert!(!Live { bindings: BTreeMap::new(), ..of(wide.clone()) }.has(&wide[0]), "nothing binds it");
    }

    #[test]
    fn what_has_no_successor_in_all_its_places_shrinks() {
        let both = asked(&[("a", 25), ("b", 25)]);
        assert_eq!(changed(&both, &Demand::default()), (1, 1));
        assert_eq!(changed(&both, &asked(&[("a", 25)])), (1, 1));
        assert_eq!(changed(&both, &asked(&[("a", 24)])), (1, 1), "nothing is asked for b");
        assert_eq!(changed(&both, &asked_widely(25, &[])), (1, 1), "another kind asks");
        assert_eq!(changed(&asked_widely(25, &[]), &both), (1, 1));
        assert_eq!(changed(&asked_widely(25, &["kube-system"]), &asked_widely(24, &[])), (1, 1));
    }
}
