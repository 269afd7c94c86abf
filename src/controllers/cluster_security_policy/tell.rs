//! What is told of the network part of a policy.

use super::{
    super::network::{conditions_of, failing, keep_seen, previewed, programmed, stalled},
    network::{Network, Told},
};
use crate::api::{
    ClusterNetworkStatus, ClusterSecurityPolicy, NetworkMode,
    condition::{Conditions, Type, is_true},
};

/// Why nothing is programmed where nothing was before.
const SUSPENDED: &str = "Suspended";

/// Sets the conditions that the network part decides; returns what status holds of it.
pub(super) fn tell_network(
    policy: &ClusterSecurityPolicy,
    network: Network,
    conditions: &mut Conditions,
) -> Option<ClusterNetworkStatus> {
    let accept = |conditions: &mut Conditions| {
        conditions.set(Type::Accepted, true, "Accepted", "");
        conditions.set(Type::Programmed, true, "Programmed", "");
        conditions.set(Type::Ready, true, "Ready", "");
    };
    let said = || policy.status.as_ref().and_then(|status| status.network.clone());
    let (told, problem) = match network {
        Network::Absent => {
            accept(conditions);
            return None;
        }
        Network::Suspended => {
            accept(conditions);
            keep_last(policy, conditions);
            return said();
        }
        Network::Failed(reason, message) => {
            let last = policy.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            failing(last, reason, &message, conditions);
            return said();
        }
        Network::Refused(reason, message) => {
            stalled(conditions, reason != "Invalid", reason, &message);
            conditions.set(Type::Rendered, false, reason, "");
            conditions.set(Type::Analyzed, false, reason, "");
            return said();
        }
        Network::Known(told, problem) => (*told, problem),
    };
    accept(conditions);
    let Told { mode, status, standing, sight, unknown, unmet } = told;
    let unknown = unknown.map(|error| (error.reason(), error.to_string()));
    let problem = problem.or_else(|| unknown.clone().filter(|_| mode == NetworkMode::Enforce));
    let all = format!("{} of {} namespaces", status.programmed, status.namespaces);
    match problem {
        Some((reason, message)) => {
            conditions.stall(reason, &format!("{all} are as rendered; {message}"));
        }
        None if mode == NetworkMode::Preview => previewed(conditions),
        None => programmed(&all, &unmet, conditions),
    }
    conditions_of(&standing, &sight, &status.widened_by, conditions);
    if let Some((reason, message)) = unknown {
        conditions.set(Type::Rendered, false, reason, message);
    }
    Some(status)
}

