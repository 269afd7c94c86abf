//! Network intents that are not in force, as the operator would render them.

use kube::ResourceExt as _;

use super::{known::Known, pending::is_pending};
use crate::{
    api::{ClusterSecurityPolicy, NetworkMode, SecurityPolicy, condition::Type},
    cluster::owner::Owner,
    hardening::{ClusterWide, Policies},
    network::{Intent, Peer},
    policy,
};

/// An intent that is not in force.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) kind: &'static str,
    /// The name of the policy, with its namespace where it has one.
    pub(super) policy: String,
    /// Its namespace, where it has one.
    pub(super) namespace: Option<String>,
    pub(super) mode: NetworkMode,
    pub(super) is_suspended: bool,
    /// Why it is not in force, as its status says, or why it can't be read.
    pub(super) why: Vec<String>,
    /// In each namespace, for whom what is rendered, and of what; `None` where it can't be read.
    pub(super) parts: Option<Vec<(Owner, Intent)>>,
    /// Intents of other namespaces whose other half it would render: namespace, name and intent.
    pub(super) accepted: Vec<(String, String, Intent)>,
}

/// What rendering asks of a cluster besides pods.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) services: bool,
    pub(super) addresses: bool,
}

/// Every intent that is not in force, those of SecurityPolicies first.
pub(super) fn asking(known: &Known) -> Vec<Asking> {
    let (policies, _) = known.hardening();
    let own = known.policies.iter().filter_map(|policy| of_namespace(policy, known, &policies));
    own.chain(known.cluster_policies.iter().filter_map(|policy| of_cluster(policy, known))).collect()
}

/// What rendering them asks.
pub(super) fn needs(asking: &[Asking]) -> Needs {
    let intents = || asking.iter().flat_map(|it| &it.parts).flatten().map(|(_, intent)| intent);
    let has_address = |intent: &Intent| {
        let is_one = |peer: &Peer| matches!(peer, Peer::External { .. } | Peer::Dns);
        intent.names_api_server() || intent.ingress.iter().chain(&intent.egress).any(|it| it.peers.iter().any(is_one))
    };
    Needs { services: intents().any(Intent::is_resolved), addresses: intents().any(has_address) }
}

fn of_namespace(policy: &SecurityPolicy, known: &Known, policies: &Policies) -> Option<Asking> {
    let (namespace, name) = (policy.namespace().unwrap_or_default(), policy.name_any());
    let mode = policy.spec.network.as_ref()?.mode;
    let conditions = policy.status.as_ref().map(|it| it.conditions.as_slice()).unwrap_or_default();
    if !is_pending(mode, conditions) {
        return None;
    }
    let mut asking = Asking {
        kind: "SecurityPolicy",
        policy: format!("{namespace}/{name}"),
        namespace: Some(namespace.clone()),
        mode,
        is_suspended: policy.spec.suspend == Some(true),
        why: why(mode, conditions),
        parts: None,
        accepted: vec![],
    };
    match policy::intent(policy, &namespace) {
        Ok(intent) => {
            // What ClusterSecurityPolicies isolate here is not opened to everybody.
            let least = policies.least_of(&namespace);
            let least = least.iter().map(|(name, intent)| (name.as_str(), &**intent));
            let (intent, _) = intent?.clamped(&namespace, least);
            if mode == NetworkMode::Enforce {
                asking.accepted = known.policies.iter().filter_map(|it| policy::accepted(&intent, it)).collect();
            }
            asking.parts = Some(vec![(Owner::of(policy).ok()?, intent)]);
        }
        Err(refused) => asking.why = vec![refused.to_string()],
    }
    asking.tell_of_suspension();
    Some(asking)
}

fn of_cluster(policy: &ClusterSecurityPolicy, known: &Known) -> Option<Asking> {
    let mode = policy.spec.network.as_ref()?.mode;
    let conditions = policy.status.as_ref().map(|it| it.conditions.as_slice()).unwrap_or_default();
    if !is_pending(mode, conditions) {
        return None;
    }
    // One that can't be read asks nothing of any pod that is known.
    let wide = ClusterWide::try_from(policy).ok()?;
    let intent = wide.network.as_deref()?;
    let owner = Owner::of(policy).ok()?;
    let isolated = known.namespaces.iter().filter(|it| wide.isolates(&it.name, &it.labels));
    let part = |name: &String| (Owner { namespace: name.clone(), ..owner.clone() }, intent.clone());
    let mut asking = Asking {
        kind: "ClusterSecurityPolicy",
        policy: policy.name_any(),
        namespace: None,
        mode,
        is_suspended: policy.spec.suspend == Some(true),
        why: why(mode, conditions),
        parts: Some(isolated.map(|it| part(&it.name)).collect()),
        accepted: vec![],
    };
    asking.tell_of_suspension();
    Some(asking)
}

/// Why what Enforce asks is not in force, as the status says.
fn why(mode: NetworkMode, conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]) -> Vec<String> {
    let programmed = conditions.iter().filter(|it| it.type_ == Type::Programmed.as_str() && it.status != "True");
    programmed.filter(|_| mode == NetworkMode::Enforce).map(|it| format!("{}: {}", it.reason, it.message)).collect()
}

impl Asking {
    fn tell_of_suspension(&mut self) {
        if self.is_suspended {
            self.why.push("it is suspended: what it would change is not told".into());
        }
    }
}
