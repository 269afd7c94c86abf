//! A pod of the cluster, with what NetworkPolicies may take from it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rampart_reach::{Index, IpBlocks, Namespace, Pod};
use serde::Deserialize as _;
use serde_json::Value;

use super::{
    enforcer,
    world::{Metadata, Written, pod},
};

/// The service account that every namespace has, and that nobody asked for.
const DEFAULT_ACCOUNT: &str = "default";

/// A pod, and what may break for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resident {
    /// The pod.
    pub pod: Pod,
    /// What may break.
    pub needs: Needs,
}

/// What may break for a pod besides what its labels and ports tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its service account, where it was given one and has its token: it calls the API server.
    pub account: Option<String>,
    /// The port on which its metrics are read, by the annotations `prometheus.io/scrape` and `prometheus.io/port`.
    pub scraped: Option<u16>,
}

impl Resident {
    /// `None` for a pod that has finished, or that has not the shape of one.
    #[must_use]
    pub fn of(metadata: &ObjectMeta, data: &Value) -> Option<Self> {
        let mut written = Written::deserialize(data).ok()?;
        written.metadata.labels.clone_from(&metadata.labels);
        let spec = written.spec.as_ref();
        let has_token = spec.is_none_or(|spec| spec.automount_service_account_token != Some(false));
        let account = spec.and_then(|spec| spec.service_account_name.clone());
        let account = account.filter(|account| has_token && account != DEFAULT_ACCOUNT && !account.is_empty());
        let named =
            Metadata { namespace: metadata.namespace.clone(), name: metadata.name.clone(), ..Metadata::default() };
        let pod = pod(named, written, "")?;
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key));
        let is_scraped = annotation("prometheus.io/scrape").is_some_and(|it| it == "true");
        let port = annotation("prometheus.io/port").and_then(|port| port.parse().ok());
        let port = port.or_else(|| pod.ports.first().map(|port| port.port));
        Some(Self { pod, needs: Needs { account, scraped: port.filter(|_| is_scraped) } })
    }
}

/// The pods of a cluster, indexed.
#[derive(Debug)]
pub struct Population {
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
    /// The pods.
    pub index: Index,
    /// What may break for each of them, by its place in the index.
    pub needs: Vec<Needs>,
    /// The network plug-in that enforces NetworkPolicies, if its pods are known by their labels.
    pub enforcer: Option<&'static str>,
}

impl Population {
    /// Indexes pods.
    #[must_use]
    pub fn new(namespaces: Vec<Namespace>, residents: impl Iterator<Item = Resident>) -> Self {
        let (pods, needs) = residents.map(|it| (it.pod, it.needs)).unzip();
        let index = Index::new(&namespaces, pods, IpBlocks::External);
        let of_classes = index.classes().iter().filter_map(|pods| index.pods().get(*pods.first()?));
        let enforcer = of_classes.filter_map(|pod| enforcer::of_pod(&pod.labels)).min();
        Self { namespaces, index, needs, enforcer }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(metadata: &Value, spec: &Value) -> Option<Resident> {
        Resident::of(&serde_json::from_value(metadata.clone()).unwrap(), &json!({"spec": spec}))
    }

    #[test]
    fn what_a_pod_needs() {
        let ports = json!([{"containerPort": 9090}]);
        let metadata = json!({"name": "a", "namespace": "n", "labels": {"app": "a"},
            "annotations": {"prometheus.io/scrape": "true"}});
        let pod =
            of(&metadata, &json!({"serviceAccountName": "reader", "containers": [{"name": "c", "ports": ports}]}));
        let pod = pod.unwrap();
        assert_eq!((pod.pod.namespace.as_str(), pod.pod.labels["app"].as_str()), ("n", "a"));
        assert_eq!(pod.needs, Needs { account: Some("reader".into()), scraped: Some(9090) });
    }

    #[test]
    fn the_default_account_and_one_without_a_token_call_nobody() {
        for spec in [
            json!({"serviceAccountName": "default"}),
            json!({"serviceAccountName": "reader", "automountServiceAccountToken": false}),
            json!({}),
        ] {
            assert_eq!(of(&json!({"name": "a"}), &spec).unwrap().needs, Needs::default());
        }
    }
}
