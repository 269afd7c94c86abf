//! Every policy of a cluster: which of them cover a namespace, and what admission policies must enforce.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    ClusterWide, Covering, Demand, Eldest, Exception, Exceptions, Origin, Requirement, Standard, is_system_namespace,
};
use crate::{
    api::{HardeningMode, NetworkMode},
    keys::Caps,
    network::Intent,
};

/// Different requirements of one namespace that become admission policies: each costs every pod of the
/// cluster (10 us and 1 MB of the API server), and tenants write them. The webhook enforces the rest.
pub const FLOORS: usize = 8;

type Labels = BTreeMap<String, String>;

/// Every policy of a cluster. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Of SecurityPolicies, by namespace.
    pub own: Arc<HashMap<String, Arc<[Covering]>>>,
    /// Of ClusterSecurityPolicies, by name.
    pub wide: Arc<BTreeMap<String, ClusterWide>>,
    /// Labels of namespaces: each by itself, so that one that changes takes no copy of the others.
    pub labels: Arc<HashMap<String, Arc<Labels>>>,
    /// Exceptions by namespace, permitted or not.
    pub exceptions: Arc<HashMap<String, Vec<Exception>>>,
}

/// Labels of a namespace; none of one that is not known.
fn labels_in<'l>(all: &'l HashMap<String, Arc<Labels>>, namespace: &str) -> &'l Labels {
    static NONE: Labels = Labels::new();
    all.get(namespace).map_or(&NONE, Arc::as_ref)
}

impl Policies {
    /// Labels of a namespace; none of one that is not known.
    #[must_use]
    pub fn labels_of(&self, namespace: &str) -> &Labels {
        labels_in(&self.labels, namespace)
    }

    /// What SecurityPolicies of a namespace ask; those of system namespaces are not heard.
    #[must_use]
    pub fn own(&self, namespace: &str) -> Arc<[Covering]> {
        self.own.get(namespace).filter(|_| !is_system_namespace(namespace)).cloned().unwrap_or_default()
    }

    /// Policies that cover a namespace with these labels, with the exceptions that are permitted there.
    #[must_use]
    pub fn covering(&self, namespace: &str, labels: &Labels) -> Arc<[Covering]> {
        let own = self.own(namespace);
        let wide: Vec<Covering> = self
            .wide
            .iter()
            .filter(|(_, policy)| policy.requirement.mode != HardeningMode::Disabled)
            .filter(|(_, policy)| policy.covers(namespace, labels))
            .map(|(name, policy)| Covering {
                origin: Origin::ClusterSecurityPolicy(name.clone()),
                made: None,
                requirement: policy.requirement.clone(),
                exceptions: Arc::default(),
            })
            .collect();
        let permitted = self.permitted(namespace);
        if permitted.is_empty() {
            return if wide.is_empty() { own } else { wide.into_iter().chain(own.iter().cloned()).collect() };
        }
        wide.into_iter().chain(own.iter().cloned()).map(|covering| excepting(covering, &permitted)).collect()
    }

    /// Intents of ClusterSecurityPolicies that are enforced in a namespace, by the names of the policies.
    #[must_use]
    pub fn least_of(&self, namespace: &str) -> Vec<(String, Arc<Intent>)> {
        let labels = self.labels_of(namespace);
        let here = self
            .wide
            .iter()
            .filter(|(_, policy)| policy.network_mode == NetworkMode::Enforce && policy.isolates(namespace, labels));
        here.filter_map(|(name, policy)| Some((name.clone(), policy.network.clone()?))).collect()
    }

    /// Namespaces where other ClusterSecurityPolicies enforce isolation than under the labels of before.
    #[must_use]
    pub fn isolated_otherwise(&self, before: &HashMap<String, Arc<Labels>>) -> BTreeSet<String> {
        let differs = |namespace: &str| {
            // What did not change is the same Arc, and nothing of it is compared.
            if before.get(namespace) == self.labels.get(namespace) {
                return false;
            }
            let [then, now] = [before, &*self.labels].map(|labels| labels_in(labels, namespace));
            let mut enforced = self.wide.values().filter(|policy| policy.network_mode == NetworkMode::Enforce);
            enforced.any(|policy| policy.isolates(namespace, then) != policy.isolates(namespace, now))
        };
        self.labels.keys().filter(|namespace| differs(namespace)).cloned().collect()
    }

    /// What ApiKeys of a namespace with these labels may ask for.
    #[must_use]
    pub fn key_caps(&self, namespace: &str, labels: &Labels) -> Caps {
        let here = self.wide.iter().filter(|(_, policy)| policy.covers(namespace, labels));
        Caps::of(here.filter_map(|(name, policy)| Some((name.clone(), policy.key_caps.clone()?))).collect())
    }

