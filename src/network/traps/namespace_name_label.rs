//! Namespaces by the label `name`.

use super::{Caught, Looked, Trap, certain};

pub(super) static TRAP: Trap = Trap {
    id: "namespaceNameLabel",
    title: "nothing sets the label `name` on namespaces, and whoever labels one decides who is let in",
    find,
};

const LABEL: &str = "name";

fn find(looked: &Looked<'_>) -> Vec<Caught> {
    let caught = looked.peers().filter_map(|(path, peer)| {
        let selector = peer.namespace_selector.as_ref()?;
        let field = if selector.match_labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL)) {
            "matchLabels/name".to_owned()
        } else {
            let place = selector.match_expressions.iter().flatten().position(|it| it.key == LABEL)?;
            format!("matchExpressions/{place}/key")
        };
        let detail = "select by kubernetes.io/metadata.name, which the API server sets (KEP-2161)".to_owned();
        Some(certain(format!("{path}/namespaceSelector/{field}"), detail))
    });
    caught.collect()
}
