//! NetworkPolicies of policies of both kinds.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use serde::Deserialize as _;

use super::super::{
    source::{Object, Unreadable, group_kind},
    terminal::fit,
};
use crate::{
    GROUP,
    api::{ClusterSecurityPolicy, Finding, NetworkMode, SecurityPolicy},
    hardening::ClusterWide,
    network::{Accepting, Cluster, Facts, Intent, Population, Resident, World, render},
    policy,
};

/// What is to be rendered in a namespace.
struct Asking<'o> {
    object: &'o Object,
    namespace: String,
    /// What names of its NetworkPolicies begin with.
    base: String,
    intent: Intent,
    findings: Vec<Finding>,
}

/// What resources ask.
#[derive(Default)]
struct Asked<'o> {
    /// What is to be rendered: nothing that is suspended.
    rendered: Vec<Asking<'o>>,
    /// SecurityPolicies that another may accept.
    own: Vec<SecurityPolicy>,
    unreadable: Vec<Unreadable>,
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
    let population = Population::new(world.namespaces.clone(), world.pods.iter().cloned().map(Resident::from));
    let cluster = Cluster { facts, population: &population, services: &world.services };
    let Asked { rendered: asking, own, mut unreadable } = Asked::of(resources, namespace, world);
    // Those that are refused are named by who reads them.
    let foreign = of_kind(resources, "networking.k8s.io", "NetworkPolicy")
        .filter_map(|it| NetworkPolicy::deserialize(&it.value).ok());
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
        let accepted: Vec<_> = own.iter().filter_map(|other| policy::accepted(&one.intent, other)).collect();
        let accepted = accepted.iter().map(|(namespace, name, intent)| Accepting { namespace, name, intent });
        let accepted: Vec<Accepting<'_>> = accepted.collect();
        match render(&one.intent, (&one.namespace, &one.base), &cluster, (&others, &accepted)) {
            Ok(rendered) => {
                for Finding { id, message } in one.findings.iter().chain(&rendered.findings) {
                    let said = format!("{}:{}: {id}: {message}", one.object.file, one.object.line);
                    eprintln!("{}", fit(&said));
                }
                policies.extend(rendered.policies);
            }
            Err(why) => unreadable.push(one.object.unreadable(why.to_string())),
        }
    }
    (policies, unreadable)
}

fn of_kind<'o>(resources: &'o [Object], group: &'static str, kind: &'static str) -> impl Iterator<Item = &'o Object> {
    resources.iter().filter(move |it| group_kind(&it.value) == (group, kind))
}

impl<'o> Asked<'o> {
    fn of(resources: &'o [Object], namespace: &str, world: &World) -> Self {
        let (mut asked, mut wide) = (Self::default(), vec![]);
        for object in of_kind(resources, GROUP, "ClusterSecurityPolicy") {
            match cluster_wide(object) {
                Ok((policy, parsed)) => {
                    if policy.spec.suspend != Some(true) {
                        asked.rendered.extend(of_namespaces(object, &policy.name_any(), &parsed, world));
                    }
                    // It is the least that others ask, suspended or not.
                    wide.push((policy.name_any(), parsed));
                }
                Err(why) => asked.unreadable.push(object.unreadable(why)),
            }
        }
        for object in of_kind(resources, GROUP, "SecurityPolicy") {
            match own(object, namespace) {
                Ok((policy, intent)) => {
                    let intent = intent.filter(|_| policy.spec.suspend != Some(true));
                    asked.rendered.extend(intent.map(|intent| clamped(object, &policy, &intent, &wide, world)));
                    asked.own.push(policy);
                }
                Err(why) => asked.unreadable.push(object.unreadable(why)),
            }
        }
        asked
    }
}

/// What a ClusterSecurityPolicy asks, in each namespace. Its name may be that of a SecurityPolicy there.
fn of_namespaces<'o>(object: &'o Object, name: &str, policy: &ClusterWide, world: &World) -> Vec<Asking<'o>> {
    let Some(intent) = policy.network.as_deref() else { return vec![] };
    let selected = world.namespaces.iter().filter(|it| policy.isolates(&it.name, &it.labels));
    let asking = selected.map(|namespace| Asking {
        object,
        namespace: namespace.name.clone(),
        base: format!("rampart-cluster-{name}"),
        intent: intent.clone(),
        findings: vec![],
    });
    asking.collect()
}

/// What a SecurityPolicy asks, made narrower by those that are about its namespace.
fn clamped<'o>(
    object: &'o Object,
    policy: &SecurityPolicy,
    intent: &Intent,
    wide: &[(String, ClusterWide)],
    world: &World,
) -> Asking<'o> {
    let namespace = policy.namespace().unwrap_or_default();
    let labels = world.namespaces.iter().find(|it| it.name == namespace).map(|it| it.labels.clone());
    let labels = labels.unwrap_or_default();
    let least = wide
        .iter()
        .filter(|(_, wide)| wide.network_mode == NetworkMode::Enforce && wide.isolates(&namespace, &labels))
        .filter_map(|(name, wide)| Some((name.as_str(), wide.network.as_deref()?)));
    let (intent, findings) = intent.clamped(&namespace, least);
    Asking { object, namespace, base: format!("rampart-{}", policy.name_any()), intent, findings }
}

fn cluster_wide(object: &Object) -> Result<(ClusterSecurityPolicy, ClusterWide), String> {
    let policy = ClusterSecurityPolicy::deserialize(&object.value).map_err(|error| error.to_string())?;
    let wide = ClusterWide::try_from(&policy).map_err(|invalid| invalid.to_string())?;
    Ok((policy, wide))
}

/// A SecurityPolicy in its namespace, and what it asks of the network, if anything.
fn own(object: &Object, namespace: &str) -> Result<(SecurityPolicy, Option<Intent>), String> {
    let mut policy = SecurityPolicy::deserialize(&object.value).map_err(|error| error.to_string())?;
    let namespace = policy.metadata.namespace.get_or_insert_with(|| namespace.to_owned()).clone();
    let intent = policy::intent(&policy, &namespace).map_err(|refused| refused.to_string())?;
    Ok((policy, intent))
}