    /// Namespaces where pods are completed, or would be.
    #[must_use]
    pub fn fixing(&self) -> BTreeSet<String> {
        self.namespaces_where(Requirement::fixes)
    }

    /// Namespaces where something is refused.
    #[must_use]
    pub fn refusing(&self) -> BTreeSet<String> {
        self.namespaces_where(Requirement::refuses)
    }

    /// Namespaces where something is refused that admission policies do not refuse.
    #[must_use]
    pub fn needing_webhook(&self) -> BTreeSet<String> {
        let crowded = |namespace: &&String| asked(&self.own(namespace)).len() > FLOORS;
        let mut found = self.namespaces_where(Requirement::needs_webhook);
        found.extend(self.own.keys().filter(crowded).cloned());
        found
    }

    /// Namespaces that a policy covers of which that is true; no webhook is ever asked about system namespaces.
    fn namespaces_where(&self, is_so: impl Fn(&Requirement) -> bool) -> BTreeSet<String> {
        let own = self.own.keys().filter(|namespace| self.own(namespace).iter().any(|it| is_so(&it.requirement)));
        let wide: Vec<&ClusterWide> = self.wide.values().filter(|policy| is_so(&policy.requirement)).collect();
        let covered = self.labels.iter().filter(|(namespace, labels)| {
            !is_system_namespace(namespace) && wide.iter().any(|policy| policy.covers(namespace, labels))
        });
        own.chain(covered.map(|(namespace, _)| namespace)).cloned().collect()
    }

    /// A policy with the exceptions from it that are permitted in a namespace.
    #[must_use]
    pub fn excepting(&self, namespace: &str, covering: Covering) -> Covering {
        excepting(covering, &self.permitted(namespace))
    }

    /// The SecurityPolicies that an exception of a namespace names, and that ask nothing of pods there.
    #[must_use]
    pub fn missing<'e>(&self, namespace: &str, exception: &'e Exception) -> Vec<&'e str> {
        let own = self.own(namespace);
        let missing = exception.policies.iter().filter(|named| own.iter().all(|covering| covering.origin != **named));
        let own_name = |origin: &'e Origin| match origin {
            Origin::SecurityPolicy(name) => Some(name.as_str()),
            _ => None,
        };
        missing.filter_map(own_name).collect()
    }

    /// The exceptions of a namespace that ClusterSecurityPolicies permit.
    fn permitted(&self, namespace: &str) -> Exceptions {
        let all = self.exceptions.get(namespace).into_iter().flatten();
        all.filter(|exception| exception.permitted(namespace, &self.wide).is_ok()).cloned().collect()
    }

    /// What shall be enforced by admission policies from a time on.
    #[must_use]
    pub fn demand(&self, now: Timestamp) -> Demand {
        let lifting: BTreeMap<&String, Exceptions> = self
            .exceptions
            .keys()
            .map(|namespace| {
                let permitted = self.permitted(namespace).into_iter();
                (namespace, permitted.filter(|exception| exception.holds(now)).collect())
            })
            .collect();
        let (mut namespaces, mut eldest) = (BTreeMap::new(), BTreeMap::<Standard, Eldest>::new());
        for namespace in self.own.keys() {
            let exceptions = lifting.get(namespace).map(Vec::as_slice).unwrap_or_default();
            let mut asked = BTreeMap::new();
            for (standard, (made, origin), exceptions) in standards(&self.own(namespace), exceptions) {
                let name = origin.named().map(|(_, name)| name.to_owned()).unwrap_or_default();
                let asking = (made, namespace.clone(), name);
                let first = eldest.entry(standard.clone()).or_insert_with(|| asking.clone());
                if asking < *first {
                    *first = asking;
                }
                asked.insert(standard, exceptions);
            }
            if !asked.is_empty() {
                namespaces.insert(namespace.clone(), asked);
            }
        }
        let clusters = self.wide.iter().filter(|(_, policy)| policy.requirement.has_floor());
        let clusters = clusters.map(|(name, policy)| {
            let origin = Origin::ClusterSecurityPolicy(name.clone());
            let about = |exceptions: &Exceptions| -> Exceptions {
                exceptions.iter().filter(|exception| exception.policies.contains(&origin)).cloned().collect()
            };
            let lifting = lifting.iter().map(|(namespace, exceptions)| ((*namespace).clone(), about(exceptions)));
            (name.clone(), (policy.clone(), lifting.filter(|(_, exceptions)| !exceptions.is_empty()).collect()))
        });
        Demand { namespaces, eldest, clusters: clusters.collect() }
    }
}

