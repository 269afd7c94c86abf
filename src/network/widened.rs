//! NetworkPolicies of others that allow pods of an intent more than it does: policies only add.

use std::collections::BTreeSet;

use rampart_reach::{Change, Direction, Index, Policy};

/// Which of the foreign policies open something of these pods that all but foreign ones keep closed, by their places:
/// where two open the same, each does.
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
    let is_about =
        |policy: &Policy| pods().any(|pod| pod.namespace == policy.namespace && policy.pods.matches(&pod.labels));
    let others: Vec<&Policy> =
        others.iter().filter(|other| !foreign.iter().any(|one| std::ptr::eq(*one, **other))).copied().collect();
    let mut found = BTreeSet::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        // Where the intent leaves a direction open, nobody can open it further.
        if !ours.iter().any(|policy| rules(policy, direction).is_some()) {
            continue;
        }
        let (opening, rest): (Vec<Policy>, Vec<Policy>) = foreign.iter().map(|one| halves(one, direction)).unzip();
        let kept: Vec<&Policy> = others.iter().chain(ours).copied().chain(&rest).collect();
        for (place, one) in opening.iter().enumerate() {
            if found.contains(&place) || rules(one, direction).is_none_or(Vec::is_empty) || !is_about(one) {
                continue;
            }
            let change = Change::new(index, &kept, &[], &[one]);
            // It may open other pods, too: that is no matter of this intent.
            let opens = classes.iter().any(|class| {
                let [_, newly_allowed] = change.of_end(*class, direction);
                // A pod always reaches itself.
                let is_alone = index.classes().get(*class).is_none_or(|pods| pods.len() < 2);
                newly_allowed.iter().any(|part| part.ends.ones().any(|end| end != *class || !is_alone))
            });
            if opens {
                found.insert(place);
            }
        }
    }
    found.into_iter().collect()
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

    /// Which policies of others about all pods, each of which lets somebody in, widen one that lets `web` in to `db`.
    fn widens(from: &[Value]) -> Vec<usize> {
        let pod = |app: &str| Pod {
            namespace: "shop".into(),
            name: app.into(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            ..Pod::default()
        };
        let index = Index::new(&[], ["db", "web", "other"].map(pod).into(), IpBlocks::External);
        let (all, types) = (json!({}), json!(["Ingress"]));
        let ours = policy(&app("db"), &types, &json!([{"from": [{"podSelector": app("web")}]}]));
        let deny = policy(&all, &types, &json!([]));
        let foreign: Vec<Policy> =
            from.iter().map(|from| policy(&all, &types, &json!([{"from": [{"podSelector": from}]}]))).collect();
        let foreign: Vec<&Policy> = foreign.iter().collect();
        let others: Vec<&Policy> = [&deny].into_iter().chain(foreign.iter().copied()).collect();
        widened_by(&index, &[&ours], &others, &foreign, &[0])
    }

    fn app(app: &str) -> Value {
        json!({"matchLabels": {"app": app}})
    }

    #[test]
    fn what_is_opened_of_other_pods_is_no_matter_of_an_intent() {
        assert!(widens(&[app("web")]).is_empty(), "db was open to it, and the other pod is none of ours");
        assert_eq!((widens(&[app("other")]), widens(&[json!({})])), (vec![0], vec![0]));
    }

    #[test]
    fn foreign_policies_do_not_hide_each_other() {
        assert_eq!(widens(&[json!({}), json!({})]), [0, 1]);
        assert_eq!(widens(&[json!({}), app("web"), app("other")]), [0, 2]);
    }
}
