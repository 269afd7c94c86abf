//! Retention by class of data, and legal holds.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

use super::{World, policies::ready};
use crate::{
    api::{
        ClusterLegalHold, DataClass, GoDuration, HoldState, HoldTerms, LegalHoldStatus, RetentionMode, RetentionPolicy,
    },
    retention::Spec,
};

type Labels = BTreeMap<String, String>;

/// RetentionPolicies of a class of data.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionClass {
    /// The class; absent: policies that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<DataClass>,
    /// Age beyond which data of the class is too old, at the most; it is deleted a grace period later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<GoDuration>,
    /// The policies.
    pub policies: Vec<Retention>,
}

/// A RetentionPolicy.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How far it goes.
    pub mode: RetentionMode,
    /// Whether it is suspended.
    pub suspended: bool,
    /// Age beyond which an object is too old; absent where the policy can't be read, and has no effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<GoDuration>,
    /// Kinds that it is about.
    pub kinds: Vec<String>,
    /// Objects that are too old, and that nothing protects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_delete: Option<i64>,
    /// Objects that are too old, and held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<i64>,
    /// Objects that its last run deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<i64>,
    /// When something is next due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_run_time: Option<Timestamp>,
    /// Whether it is ready.
    pub ready: bool,
    /// Why, or why not.
    pub reason: String,
}

/// A LegalHold or ClusterLegalHold.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Kinds that are held: plural and group.
    pub resources: Vec<String>,
    /// When it ends by itself; absent: when somebody releases it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why.
    pub ground: String,
    /// What the case is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub case_ref: Option<String>,
    /// Whether it holds.
    pub state: HoldStanding,
}

/// Whether a hold holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum HoldStanding {
    /// It does.
    Active,
    /// What refuses is being written.
    Pending,
    /// It was seen to end: until then it goes on, whatever the clock says.
    Expired,
    /// The operator has not seen it as it is now.
    Unseen,
}

/// Policies by class, the strictest class first, those of none last.
pub(super) fn classes(all: &[RetentionPolicy]) -> Vec<RetentionClass> {
    let mut classes: BTreeMap<Option<DataClass>, Vec<Retention>> = BTreeMap::new();
    for policy in all {
        classes.entry(policy.spec.data_class).or_default().push(retention(policy));
    }
    let class = |(class, mut policies): (Option<DataClass>, Vec<Retention>)| {
        policies.sort_by_key(|it| (it.namespace.clone(), it.name.clone()));
        RetentionClass { class, most: class.map(|class| GoDuration::hours(class.hours_kept())), policies }
    };
    classes.into_iter().rev().map(class).collect()
}

fn retention(policy: &RetentionPolicy) -> Retention {
    let status = policy.status.clone().unwrap_or_default();
    let is_current = status.observed_generation == policy.metadata.generation;
    let (parsed, (ready, reason)) = (Spec::try_from(policy), ready(&status.conditions, is_current));
    Retention {
        namespace: policy.metadata.namespace.clone().unwrap_or_default(),
        name: policy.metadata.name.clone().unwrap_or_default(),
        mode: policy.spec.mode,
        suspended: policy.spec.suspend == Some(true),
        max_age: parsed
            .as_ref()
            .ok()
            .and_then(|spec| spec.max_age.try_into().ok())
            .map(|age: std::time::Duration| age.into()),
        kinds: policy.spec.targets.iter().map(|target| target.resources.kind.clone()).collect(),
        would_delete: status.plan.as_ref().map(|plan| plan.would_delete),
        held: status.plan.as_ref().map(|plan| plan.held),
        deleted: status.last_run.as_ref().map(|run| run.deleted),
        next_run_time: status.next_run_time.map(|time| time.0),
        ready: ready && parsed.is_ok(),
        reason: parsed.err().map_or(reason, |invalid| invalid.to_string()),
    }
}

/// Holds of both kinds, those of the cluster first, where `is_about` says that they are about what is reported.
pub(super) fn holds(world: &World, is_about: impl Fn(&dyn Fn(&str, &Labels) -> bool) -> bool) -> Vec<Hold> {
    // One that can't be read may be about any.
    let is_here = |it: &&ClusterLegalHold| match crate::retention::Hold::try_from(*it) {
        Ok(hold) => is_about(&|name, labels| hold.is_about(name, labels)),
        Err(_) => true,
    };
    let wide = world.cluster_holds.items.iter().filter(is_here);
    let wide = wide.map(|it| hold("ClusterLegalHold", &it.metadata, &it.spec.terms, it.status.as_ref()));
    let own = world.holds.items.iter();
    let own = own.map(|it| hold("LegalHold", &it.metadata, &it.spec.terms, it.status.as_ref()));
    let mut all: Vec<Hold> = wide.chain(own).collect();
    all.sort_by_key(|it| (it.namespace.clone(), it.name.clone()));
    all
}

fn hold(kind: &'static str, metadata: &ObjectMeta, terms: &HoldTerms, status: Option<&LegalHoldStatus>) -> Hold {
    let seen = status.filter(|status| status.observed_generation == metadata.generation);
    let until = terms.until.as_ref().map(|until| until.0);
    let state = match seen.and_then(|status| status.state) {
        Some(HoldState::Active) => HoldStanding::Active,
        Some(HoldState::Pending) => HoldStanding::Pending,
        Some(HoldState::Expired) => HoldStanding::Expired,
        None => HoldStanding::Unseen,
    };
    let plural = |group: &str, resource: &str| match group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    };
    Hold {
        kind,
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone().unwrap_or_default(),
        resources: terms.resources.iter().map(|it| plural(&it.group, &it.resource)).collect(),
        until,
        ground: terms.ground.clone(),
        case_ref: terms.case_ref.clone(),
        state,
    }
}