/// Of a policy that is suspended, what its network part said last. What hardening waits for is told anew at each visit,
/// and may have taken the place of Programmed: whether all was as rendered is read off the rest.
fn keep_last(policy: &ClusterSecurityPolicy, conditions: &mut Conditions) {
    let Some(mode) = policy.spec.network.as_ref().map(|it| it.mode).filter(|mode| *mode != NetworkMode::Disabled)
    else {
        return;
    };
    let status = policy.status.as_ref();
    let last = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let find = |kind: Type| last.iter().find(|it| it.type_ == kind.as_str());
    keep_seen(last, conditions);
    let is_whole = |it: &ClusterNetworkStatus| it.preview.is_none() && it.programmed == it.namespaces;
    let network = status.and_then(|status| status.network.as_ref());
    if is_true(last, Type::Rendered) && network.is_some_and(is_whole) {
        if let Some(programmed) = find(Type::Programmed).filter(|it| it.status == "True") {
            conditions.keep(programmed);
        }
        return;
    }
    let why = "it is suspended: what spec.network asks was not in force before, and nothing is written";
    conditions.set(Type::Programmed, false, SUSPENDED, why);
    if mode == NetworkMode::Enforce {
        conditions.set(Type::Ready, false, SUSPENDED, why);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use jiff::Timestamp;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        controllers::network::Sight,
        network::{Facts, Population, Standing, Unrenderable},
    };

    #[rstest]
    #[case(NetworkMode::Preview, [("Programmed", "False Preview"), ("Ready", "True Preview")])]
    #[case(
        NetworkMode::Enforce,
        [("Programmed", "False UnknownClusterRanges"), ("Ready", "False UnknownClusterRanges")]
    )]
    fn what_can_not_be_known_for_want_of_ranges_is_told_in_every_mode(
        #[case] mode: NetworkMode,
        #[case] wanted: [(&str, &str); 2],
    ) {
        let policy: ClusterSecurityPolicy =
            serde_json::from_value(json!({"metadata": {"name": "least"}, "spec": {"namespaceSelector": {}}})).unwrap();
        let population = Arc::new(Population::new(vec![], std::iter::empty()));
        let told = Told {
            mode,
            status: ClusterNetworkStatus::default(),
            standing: Standing::default(),
            sight: Sight { population, facts: Facts::default(), around: Arc::default() },
            unknown: Some(Unrenderable::UnknownClusterRanges { rule: "out".into() }),
            unmet: BTreeSet::new(),
        };
        let mut conditions = Conditions::of_generation(Some(1));
        assert!(tell_network(&policy, Network::Known(Box::new(told), None), &mut conditions).is_some());
        let conditions = conditions.carried_from(&[], Timestamp::UNIX_EPOCH);
        let find = |kind: &str| conditions.iter().find(|it| it.type_ == kind).unwrap();
        for (kind, told) in wanted.into_iter().chain([("Rendered", "False UnknownClusterRanges")]) {
            assert_eq!(format!("{} {}", find(kind).status, find(kind).reason), told, "{kind}");
        }
        assert!(find("Rendered").message.contains("\"out\""));
    }

    /// A status whose conditions are of generation 1.
    fn status(conditions: &[(&str, &str)], network: &Value) -> Value {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(kind, status)| {
                json!({"type": kind, "status": status, "reason": "Before", "message": "", "observedGeneration": 1,
                       "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        json!({"observedGeneration": 1, "conditions": conditions, "network": network})
    }

    fn as_rendered() -> Value {
        json!({"namespaces": 2, "programmed": 2})
    }

    fn previewed() -> Value {
        json!({"namespaces": 2, "programmed": 0, "preview": {"newlyDenied": 1, "newlyAllowed": 0}})
    }

    const BEFORE: (&str, &str, Option<i64>) = ("True", "Before", Some(1));
    const NOT_BEFORE: (&str, &str, Option<i64>) = ("False", "Suspended", Some(2));
    const ANEW: (&str, &str, Option<i64>) = ("True", "Programmed", Some(2));

    #[rstest]
    #[case::never_visited("Enforce", status(&[("Ready", "Unknown")], &json!(null)), NOT_BEFORE, "False")]
    #[case::as_rendered("Enforce", status(&[("Programmed", "True"), ("Rendered", "True")], &as_rendered()), BEFORE, "True")]
    #[case::hardening_waits("Enforce", status(&[("Programmed", "False"), ("Rendered", "True")], &as_rendered()), ANEW, "True")]
    #[case::not_rendered("Enforce", status(&[("Programmed", "False"), ("Rendered", "False")], &as_rendered()), NOT_BEFORE, "False")]
    #[case::refused("Enforce", status(&[("Programmed", "False"), ("Rendered", "True")], &previewed()), NOT_BEFORE, "False")]
    #[case::asked_for_since("Enforce", status(&[("Programmed", "True")], &json!(null)), NOT_BEFORE, "False")]
    #[case::preview("Preview", status(&[("Programmed", "False"), ("Rendered", "True")], &previewed()), NOT_BEFORE, "True")]
    #[case::disabled("Disabled", status(&[], &json!(null)), ANEW, "True")]
    fn what_is_suspended_is_programmed_only_if_it_was(
        #[case] mode: &str,
        #[case] last: Value,
        #[case] programmed: (&str, &str, Option<i64>),
        #[case] ready: &str,
    ) {
        let mut policy: ClusterSecurityPolicy = serde_json::from_value(json!({
            "metadata": {"name": "least", "generation": 2}, "status": last,
            "spec": {"suspend": true, "namespaceSelector": {},
                     "network": {"mode": mode, "podSelector": {}, "isolate": ["Ingress"]}},
        }))
        .unwrap();
        // The second visit says what the first one said.
        for _ in 0..2 {
            let mut conditions = Conditions::of_generation(Some(2));
            let network = tell_network(&policy, Network::Suspended, &mut conditions);
            let status = policy.status.get_or_insert_default();
            assert_eq!(network, status.network);
            status.conditions = conditions.carried_from(&status.conditions, Timestamp::UNIX_EPOCH);
            let find = |kind: &str| status.conditions.iter().find(|it| it.type_ == kind).unwrap();
            let told = find("Programmed");
            assert_eq!((told.status.as_str(), told.reason.as_str(), told.observed_generation), programmed);
            assert_eq!((find("Ready").status.as_str(), find("Accepted").status.as_str()), (ready, "True"));
        }
    }
}
