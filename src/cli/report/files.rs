//! What a report is made of, from files: as `kubectl get -o yaml` prints it.

use std::path::PathBuf;

use kube::ResourceExt as _;
use rampart_reach::Namespace;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::{
    fields::refuse_malformed,
    source::{self, Found, Unreadable, group_kind},
};
use crate::{
    GROUP,
    report::{Listed, World},
};

/// What files hold, of one namespace or of all; what can't be read of them, and how many objects are of no use.
pub(super) fn world(paths: &[PathBuf], only: Option<String>) -> (World, Vec<Unreadable>, usize) {
    let mut found = source::read_all(paths);
    refuse_malformed(&mut found);
    let Found { objects, mut unreadable } = found;
    let (mut world, mut others) = (World { only, ..World::default() }, 0_usize);
    world.pause.unread = vec!["whether hardening is paused: files do not say".into()];
    for object in objects {
        let is_elsewhere = object
            .value
            .pointer("/metadata/namespace")
            .and_then(Value::as_str)
            .is_some_and(|namespace| world.only.as_ref().is_some_and(|only| only != namespace));
        if is_elsewhere {
            continue;
        }
        match add(&mut world, &object.value) {
            Ok(true) => {}
            Ok(false) => others = others.saturating_add(1),
            Err(why) => unreadable.push(object.unreadable(why)),
        }
    }
    (world, unreadable, others)
}

/// Whether it is of a kind that is reported.
fn add(world: &mut World, value: &Value) -> Result<bool, String> {
    match group_kind(value) {
        ("", "Namespace") => {
            let parsed = parsed::<k8s_openapi::api::core::v1::Namespace>(value)?;
            world.namespaces.items.push(Namespace { name: parsed.name_any(), labels: parsed.labels().clone() });
            Ok(true)
        }
        (GROUP, "SecurityPolicy") => push(&mut world.policies, value),
        (GROUP, "ClusterSecurityPolicy") => push(&mut world.cluster_policies, value),
        (GROUP, "PolicyException") => push(&mut world.exceptions, value),
        (GROUP, "ApiKey") => push(&mut world.keys, value),
        (GROUP, "RetentionPolicy") => push(&mut world.retention, value),
        (GROUP, "LegalHold") => push(&mut world.holds, value),
        (GROUP, "ClusterLegalHold") => push(&mut world.cluster_holds, value),
        _ => Ok(false),
    }
}

fn push<K: DeserializeOwned>(to: &mut Listed<K>, value: &Value) -> Result<bool, String> {
    to.items.push(parsed(value)?);
    Ok(true)
}

fn parsed<K: DeserializeOwned>(value: &Value) -> Result<K, String> {
    K::deserialize(value).map_err(|error| error.to_string())
}