fn excepting(covering: Covering, permitted: &[Exception]) -> Covering {
    let exceptions = permitted.iter().filter(|it| it.policies.contains(&covering.origin)).cloned().collect();
    Covering { exceptions, ..covering }
}

/// A policy of a namespace that asks, and when it was made.
type Asking<'p> = (Option<Timestamp>, &'p Origin);

/// The standards that policies of a namespace enforce, where there are too many those of the oldest policies; each with
/// the oldest that asks for it, and the exceptions that name every one of those that do: what another policy refuses must
/// stay refused.
fn standards<'p>(policies: &'p [Covering], exceptions: &[Exception]) -> Vec<(Standard, Asking<'p>, Exceptions)> {
    let lifting = |asking: &[Asking<'_>]| -> Exceptions {
        let names_all = |it: &&Exception| asking.iter().all(|(_, origin)| it.policies.contains(*origin));
        exceptions.iter().filter(names_all).cloned().collect()
    };
    let asked = asked(policies).into_iter();
    let mut ranked: Vec<(Asking<'p>, Standard, Vec<Asking<'p>>)> =
        asked.filter_map(|(standard, asking)| Some((*asking.iter().min()?, standard, asking))).collect();
    ranked.sort_by_key(|(eldest, ..)| *eldest);
    ranked.truncate(FLOORS);
    ranked.into_iter().map(|(eldest, standard, asking)| (standard, eldest, lifting(&asking))).collect()
}

