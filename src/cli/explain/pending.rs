//! What network intents that are not in force would change for a pod.

use k8s_openapi::{api::networking::v1::NetworkPolicy, apimachinery::pkg::apis::meta::v1::Condition};
use kube::ResourceExt as _;
use rampart_reach::{Change, Direction, Policy, Reach};
use serde::Serialize;

use super::{
    asking::{Asking, asking},
    known::Known,
    network::{Look, Row, full_name},
    terrain::{Named, Terrain},
};
use crate::{
    api::{
        NetworkMode,
        condition::{self, Type},
    },
    cluster::owner::Owner,
    network::{Accepting, Cluster, Intent, Rendered, render, understood},
};

/// A network intent that is not in force, and what it would change for a pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pending {
    pub(super) kind: &'static str,
    /// The name of the policy, with its namespace where it has one.
    pub(super) policy: String,
    pub(super) mode: NetworkMode,
    /// Whether it is about the pod itself; else about pods that it talks to.
    pub(super) selects: bool,
    /// Why what Enforce asks is not in force, or what can't be said here.
    pub(super) why: Vec<String>,
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
    let told = asking(known).into_iter().filter_map(|asking| of(&asking, known, terrain, place));
    told.filter(|it| it.selects || !it.newly_denied.is_empty() || !it.newly_allowed.is_empty()).collect()
}

/// Whether an intent of this mode is not in force, by the conditions of its policy.
pub(super) fn is_pending(mode: NetworkMode, conditions: &[Condition]) -> bool {
    match mode {
        NetworkMode::Disabled => false,
        NetworkMode::Preview => true,
        NetworkMode::Enforce => !condition::is_true(conditions, Type::Programmed),
    }
}

fn of(asking: &Asking, known: &Known, terrain: &Terrain<'_>, place: usize) -> Option<Pending> {
    let mut told = Pending {
        kind: asking.kind,
        policy: asking.policy.clone(),
        mode: asking.mode,
        selects: false,
        why: asking.why.clone(),
        newly_denied: Both::default(),
        newly_allowed: Both::default(),
    };
    let own = terrain.pods().get(place)?.namespace.as_str();
    let index = &terrain.population.index;
    let Some(parts) = &asking.parts else {
        // It says nothing of pods that can be read; those of its namespace are told of it.
        told.selects = asking.namespace.as_deref() == Some(own);
        return Some(told);
    };
    told.selects = parts.iter().any(|(owner, intent)| intent.selected(index, &owner.namespace).contains(&place));
    if !asking.is_suspended
        && let Err(why) = told.change(asking, parts, known, terrain, place)
    {
        told.why.push(why);
    }
    Some(told)
}

impl Pending {
    /// Works out what it would change for a pod, as the operator works out its preview.
    fn change(
        &mut self,
        asking: &Asking,
        parts: &[(Owner, Intent)],
        known: &Known,
        terrain: &Terrain<'_>,
        place: usize,
    ) -> Result<(), String> {
        let mut wanted: Vec<NetworkPolicy> = vec![];
        for part in parts {
            wanted.extend(self.rendered(part, asking, known, terrain)?);
        }
        let added: Vec<Policy> = wanted.iter().filter_map(understood).collect();
        let is_ours = |written: &NetworkPolicy| {
            let is_here = |owner: &Owner| written.metadata.namespace.as_ref() == Some(&owner.namespace);
            parts.iter().any(|(owner, _)| is_here(owner) && owner.made(written, false))
        };
        let own = terrain.pods().get(place).map(|pod| pod.namespace.as_str()).unwrap_or_default();
        // Of a policy of another namespace, only connections with pods there change: who else isolates whom, and there
        // may be thousands, is not asked.
        let elsewhere = asking.namespace.as_deref().filter(|namespace| *namespace != own);
        let matters = |named: &Named| elsewhere.is_none_or(|other| [own, other].contains(&&*named.namespace));
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

    /// The NetworkPolicies that the operator would apply for an intent in a namespace.
    fn rendered(
        &mut self,
        (owner, intent): &(Owner, Intent),
        asking: &Asking,
        known: &Known,
        terrain: &Terrain<'_>,
    ) -> Result<Vec<NetworkPolicy>, String> {
        let here = known.network_policies.iter().filter(|it| it.namespace().as_ref() == Some(&owner.namespace));
        let others: Vec<&NetworkPolicy> = here.filter(|it| owner.is_stranger_to(*it, false)).collect();
        let accepted: Vec<Accepting<'_>> =
            asking.accepted.iter().map(|(namespace, name, intent)| Accepting { namespace, name, intent }).collect();
        let base = format!("rampart-{}-{}", owner.name, owner.short_uid());
        let rendered = |facts| {
            let cluster = Cluster { facts, population: &terrain.population, services: &known.services };
            render(intent, (&owner.namespace, &base), &cluster, (&others, &accepted))
        };
        let Rendered { policies, .. } = match rendered(&known.facts) {
            Err(unknown) if unknown.is_of_ranges() => {
                self.why.push("ranges of the cluster are unknown: told as if all addresses lay outside".into());
                rendered(&known.facts.without_ranges())
            }
            other => other,
        }
        .map_err(|unrenderable| format!("what it would change can't be worked out here: {unrenderable}"))?;
        self.why.dedup();
        Ok(policies)
    }
}
