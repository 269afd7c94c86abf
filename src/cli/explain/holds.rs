//! Who holds an object, and what a hold keeps.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::{ResourceExt as _, api::DynamicObject};
use serde::Serialize;

use super::{
    kinds::Kind,
    known::{Extent, Known},
    namespace::Line,
    policy::{Told, outdated, trouble},
};
use crate::{
    api::{
        HeldResource, HoldState, HoldTerms,
        condition::{Type, is_true},
    },
    cluster::holds::Holding,
    retention::{Hold, HoldKind},
};

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

/// What is said of a LegalHold or ClusterLegalHold.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Keeps {
    /// What to know before the rest.
    pub(super) notes: Vec<String>,
    /// Conditions that tell of trouble.
    pub(super) conditions: Vec<Told>,
    /// As its status says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<HoldState>,
    /// Since when it has been in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Timestamp>,
    /// When it ends; absent for one without an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Timestamp>,
    pub(super) ground: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) case_ref: Option<String>,
    pub(super) resources: Vec<HeldResource>,
    /// Namespaces that a ClusterLegalHold is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespaces: Option<Vec<String>>,
    /// The kubectl command that lists what it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) listing: Option<String>,
}

/// What there is to say of a hold.
pub(super) fn keeps<K: Holding>(object: &K, terms: &HoldTerms, known: &Known) -> Keeps {
    let status = object.status().cloned().unwrap_or_default();
    let ready = status.conditions.iter().find(|it| it.type_ == Type::Ready.as_str());
    let since = ready.filter(|_| is_true(&status.conditions, Type::Ready)).map(|it| it.last_transition_time.0);
    let mut told = Keeps {
        notes: outdated(object, status.observed_generation).into_iter().collect(),
        conditions: trouble(&status.conditions),
        state: status.state,
        since: since.filter(|_| status.state == Some(HoldState::Active)),
        until: terms.until.as_ref().map(|until| until.0),
        ground: terms.ground.clone(),
        case_ref: terms.case_ref.clone(),
        resources: terms.resources.clone(),
        namespaces: None,
        listing: None,
    };
    match object.hold() {
        Ok(hold) => {
            let about = known.namespaces.iter().filter(|it| hold.is_about(&it.name, &it.labels));
            let mut about: Vec<String> = about.map(|it| it.name.clone()).collect();
            about.sort();
            let is_known = hold.kind == HoldKind::ClusterLegalHold && known.seen.namespaces == Extent::Whole;
            told.namespaces = is_known.then_some(about);
            told.listing = Some(hold.listing());
        }
        Err(invalid) => told.notes.push(format!("it can't be read: {invalid}")),
    }
    told
}

/// The holds that are about a namespace and have not ended.
pub(super) fn about(known: &Known, namespace: &str, now: Timestamp) -> Vec<(Hold, HoldTerms)> {
    let labels = known.labels(namespace);
    let own = known.holds.iter().filter_map(|it| running(it, &it.spec.terms, now));
    let wide = known.cluster_holds.iter().filter_map(|it| running(it, &it.spec.terms, now));
    own.chain(wide).filter(|(hold, _)| hold.is_about(namespace, labels)).collect()
}

fn running<K: Holding>(object: &K, terms: &HoldTerms, now: Timestamp) -> Option<(Hold, HoldTerms)> {
    // What an earlier build refuses for one that could not be made any more is told by its status.
    let is_refused_for = object.status().is_some_and(|status| !status.admission_policies.is_empty());
    let hold = object.hold().ok().or_else(|| object.before().filter(|_| is_refused_for))?;
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

/// Until when a hold goes on, in words.
pub(super) fn end(until: Option<Timestamp>) -> String {
    until.map_or_else(|| "until it is released".into(), |until| format!("until {until}"))
}

/// What holds keep in a namespace, a line a hold.
pub(super) fn lines(known: &Known, namespace: &str, now: Timestamp) -> Vec<Line> {
    let told = about(known, namespace, now).into_iter().map(|(hold, _)| {
        let kinds: Vec<&str> = hold.resources.iter().map(|(_, plural)| plural.as_str()).collect();
        let what = format!("holds {}, {}", kinds.join(", "), end(hold.until));
        Line { kind: hold.kind.as_str(), name: hold.name.clone(), what }
    });
    told.collect()
}
