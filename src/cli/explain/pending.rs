//! What network intents that are not in force would change for a pod.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use rampart_reach::{Change, Direction, Policy, Reach};
use serde::Serialize;

use super::{
    known::Known,
    network::{Look, Row, full_name},
    terrain::{Named, Terrain},
};
use crate::{
    api::{
        NetworkMode, SecurityPolicy,
        condition::{self, Type},
    },
    cluster::owner::Owner,
    hardening::Policies,
    network::{Accepting, Cluster, Intent, Peer, Rendered, render, understood},
    policy,
};

/// A network intent that is not in force, and what it would change for a pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pending {
    /// Namespace and name of the SecurityPolicy.
    pub(super) policy: String,
    pub(super) mode: NetworkMode,
    /// Whether it is about the pod itself; else about pods that it talks to.
    pub(super) selects: bool,
    /// Why what Enforce asks is not in force, or why nothing can be said here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    pub(super) newly_denied: Both,
    pub(super) newly_allowed: Both,
}

/// Both directions.
#[derive(Debug, Default, Serialize)]
pub(super) struct Both {
    pub(super) ingress: Vec<Row>,
    pub(super) egress: Vec<Row>,
}

impl Both {
    pub(super) fn is_empty(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty()
    }
}

/// What every intent that is not in force would change for a pod; those that are not about it and change nothing for
/// it are left out.
pub(super) fn pending(known: &Known, terrain: &Terrain<'_>, place: usize) -> Vec<Pending> {
    let all = known.hardening().0;
    let told = known.policies.iter().filter_map(|policy| of(policy, (known, &all), terrain, place));
    told.filter(|it| it.selects || !it.newly_denied.is_empty() || !it.newly_allowed.is_empty()).collect()
}

/// What rendering asks of a cluster besides pods.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asks {
    pub(super) services: bool,
    pub(super) addresses: bool,
}

/// What rendering intents that are not in force asks.
pub(super) fn asks(policies: &[SecurityPolicy]) -> Asks {
    let intents = policies.iter().filter(|policy| is_pending(policy));
    let intents: Vec<Intent> = intents.filter_map(|it| policy::intent(it, &it.namespace()?).ok()?).collect();
    let is_address = |peer: &Peer| matches!(peer, Peer::External { .. } | Peer::Dns | Peer::ApiServer | Peer::Webhooks);
    let has_address =
        |intent: &Intent| intent.ingress.iter().chain(&intent.egress).any(|rule| rule.peers.iter().any(is_address));
    Asks { services: intents.iter().any(Intent::is_resolved), addresses: intents.iter().any(has_address) }
}

fn is_pending(policy: &SecurityPolicy) -> bool {
    let mode = policy.spec.network.as_ref().map(|network| network.mode);
    let is_programmed =
        policy.status.as_ref().is_some_and(|status| condition::is_true(&status.conditions, Type::Programmed));
    match mode {
        Some(NetworkMode::Preview) => true,
        Some(NetworkMode::Enforce) => !is_programmed,
        _ => false,
    }
}

fn of(policy: &SecurityPolicy, known: (&Known, &Policies), terrain: &Terrain<'_>, place: usize) -> Option<Pending> {
    if !is_pending(policy) {
        return None;
    }
    let namespace = policy.namespace().unwrap_or_default();
    let mut told = Pending {
        policy: format!("{namespace}/{}", policy.name_any()),
        mode: policy.spec.network.as_ref()?.mode,
        selects: false,
        why: why(policy),
        newly_denied: Both::default(),
        newly_allowed: Both::default(),
    };
    match policy::intent(policy, &namespace) {
        Ok(None) => return None,
        Ok(Some(intent)) => {
            told.selects = intent.selected(&terrain.population.index, &namespace).contains(&place);
            if policy.spec.suspend == Some(true) {
                told.why = Some("suspended".into());
            } else if let Err(why) = told.change(policy, &intent, known, terrain, place) {
                told.why = Some(why);
            }
        }
        // It says nothing of pods that can be read; those of its namespace are told of it.
        Err(refused) => {
            told.selects = terrain.pods().get(place).is_some_and(|pod| pod.namespace == namespace);
            told.why = Some(refused.to_string());
        }
    }
    Some(told)
}

