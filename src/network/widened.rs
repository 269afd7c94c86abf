//! NetworkPolicies of others that allow pods of an intent more than it does: policies only add.

use std::collections::BTreeSet;

use rampart_reach::{Change, Direction, Index, Policy};

/// Which of the foreign policies open something of these pods that all others keep closed, by their places.
///
/// `ours` are those of the intent, about `selected` pods; `others` all of the cluster, with the foreign ones.
#[must_use]
pub fn widened_by(
    index: &Index,
    ours: &[&Policy],
    others: &[&Policy],
    foreign: &[&Policy],
    selected: &[usize],
) -> Vec<usize> {
    let pods = || selected.iter().filter_map(|place| index.pods().get(*place));
    let classes: BTreeSet<usize> = selected.iter().filter_map(|place| index.class_of(*place)).collect();
    let mut found = vec![];
    for (place, one) in foreign.iter().enumerate() {
        if !pods().any(|pod| pod.namespace == one.namespace && one.pods.matches(&pod.labels)) {
            continue;
        }
        let opens = |direction: Direction| {
            let (own, rest) = halves(one, direction);
            // Where the intent leaves a direction open, nobody can open it further.
            let is_isolated = ours.iter().any(|policy| rules(policy, direction).is_some());
            if !is_isolated || rules(one, direction).is_none_or(Vec::is_empty) {
                return false;
            }
            let others = others.iter().filter(|other| !std::ptr::eq(**other, *one)).copied();
            let kept: Vec<&Policy> = others.chain(ours.iter().copied()).chain([&rest]).collect();
            let change = Change::new(index, &kept, &[], &[&own]);
            // It may open other pods, too: that is no matter of this intent.
            classes.iter().any(|class| {
                let [_, newly_allowed] = change.of_end(*class, direction);
                // A pod always reaches itself.
                let is_alone = index.classes().get(*class).is_none_or(|pods| pods.len() < 2);
                newly_allowed.iter().any(|part| part.ends.ones().any(|end| end != *class || !is_alone))
            })
        };
        if opens(Direction::Ingress) || opens(Direction::Egress) {
            found.push(place);
        }
    }
    found
}

const fn rules(policy: &Policy, direction: Direction) -> Option<&Vec<rampart_reach::Rule>> {
    match direction {
        Direction::Ingress => policy.ingress.as_ref(),
        Direction::Egress => policy.egress.as_ref(),
    }
}

/// What a policy says of a direction, and what it says of the other.
fn halves(policy: &Policy, direction: Direction) -> (Policy, Policy) {
    let (mut one, mut other) = (policy.clone(), policy.clone());
    match direction {
        Direction::Ingress => (one.egress, other.ingress) = (None, None),
        Direction::Egress => (one.ingress, other.egress) = (None, None),
    }
    (one, other)
}

#[cfg(test)]
mod tests {
    use rampart_reach::{IpBlocks, Pod};
    use serde_json::{Value, json};

    use super::*;

    fn policy(pods: &Value, types: &Value, ingress: &Value) -> Policy {
        let spec = json!({"podSelector": pods, "policyTypes": types, "ingress": ingress});
        serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": spec})).unwrap()
    }

    /// Whether a policy of others about all pods, that lets somebody in, widens one that lets `web` in to `db`.
    fn widens(from: &Value) -> bool {
        let pod = |app: &str| Pod {
            namespace: "shop".into(),
            name: app.into(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            ..Pod::default()
        };
        let index = Index::new(&[], ["db", "web", "other"].map(pod).into(), IpBlocks::External);
        let (all, app) = (json!({}), |app: &str| json!({"matchLabels": {"app": app}}));
        let types = json!(["Ingress"]);
        let ours = policy(&app("db"), &types, &json!([{"from": [{"podSelector": app("web")}]}]));
        let deny = policy(&all, &types, &json!([]));
        let foreign = policy(&all, &types, &json!([{"from": [{"podSelector": from}]}]));
        widened_by(&index, &[&ours], &[&deny, &foreign], &[&foreign], &[0]) == [0]
    }

    #[test]
    fn what_is_opened_of_other_pods_is_no_matter_of_an_intent() {
        let app = |app: &str| json!({"matchLabels": {"app": app}});
        assert!(!widens(&app("web")), "db was open to it, and the other pod is none of ours");
        assert!(widens(&app("other")) && widens(&json!({})));
    }
}
