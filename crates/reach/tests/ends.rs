//! What is told of one end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use rampart_reach::{Analysis, Change, Direction, Index, IpBlocks, Pod, Policy};

fn pods() -> Vec<Pod> {
    let pod = |name: &str| Pod {
        namespace: "n".into(),
        name: name.into(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        ..Pod::default()
    };
    ["a", "b", "c"].map(pod).into()
}

/// Lets `a` be reached by `peer` alone.
fn only(name: &str, peer: &str) -> Policy {
    let json = format!(
        r#"{{"metadata": {{"namespace": "n", "name": "{name}"}}, "spec": {{
            "podSelector": {{"matchLabels": {{"app": "a"}}}}, "policyTypes": ["Ingress"],
            "ingress": [{{"from": [{{"podSelector": {{"matchLabels": {{"app": "{peer}"}}}}}}]}}]}}}}"#
    );
    serde_json::from_str(&json).unwrap()
}

#[test]
fn who_isolates_a_class_and_whom_a_policy_selects() {
    let index = Index::new(&[], pods(), IpBlocks::External);
    let policies = [only("b", "b"), only("c", "c")];
    let analysis = Analysis::new(&index, &policies);
    let [a, b, _] = [0, 1, 2].map(|pod| index.class_of(pod).unwrap());
    assert_eq!(analysis.isolated_by(a, Direction::Ingress), [0, 1]);
    assert!(analysis.isolated_by(a, Direction::Egress).is_empty());
    assert!(analysis.isolated_by(b, Direction::Ingress).is_empty());
    assert_eq!(index.selected("n", &policies[0].pods), [0]);
    assert!(index.selected("m", &policies[0].pods).is_empty());
}

#[test]
fn what_a_change_takes_from_an_end_and_gives_to_it() {
    let index = Index::new(&[], pods(), IpBlocks::External);
    let (before, after) = (only("p", "b"), only("p", "c"));
    let change = Change::new(&index, &[], &[&before], &[&after]);
    let [a, b, c] = [0, 1, 2].map(|pod| index.class_of(pod).unwrap());
    let ends = |end, direction| {
        change.of_end(end, direction).map(|parts| parts.iter().flat_map(|part| part.ends.ones()).collect::<Vec<_>>())
    };
    let nobody: Vec<usize> = vec![];
    assert_eq!(ends(a, Direction::Ingress), [vec![b], vec![c]]);
    assert_eq!(ends(b, Direction::Egress), [vec![a], nobody.clone()]);
    assert_eq!(ends(c, Direction::Egress), [nobody.clone(), vec![a]]);
    assert_eq!(ends(a, Direction::Egress), [nobody.clone(), nobody]);
}
