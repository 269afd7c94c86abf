//! NetworkPolicies of others that allow pods of an intent more than it does: policies only add.

use rampart_reach::{Change, Index, Policy};

/// Which of the foreign policies open something that all others keep closed, by their places.
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
    let mut found = vec![];
    for (place, one) in foreign.iter().enumerate() {
        let is_about = pods().any(|pod| pod.namespace == one.namespace && one.pods.matches(&pod.labels));
        let isolates = |theirs: bool, own: fn(&Policy) -> bool| theirs && ours.iter().any(|policy| own(policy));
        // Where the intent leaves a direction open, nobody can open it further.
        let meets = isolates(one.ingress.as_ref().is_some_and(|it| !it.is_empty()), |own| own.ingress.is_some())
            || isolates(one.egress.as_ref().is_some_and(|it| !it.is_empty()), |own| own.egress.is_some());
        if !is_about || !meets {
            continue;
        }
        let kept: Vec<&Policy> =
            others.iter().filter(|other| !std::ptr::eq(**other, *one)).chain(ours).copied().collect();
        if Change::new(index, &kept, &[], &[one]).difference().newly_allowed.pairs > 0 {
            found.push(place);
        }
    }
    found
}
