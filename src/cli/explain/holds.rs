//! Who holds an object.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::{ResourceExt as _, api::DynamicObject};
use serde::Serialize;

use super::{kinds::Kind, known::Known, namespace::Line};
use crate::{api::HoldTerms, cluster::holds::Holding, retention::Hold};

/// A legal hold that keeps an object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Held {
    /// `LegalHold/case-17`.
    pub(super) hold: String,
    /// When it ends; absent for one without an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Timestamp>,
    pub(super) ground: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) case_ref: Option<String>,
}

/// The holds that are about a namespace and have not ended.
pub(super) fn about(known: &Known, namespace: &str, now: Timestamp) -> Vec<(Hold, HoldTerms)> {
    let labels = known.labels(namespace);
    let own = known.holds.iter().filter_map(|it| running(it, &it.spec.terms, now));
    let wide = known.cluster_holds.iter().filter_map(|it| running(it, &it.spec.terms, now));
    own.chain(wide).filter(|(hold, _)| hold.is_about(namespace, labels)).collect()
}

fn running<K: Holding>(object: &K, terms: &HoldTerms, now: Timestamp) -> Option<(Hold, HoldTerms)> {
    let hold = object.hold().ok()?;
    (!object.is_over(&hold, now)).then(|| (hold, terms.clone()))
}

/// The holds that keep an object.
pub(super) fn held(known: &Known, kind: &Kind, object: &DynamicObject, now: Timestamp) -> Vec<Held> {
    let (plural, labels): (String, &BTreeMap<String, String>) = (kind.resource().plural, object.labels());
    let about = about(known, &object.namespace().unwrap_or_default(), now);
    let keeping = about.into_iter().filter(|(hold, _)| hold.holds(kind.group(), &plural, labels));
    let told = keeping.map(|(hold, terms)| Held {
        hold: hold.to_string(),
        until: hold.until,
        ground: terms.ground,
        case_ref: terms.case_ref,
    });
    told.collect()
}

/// What holds keep in a namespace, a line a hold.
pub(super) fn lines(known: &Known, namespace: &str, now: Timestamp) -> Vec<Line> {
    let told = about(known, namespace, now).into_iter().map(|(hold, _)| {
        let kinds: Vec<&str> = hold.resources.iter().map(|(_, plural)| plural.as_str()).collect();
        let until = hold.until.map_or_else(|| "until it is released".into(), |until| format!("until {until}"));
        Line { kind: hold.kind.as_str(), name: hold.name.clone(), what: format!("holds {}, {until}", kinds.join(", ")) }
    });
    told.collect()
}