/// The standards that admission policies shall enforce for policies of a namespace, and who asks for each.
fn asked(policies: &[Covering]) -> BTreeMap<Standard, Vec<Asking<'_>>> {
    let mut asked: BTreeMap<Standard, Vec<Asking<'_>>> = BTreeMap::new();
    for covering in policies.iter().filter(|covering| covering.requirement.has_floor()) {
        asked.entry(covering.requirement.standard()).or_default().push((covering.made, &covering.origin));
    }
    asked
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn requirement(more: &Value) -> Requirement {
        let mut hardening = json!({"mode": "Enforce", "podSecurity": {"level": "restricted"}});
        hardening.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Requirement::try_from(&serde_json::from_value(hardening).unwrap()).unwrap()
    }

    fn own(namespace: &str, asked: &[Value]) -> (String, Arc<[Covering]>) {
        let covering = |(nth, more): (usize, &Value)| Covering {
            origin: Origin::SecurityPolicy(nth.to_string()),
            made: None,
            requirement: requirement(more),
            exceptions: Arc::default(),
        };
        (namespace.into(), asked.iter().enumerate().map(covering).collect())
    }

    fn names(found: BTreeSet<String>) -> Vec<String> {
        found.into_iter().collect()
    }

    #[test]
    fn the_webhook_is_needed_where_no_admission_policy_refuses() {
        let many: Vec<Value> = (0..=FLOORS)
            .map(|minor| json!({"podSecurity": {"level": "baseline", "version": format!("v1.{minor}")}}))
            .collect();
        let none = json!({"admissionPolicy": "None"});
        let policies = Policies {
            own: Arc::new(
                [
                    own("generated", &[json!({})]),
                    own("none", &[json!({}), none.clone()]),
                    own("only-audited", &[json!({"mode": "Audit", "admissionPolicy": "None"})]),
                    own(
                        "nothing-to-refuse",
                        &[json!({"podSecurity": {"level": "privileged"}, "admissionPolicy": "None"})],
                    ),
                    own("crowded", &many),
                    own("kube-system", &[none]),
                ]
                .into(),
            ),
            ..Policies::default()
        };
        assert_eq!(names(policies.needing_webhook()), ["crowded", "none"]);
        assert_eq!(names(policies.refusing()), ["crowded", "generated", "none"]);
    }

    #[test]
    fn the_oldest_policies_have_the_admission_policies_of_their_namespace_whatever_they_ask() {
        let asks = |minor: usize| json!({"podSecurity": {"level": "baseline", "version": format!("v1.{minor}")}});
        let at = |second: usize| Timestamp::from_second(i64::try_from(second).unwrap()).ok();
        // Of policies that were made one after another.
        let demand = |minors: &[usize]| {
            let asked: Vec<Value> = minors.iter().map(|minor| asks(*minor)).collect();
            let (namespace, asking) = own("crowded", &asked);
            let made = asking.iter().enumerate().map(|(nth, it)| Covering { made: at(nth), ..it.clone() });
            let policies = Policies { own: Arc::new([(namespace, made.collect())].into()), ..Policies::default() };
            policies.demand(Timestamp::UNIX_EPOCH)
        };
        let standard = |minor: usize| requirement(&asks(minor)).standard();
        let named = |nth: usize| (at(nth), "crowded".to_owned(), nth.to_string());
        let has = |demand: &Demand, minor: usize| demand.namespaces["crowded"].contains_key(&standard(minor));
        let mut minors: Vec<usize> = (0..=FLOORS).rev().collect();
        let before = demand(&minors);
        assert!(has(&before, FLOORS) && has(&before, 1) && !has(&before, 0), "the youngest waits");
        assert_eq!(before.eldest.len(), FLOORS);
        assert_eq!(before.eldest[&standard(1)], named(FLOORS - 1));
        minors[1] = FLOORS + 1;
        let edited = demand(&minors);
        assert!(has(&edited, FLOORS + 1) && !has(&edited, 0), "an edit loses no place");
        // The youngest asks what the oldest does.
        minors[FLOORS] = FLOORS;
        assert_eq!(demand(&minors).eldest[&standard(FLOORS)], named(0));
    }

    #[test]
    fn an_exception_from_what_asks_nothing_is_found() {
        let exception: crate::api::PolicyException =
            serde_json::from_value(json!({"metadata": {"name": "e"}, "spec": {
            "policies": [{"kind": "SecurityPolicy", "name": "0"}, {"kind": "SecurityPolicy", "name": "typo"},
                         {"kind": "ClusterSecurityPolicy", "name": "wide"}],
            "rules": [], "images": ["**"], "reason": "a test", "expiresAt": "2026-12-31T00:00:00Z"}}))
            .unwrap();
        let exception = Exception::try_from(&exception).unwrap();
        let policies = Policies { own: Arc::new([own("shop", &[json!({})])].into()), ..Policies::default() };
        assert_eq!(policies.missing("shop", &exception), ["typo"]);
        assert_eq!(policies.missing("books", &exception), ["0", "typo"]);
    }

    #[test]
    fn a_namespace_is_isolated_by_the_labels_that_it_gets() {
        let wide = |mode: &str| {
            let network = json!({"mode": mode, "podSelector": {}, "isolate": ["Ingress"]});
            let spec = json!({"namespaceSelector": {"matchLabels": {"team": "a"}}, "network": network});
            let policy = serde_json::from_value(json!({"metadata": {"name": mode}, "spec": spec})).unwrap();
            (mode.to_owned(), ClusterWide::try_from(&policy).unwrap())
        };
        let labels = |teams: [&str; 3]| -> HashMap<String, Arc<Labels>> {
            let label = |team: &str| Arc::new(Labels::from([("team".to_owned(), team.to_owned())]));
            ["gets", "loses", "other"].into_iter().zip(teams).map(|(name, team)| (name.into(), label(team))).collect()
        };
        let otherwise = |policy: (String, ClusterWide)| {
            let (wide, labels_now) = (Arc::new([policy].into()), Arc::new(labels(["a", "b", "c"])));
            let policies = Policies { wide, labels: labels_now, ..Policies::default() };
            names(policies.isolated_otherwise(&labels(["b", "a", "b"])))
        };
        assert_eq!(otherwise(wide("Enforce")), ["gets", "loses"]);
        assert!(Policies::default().labels_of("gets").is_empty(), "one that is not known has none");
        assert!(otherwise(wide("Preview")).is_empty());
    }

    #[test]
    fn pods_are_fixed_where_a_policy_says_so_by_name_or_by_label() {
        let wide: crate::api::ClusterSecurityPolicy = serde_json::from_value(json!({
            "metadata": {"name": "w"}, "spec": {
                "namespaceSelector": {"matchLabels": {"team": "a"}}, "includeSystemNamespaces": ["kube-system"],
                "hardening": {"mode": "Audit", "podSecurity": {"level": "restricted"}, "fix": "Preview"}},
        }))
        .unwrap();
        let labels = |team: &str| Arc::new(Labels::from([("team".to_owned(), team.to_owned())]));
        let policies = Policies {
            own: Arc::new(
                [own("own", &[json!({"fix": "Apply"})]), own("off", &[json!({"fix": "Apply", "mode": "Disabled"})])]
                    .into(),
            ),
            wide: Arc::new([("w".to_owned(), ClusterWide::try_from(&wide).unwrap())].into()),
            labels: Arc::new(
                [("a".to_owned(), labels("a")), ("b".to_owned(), labels("b")), ("kube-system".to_owned(), labels("a"))]
                    .into(),
            ),
            ..Policies::default()
        };
        assert_eq!(names(policies.fixing()), ["a", "own"]);
    }
}