/// Why what Enforce asks is not in force, as the status says.
fn why(policy: &SecurityPolicy) -> Option<String> {
    let status = policy.status.as_ref()?;
    let found = status.conditions.iter().find(|it| it.type_ == Type::Programmed.as_str() && it.status != "True")?;
    let enforces = policy.spec.network.as_ref().is_some_and(|network| network.mode == NetworkMode::Enforce);
    enforces.then(|| format!("{}: {}", found.reason, found.message))
}

impl Pending {
    /// Works out what it would change for a pod, as the operator works out its preview.
    fn change(
        &mut self,
        policy: &SecurityPolicy,
        intent: &Intent,
        known: (&Known, &Policies),
        terrain: &Terrain<'_>,
        place: usize,
    ) -> Result<(), String> {
        let owner = Owner::of(policy).map_err(|error| error.to_string())?;
        let wanted = rendered(&owner, intent, known, terrain)?;
        let added: Vec<Policy> = wanted.iter().filter_map(understood).collect();
        let is_ours = |written: &NetworkPolicy| owner.owns(written.labels());
        let own = terrain.pods().get(place).map(|pod| pod.namespace.as_str()).unwrap_or_default();
        // Of a policy of another namespace, only connections with pods there change: who else isolates whom, and there
        // may be thousands, is not asked.
        let matters = |named: &Named| own == owner.namespace || [own, &owner.namespace].contains(&&*named.namespace);
        let all = terrain.written.iter().zip(&terrain.policies).zip(&terrain.names);
        let all = all.filter(|(_, named)| matters(named));
        let (removed, kept): (Vec<_>, Vec<_>) = all.partition(|((written, _), _)| is_ours(written));
        let policies =
            |of: &[((&&NetworkPolicy, _), _)]| of.iter().map(|((_, policy), _)| *policy).collect::<Vec<&Policy>>();
        let index = &terrain.population.index;
        let change = Change::new(index, &policies(&kept), &policies(&removed), &added.iter().collect::<Vec<_>>());
        let new = wanted.iter().map(|it| full_name(&Named::of(it)));
        let names: Vec<String> = kept.iter().chain(&removed).map(|(_, named)| full_name(named)).chain(new).collect();
        let rows = |reach: &[Reach], direction| {
            let look = Look { terrain, place, direction, cuts: change.cuts(), names: &names };
            look.rows(reach, |from, to, port| change.verdict(from, to, port))
        };
        let Some(class) = index.class_of(place) else { return Ok(()) };
        let [denied_in, allowed_in] = change.of_end(class, Direction::Ingress);
        let [denied_out, allowed_out] = change.of_end(class, Direction::Egress);
        self.newly_denied =
            Both { ingress: rows(&denied_in, Direction::Ingress), egress: rows(&denied_out, Direction::Egress) };
        self.newly_allowed =
            Both { ingress: rows(&allowed_in, Direction::Ingress), egress: rows(&allowed_out, Direction::Egress) };
        Ok(())
    }
}

/// The NetworkPolicies that the operator would apply for an intent.
fn rendered(
    owner: &Owner,
    intent: &Intent,
    (known, all): (&Known, &Policies),
    terrain: &Terrain<'_>,
) -> Result<Vec<NetworkPolicy>, String> {
    let least = all.least_of(&owner.namespace);
    let (intent, _) = intent.clamped(&owner.namespace, least.iter().map(|(name, intent)| (name.as_str(), &**intent)));
    let accepted: Vec<(String, String, Intent)> =
        known.policies.iter().filter_map(|other| policy::accepted(&intent, other)).collect();
    let accepted: Vec<Accepting<'_>> =
        accepted.iter().map(|(namespace, name, intent)| Accepting { namespace, name, intent }).collect();
    let here = known.network_policies.iter().filter(|it| it.namespace().as_ref() == Some(&owner.namespace));
    let others: Vec<&NetworkPolicy> = here.filter(|it| owner.is_stranger_to(it.labels())).collect();
    let cluster = Cluster {
        facts: &known.facts,
        namespaces: &terrain.population.namespaces,
        pods: terrain.pods(),
        services: &known.services,
    };
    let base = format!("rampart-{}-{}", owner.name, owner.short_uid());
    let Rendered { policies, .. } = render(&intent, (&owner.namespace, &base), &cluster, (&others, &accepted))
        .map_err(|unrenderable| format!("what it would change can't be worked out here: {unrenderable}"))?;
    Ok(policies)
}
