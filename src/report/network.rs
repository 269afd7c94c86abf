//! Network exposure: what policies isolate, what they leave open, and what would change.

use serde::Serialize;

use super::policies::{Read, State};
use crate::{
    api::{Direction, Finding, Isolated, NetworkMode},
    network::{Intent, Peer},
};

/// A network intent, and how its pods stand.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exposure {
    /// Kind of the policy.
    pub kind: &'static str,
    /// Its namespace, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Whether its NetworkPolicies are written.
    pub mode: NetworkMode,
    /// Whether they are in force.
    pub state: State,
    /// Directions that are deny by default.
    pub isolate: Vec<Direction>,
    /// Pods that it is about, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selected_pods: Option<i64>,
    /// How many of them any NetworkPolicies isolate now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolated: Option<Isolated>,
    /// Directions that it leaves open to everybody, with the rule that does: `ingress/web`.
    pub open_to_all: Vec<String>,
    /// Ranges of addresses outside the cluster, with the rule that opens them: `egress/internet 0.0.0.0/0`.
    pub addresses: Vec<String>,
    /// What its NetworkPolicies would change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// NetworkPolicies of others that open more.
    pub widened_by: Vec<String>,
    /// What no NetworkPolicy can say.
    pub not_expressible: Vec<String>,
    /// What its author should know.
    pub findings: Vec<Finding>,
    /// Why it is not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Pairs that would be decided otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Those that could talk, and could not any more.
    pub newly_denied: i64,
    /// Those that can't talk, and could.
    pub newly_allowed: i64,
}

/// Every network intent, those of the cluster first.
pub(super) fn exposure(policies: &[Read]) -> Vec<Exposure> {
    let enabled = policies.iter().filter(|policy| policy.network_mode != NetworkMode::Disabled);
    enabled.filter_map(|policy| Some(told(policy, policy.intent.as_ref()?))).collect()
}

fn told(policy: &Read, intent: &Intent) -> Exposure {
    let status = policy.network.as_ref().map(|it| it.status.clone()).unwrap_or_default();
    let state = policy.network_state();
    let programmed = policy.conditions.iter().find(|it| it.type_ == "Programmed" && it.status != "True");
    let reason = match programmed {
        _ if policy.network_mode != NetworkMode::Enforce => None,
        _ if policy.suspended => Some("Suspended: what it wrote stays, and nobody keeps it".to_owned()),
        programmed => programmed.map(|it| format!("{}: {}", it.reason, it.message)),
    };
    Exposure {
        kind: policy.kind,
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        mode: policy.network_mode,
        state,
        isolate: intent.isolate.iter().copied().collect(),
        selected_pods: status.selected_pods,
        isolated: status.isolated,
        open_to_all: rules(intent, |peer| matches!(peer, Peer::Any).then(String::new)),
        addresses: rules(intent, |peer| match peer {
            Peer::External { cidrs, .. } => {
                let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
                Some(format!(" {}", cidrs.join(" ")))
            }
            _ => None,
        }),
        preview: status.preview.map(|it| Preview { newly_denied: it.newly_denied, newly_allowed: it.newly_allowed }),
        widened_by: status.widened_by,
        not_expressible: status.not_expressible,
        findings: status.findings,
        reason,
    }
}

/// What is told of the peers of each rule, after its direction and name.
fn rules(intent: &Intent, of: impl Fn(&Peer) -> Option<String>) -> Vec<String> {
    let ways = [("ingress", &intent.ingress), ("egress", &intent.egress)];
    let all = ways.into_iter().flat_map(|(way, rules)| rules.iter().map(move |rule| (way, rule)));
    let told = all.flat_map(|(way, rule)| {
        let of_peers: Vec<String> = rule.peers.iter().filter_map(&of).collect();
        of_peers.into_iter().map(move |told| format!("{way}/{}{told}", rule.name))
    });
    told.collect()
}
