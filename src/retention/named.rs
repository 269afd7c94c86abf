//! What a report names: what is done alike, by UID, and the rest one by one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Planned;
use crate::api::{RecordAct, RecordDecision, RecordItem, RetentionRecord};

/// Something that a report names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    /// What kind of thing.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Identity.
    pub uid: &'a str,
    /// What was decided.
    pub decision: RecordDecision,
    /// Since when it is too old.
    pub too_old_since: Option<Timestamp>,
}

/// All that a report names.
pub fn named(record: &RetentionRecord) -> impl Iterator<Item = Named<'_>> {
    let done = record.acts.iter().flat_map(|act| {
        act.names.iter().map(|(uid, name)| Named {
            kind: &act.kind,
            name,
            uid,
            decision: act.decision,
            too_old_since: act.too_old_since.get(uid).map(|time| time.0),
        })
    });
    done.chain(record.items.iter().map(|item| Named {
        kind: &item.kind,
        name: &item.name,
        uid: &item.uid,
        decision: item.decision,
        too_old_since: item.too_old_since.as_ref().map(|time| time.0),
    }))
}

/// How a report names what is done, or would be.
pub(super) fn tell<'a>(
    done: impl IntoIterator<Item = (&'a Planned, RecordDecision)>,
) -> (Vec<RecordAct>, Vec<RecordItem>) {
    let (mut acts, mut items): (Vec<RecordAct>, Vec<RecordItem>) = Default::default();
    for (planned, decision) in done {
        let Some(reason) = common_reason(decision) else {
            items.push(item(planned, decision));
            continue;
        };
        let kind = &planned.item.kind;
        let known = acts.iter().position(|act| act.decision == decision && act.kind == *kind);
        let index = known.unwrap_or_else(|| {
            let (names, too_old_since) = (BTreeMap::new(), BTreeMap::new());
            acts.push(RecordAct { kind: kind.clone(), decision, reason: reason.into(), names, too_old_since });
            acts.len() - 1
        });
        if let Some(act) = acts.get_mut(index) {
            let uid = &planned.item.uid;
            act.names.insert(uid.clone(), planned.item.name.clone());
            act.too_old_since.extend(too_old(planned).map(|since| (uid.clone(), since)));
        }
    }
    (acts, items)
}

pub(super) fn item(planned: &Planned, decision: RecordDecision) -> RecordItem {
    let item = &planned.item;
    RecordItem {
        kind: item.kind.clone(),
        name: item.name.clone(),
        uid: item.uid.clone(),
        decision,
        reason: planned.reason(),
        too_old_since: too_old(planned),
    }
}

/// The reason that all have to whom this is done; `None` where each has its own.
const fn common_reason(decision: RecordDecision) -> Option<&'static str> {
    match decision {
        RecordDecision::Delete => Some("it is older than it may be"),
        RecordDecision::Mark => Some("it is older than it may be, and its grace period begins"),
        RecordDecision::Unmark | RecordDecision::Keep => None,
    }
}

fn too_old(planned: &Planned) -> Option<Time> {
    planned.too_old.filter(|_| planned.decision.is_candidate()).map(Time)
}
