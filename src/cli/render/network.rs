//! NetworkPolicies of policies of both kinds.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use serde::Deserialize as _;

use super::super::source::{Object, Unreadable};
use crate::{
    api::{ClusterSecurityPolicy, Finding, NetworkMode, SecurityPolicy},
    hardening::ClusterWide,
    network::{Accepting, Cluster, Facts, Intent, World, render},
    policy,
};

/// What is to be rendered in a namespace.
struct Asking<'o> {
    object: &'o Object,
    namespace: String,
    /// Of a SecurityPolicy: its name.
    name: Option<String>,
    /// What names of its NetworkPolicies begin with.
    base: String,
    intent: Intent,
    enforces: bool,
    findings: Vec<Finding>,
}

/// The NetworkPolicies of SecurityPolicies and ClusterSecurityPolicies, and what can't be rendered.
///
/// Findings go to standard error. As in the cluster, the other NetworkPolicies of a namespace decide whether the other
/// side of a connection is isolated, and so opened.
pub(in super::super) fn rendered(
    resources: &[Object],
    namespace: &str,
    (world, facts): (&World, &Facts),
) -> (Vec<NetworkPolicy>, Vec<Unreadable>) {
    let World { namespaces, pods, services, .. } = world;
    let cluster = Cluster { facts, namespaces, pods, services };
    let (asking, mut unreadable) = all(resources, namespace, world);
    // Those that are refused are named by who reads them.
    let foreign = of_kind(resources, "NetworkPolicy").filter_map(|it| NetworkPolicy::deserialize(&it.value).ok());
    let mut others: Vec<NetworkPolicy> = foreign.collect();
    for one in &asking {
        let alone = render(&one.intent, (&one.namespace, &one.base), &cluster, (&[], &[]));
        others.extend(alone.ok().and_then(|it| it.policies.into_iter().next()));
    }
    let mut policies = vec![];
    for one in &asking {
        let here = |it: &&NetworkPolicy| {
            it.namespace().as_deref().unwrap_or(namespace) == one.namespace
                && it.metadata.name.as_ref() != Some(&one.base)
        };
        let others: Vec<&NetworkPolicy> = others.iter().filter(here).collect();
        let accepted: Vec<Accepting<'_>> = asking.iter().filter_map(|other| one.accepts(other)).collect();
        match render(&one.intent, (&one.namespace, &one.base), &cluster, (&others, &accepted)) {
            Ok(rendered) => {
                for Finding { id, message } in one.findings.iter().chain(&rendered.findings) {
                    eprintln!("{}:{}: {id}: {message}", one.object.file, one.object.line);
                }
                policies.extend(rendered.policies);
            }
            Err(why) => unreadable.push(one.object.unreadable(why.to_string())),
        }
    }
    (policies, unreadable)
}

impl Asking<'_> {
    /// The intent of another, where this one accepts it.
    fn accepts<'a>(&self, other: &'a Asking<'_>) -> Option<Accepting<'a>> {
        let name = other.name.as_ref()?;
        let is_accepted = other.enforces && self.intent.accept_from.contains(&(other.namespace.clone(), name.clone()));
        is_accepted.then_some(Accepting { namespace: &other.namespace, name, intent: &other.intent })
    }
}

fn of_kind<'o>(resources: &'o [Object], kind: &'static str) -> impl Iterator<Item = &'o Object> {
    resources.iter().filter(move |it| it.value.get("kind").is_some_and(|it| it == kind))
}

fn all<'o>(resources: &'o [Object], namespace: &str, world: &World) -> (Vec<Asking<'o>>, Vec<Unreadable>) {
    let (mut wide, mut asking, mut unreadable) = (vec![], vec![], vec![]);
    for object in of_kind(resources, "ClusterSecurityPolicy") {
        match cluster_wide(object) {
            Ok((name, policy)) => wide.push((object, name, policy)),
            Err(why) => unreadable.push(object.unreadable(why)),
        }
    }
    for (object, name, policy) in &wide {
        let selected = world.namespaces.iter().filter(|it| policy.isolates(&it.name, &it.labels));
        asking.extend(selected.filter_map(|namespace| {
            Some(Asking {
                object,
                namespace: namespace.name.clone(),
                name: None,
                base: format!("rampart-{name}"),
                intent: Intent::clone(policy.network.as_deref()?),
                enforces: policy.network_mode == NetworkMode::Enforce,
                findings: vec![],
            })
        }));
    }
    for object in of_kind(resources, "SecurityPolicy") {
        match own(object, namespace) {
            Ok(one) => asking.extend(one),
            Err(why) => unreadable.push(object.unreadable(why)),
        }
    }
    for one in asking.iter_mut().filter(|one| one.name.is_some()) {
        let labels = world.namespaces.iter().find(|it| it.name == one.namespace).map(|it| it.labels.clone());
        let labels = labels.unwrap_or_default();
        let least = wide.iter().filter(|(_, _, policy)| {
            policy.network_mode == NetworkMode::Enforce && policy.isolates(&one.namespace, &labels)
        });
        let least = least.filter_map(|(_, name, policy)| Some((name.as_str(), policy.network.as_deref()?)));
        (one.intent, one.findings) = one.intent.clamped(&one.namespace, least);
    }
    (asking, unreadable)
}

fn cluster_wide(object: &Object) -> Result<(String, ClusterWide), String> {
    let policy = ClusterSecurityPolicy::deserialize(&object.value).map_err(|error| error.to_string())?;
    let wide = ClusterWide::try_from(&policy).map_err(|invalid| invalid.to_string())?;
    Ok((policy.name_any(), wide))
}

/// What a SecurityPolicy asks; `None` where nothing is to be rendered.
fn own<'o>(object: &'o Object, namespace: &str) -> Result<Option<Asking<'o>>, String> {
    let policy = SecurityPolicy::deserialize(&object.value).map_err(|error| error.to_string())?;
    let namespace = policy.namespace().unwrap_or_else(|| namespace.to_owned());
    let intent = policy::intent(&policy, &namespace).map_err(|refused| refused.to_string())?;
    let intent = intent.filter(|_| policy.spec.suspend != Some(true));
    let name = policy.name_any();
    Ok(intent.map(|intent| Asking {
        object,
        base: format!("rampart-{name}"),
        namespace,
        name: Some(name),
        intent,
        enforces: policy.spec.network.as_ref().is_some_and(|it| it.mode == NetworkMode::Enforce),
        findings: vec![],
    }))
}
