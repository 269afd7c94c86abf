//! How the pods of an intent stand under the policies that are in force.

use std::collections::{BTreeMap, HashMap};

use rampart_reach::{Change, End, Policy};

use super::{
    Facts, Population,
    servers::{DNS_NAMESPACE, api_servers, name_servers},
};
use crate::api::Isolated;

/// How some pods stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// How many of them policies isolate.
    pub isolated: Isolated,
    /// Whether names are resolved for them; `None` where no name server is known.
    pub dns: Option<Answered>,
    /// Whether the API server answers those that call it, which are those with a service account of their own; `None`
    /// where its addresses are unknown.
    pub api_server: Option<Answered>,
}

/// How many pods reach somebody who answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answered {
    /// Those that ask.
    pub asking: usize,
    /// Those of them that can't reach anybody who answers.
    pub cut_off: usize,
}

/// How `selected` pods stand. `policies` are all of their namespaces and of that of the name servers:
/// no others decide.
#[must_use]
pub fn standing(population: &Population, facts: &Facts, selected: &[usize], policies: &[&Policy]) -> Standing {
    let index = &population.index;
    let mut standing = Standing::default();
    let mut by_namespace: HashMap<&str, Vec<&Policy>> = HashMap::new();
    for policy in policies {
        by_namespace.entry(&policy.namespace).or_default().push(policy);
    }
    let mut classes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for place in selected {
        classes.entry(index.class_of(*place).unwrap_or_default()).or_default().push(*place);
    }
    for members in classes.values() {
        let Some(pod) = members.first().and_then(|place| index.pods().get(*place)) else { continue };
        let here = by_namespace.get(pod.namespace.as_str()).into_iter().flatten();
        let selecting: Vec<&&Policy> = here.filter(|policy| policy.pods.matches(&pod.labels)).collect();
        let is_isolated = |by: fn(&Policy) -> bool| selecting.iter().any(|policy| by(policy));
        let count = i64::try_from(members.len()).unwrap_or(i64::MAX);
        let add = |to: &mut i64, is_so: bool| *to = to.saturating_add(if is_so { count } else { 0 });
        add(&mut standing.isolated.ingress, is_isolated(|policy| policy.ingress.is_some()));
        add(&mut standing.isolated.egress, is_isolated(|policy| policy.egress.is_some()));
    }
    // What isolates neither the pods nor the name servers cuts nobody off.
    let servers_are_isolated = policies.iter().any(|it| it.namespace == DNS_NAMESPACE && it.ingress.is_some());
    let is_open = standing.isolated.egress == 0 && !servers_are_isolated;
    let change = (!is_open).then(|| Change::new(index, policies, &[], &[]));
    let is_reached = |place: usize, servers: &[(End, _)]| {
        let allowed = |change: &Change<'_>, (server, port)| change.verdict(End::Pod(place), server, port).allowed;
        change.as_ref().is_none_or(|change| servers.iter().any(|server| allowed(change, *server)))
    };
    let (names, api) = (name_servers(index, facts), api_servers(facts));
    let (mut dns, mut api_server) = (Answered::default(), Answered::default());
    for members in classes.values() {
        let Some(first) = members.first() else { continue };
        let calls = |place: &&usize| population.needs.get(**place).is_some_and(|needs| needs.account.is_some());
        dns.count(members.len(), is_reached(*first, &names));
        api_server.count(members.iter().filter(calls).count(), is_reached(*first, &api));
    }
    standing.dns = (!names.is_empty()).then_some(dns);
    standing.api_server = (!api.is_empty()).then_some(api_server);
    standing
}

impl Answered {
    fn count(&mut self, pods: usize, reached: bool) {
        self.asking = self.asking.saturating_add(pods);
        self.cut_off = self.cut_off.saturating_add(if reached { 0 } else { pods });
    }
}

