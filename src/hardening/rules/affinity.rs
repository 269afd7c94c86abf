//! By which labels a pod chooses its nodes, besides `nodeSelector`.

use serde::Deserialize;

/// A pod's affinity, as far as it is to nodes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    preferred: Option<Vec<Preferred>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeSelector {
    node_selector_terms: Option<Vec<Term>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Preferred {
    preference: Option<Term>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    match_expressions: Option<Vec<Requirement>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Requirement {
    key: Option<String>,
    operator: Option<String>,
}

impl Affinity {
    /// Labels by which nodes are chosen, and not only kept away from.
    pub(super) fn labels(&self) -> impl Iterator<Item = &str> {
        let nodes = self.node_affinity.as_ref();
        let required = nodes.and_then(|it| it.required.as_ref()?.node_selector_terms.as_ref());
        let preferred = nodes.and_then(|it| it.preferred.as_ref()).into_iter().flatten();
        let terms = required.into_iter().flatten().chain(preferred.filter_map(|it| it.preference.as_ref()));
        let chooses = |it: &&Requirement| !AVOID.contains(&it.operator.as_deref().unwrap_or_default());
        terms
            .flat_map(move |term| term.match_expressions.iter().flatten().filter(chooses))
            .filter_map(|it| it.key.as_deref())
    }
}

/// Operators by which a pod keeps away from nodes.
pub(super) const AVOID: [&str; 2] = ["NotIn", "DoesNotExist"];
