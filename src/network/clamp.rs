//! What of an intent the least isolation of its namespace leaves out.

use std::collections::BTreeSet;

use rampart_reach::disjoint;

use super::{Intent, Peer};
use crate::api::{Direction, Finding};

impl Intent {
    /// The intent without what would undo the isolation that others ask at the least: peers that are everybody, in
    /// the directions which `least` isolates for any of its pods. What is opened for those is opened for all that the
    /// intent is about, so only pods that are provably others keep it. With what was left out.
    #[must_use]
    pub fn clamped<'l>(
        &self,
        namespace: &str,
        least: impl Iterator<Item = (&'l str, &'l Self)>,
    ) -> (Self, Vec<Finding>) {
        let (mut clamped, mut findings) = (self.clone(), vec![]);
        let mut done = BTreeSet::new();
        for (name, least) in least.filter(|(_, least)| !disjoint(&least.pods.parsed, &self.pods.parsed)) {
            for direction in least.isolate.iter().copied().filter(|it| done.insert(*it)) {
                let rules = match direction {
                    Direction::Ingress => &mut clamped.ingress,
                    Direction::Egress => &mut clamped.egress,
                };
                for rule in rules.iter_mut().filter(|rule| rule.peers.contains(&Peer::Any)) {
                    rule.peers.retain(|peer| *peer != Peer::Any);
                    let message = format!(
                        "rule {:?} is about everybody (`any: true`), and ClusterSecurityPolicy {name} isolates \
                         {direction:?} here: that is not rendered",
                        rule.name
                    );
                    findings.push(Finding { id: format!("Clamped/{namespace}/{}", rule.name), message });
                }
                rules.retain(|rule| !rule.peers.is_empty());
            }
        }
        (clamped, findings)
    }
}