impl Standing {
    /// That of several sets of pods together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let both = |one: Option<Answered>, other: Option<Answered>| {
            let add = |one: usize, other: usize| one.saturating_add(other);
            let sum = |one: Answered, other: Answered| Answered {
                asking: add(one.asking, other.asking),
                cut_off: add(one.cut_off, other.cut_off),
            };
            one.zip(other).map(|(one, other)| sum(one, other)).or(one).or(other)
        };
        Self {
            isolated: Isolated {
                ingress: self.isolated.ingress.saturating_add(other.isolated.ingress),
                egress: self.isolated.egress.saturating_add(other.isolated.egress),
            },
            dns: both(self.dns, other.dns),
            api_server: both(self.api_server, other.api_server),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::network::Resident;

    fn population() -> Population {
        Population::new(vec![], pods("other").into_iter())
    }

    /// Pods, the last of them in the namespace of the name servers.
    fn pods(last: &str) -> [Resident; 5] {
        let pod = |namespace: &str, name: &str, label: &str, account: Value| {
            let metadata = json!({"namespace": namespace, "name": name, "labels": {"k8s-app": label}});
            let spec = json!({"serviceAccountName": account});
            Resident::of(&serde_json::from_value(metadata).unwrap(), &json!({"spec": spec})).unwrap()
        };
        [
            pod("shop", "a", "web", json!("caller")),
            pod("shop", "b", "web", Value::Null),
            pod("shop", "c", "db", Value::Null),
            pod("kube-system", "d", "kube-dns", Value::Null),
            pod("kube-system", "e", last, Value::Null),
        ]
    }

    fn of(policies: &[Value]) -> Standing {
        let facts = Facts { api_endpoints: [("192.0.2.1".parse().unwrap(), 6443)].into(), ..Facts::default() };
        let policies: Vec<Policy> = policies.iter().map(|it| serde_json::from_value(it.clone()).unwrap()).collect();
        standing(&population(), &facts, &[0, 1, 2], &policies.iter().collect::<Vec<_>>())
    }

    fn policy(namespace: &str, app: &str, spec: &Value) -> Value {
        let mut spec = spec.clone();
        spec["podSelector"] = json!({"matchLabels": {"k8s-app": app}});
        json!({"metadata": {"namespace": namespace, "name": "p"}, "spec": spec})
    }

    fn told(standing: Standing) -> [(usize, usize); 2] {
        [standing.dns, standing.api_server].map(|it| it.map(|it| (it.asking, it.cut_off)).unwrap())
    }

    #[test]
    fn what_nobody_isolates_reaches_all() {
        let open = of(&[]);
        assert_eq!((open.isolated, told(open)), (Isolated::default(), [(3, 0), (1, 0)]));
    }

    #[test]
    fn isolation_without_allowance_cuts_off() {
        let deny = of(&[policy("shop", "web", &json!({"policyTypes": ["Egress"]}))]);
        assert_eq!((deny.isolated, told(deny)), (Isolated { ingress: 0, egress: 2 }, [(3, 2), (1, 1)]));
        let names = json!({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]});
        assert_eq!(told(of(&[policy("shop", "web", &names)])), [(3, 0), (1, 1)]);
    }

    #[test]
    fn name_servers_that_are_isolated_answer_nobody() {
        let deny = of(&[policy("kube-system", "kube-dns", &json!({"policyTypes": ["Ingress"]}))]);
        assert_eq!((deny.isolated, told(deny)), (Isolated::default(), [(3, 3), (1, 0)]));
    }

    #[test]
    fn a_cache_of_a_node_answers_only_where_there_are_some() {
        let open =
            [json!({"ports": [{"port": 53, "protocol": "UDP"}], "to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}]})];
        let policy = policy("shop", "web", &json!({"policyTypes": ["Egress"], "egress": open}));
        let policy: Policy = serde_json::from_value(policy).unwrap();
        let facts = Facts { dns_addresses: vec!["169.254.20.10".parse().unwrap()], ..Facts::default() };
        let dns = |pods: Population| standing(&pods, &facts, &[0, 1, 2], &[&policy]).dns.map(|it| it.cut_off);
        assert_eq!(dns(population()), Some(2));
        assert_eq!(dns(Population::new(vec![], pods("node-local-dns").into_iter())), Some(0));
    }
}
