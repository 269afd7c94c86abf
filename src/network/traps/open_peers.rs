//! An empty or absent list of peers.

use super::{Caught, Looked, Trap, certain};

pub(super) static TRAP: Trap = Trap {
    id: "openPeers",
    title: "an empty list of peers is everybody: every pod of every namespace, and every address",
    find,
};

fn find(looked: &Looked<'_>) -> Vec<Caught> {
    let caught = looked.rules().filter(|rule| rule.peers.is_none_or(Vec::is_empty)).map(|rule| {
        let ports = if rule.ports.is_none_or(Vec::is_empty) { ", on every port" } else { "" };
        let detail = format!(
            "`{}` is empty, so the rule is about everybody{ports}: for the internet write an ipBlock 0.0.0.0/0 that \
             excepts the ranges of the cluster, and for the cluster select its pods",
            rule.field
        );
        certain(format!("{}/{}", rule.path, rule.field), detail)
    });
    caught.collect()
}
