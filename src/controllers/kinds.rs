//! Whether the CRDs that are installed have every field that this version of the operator writes.
//!
//! Where they are of an older version, because they are upgraded apart and the operator was first, the API server refuses
//! statuses, and drops what else it does not know: keys stop to rotate, and nobody would know why. The schemas themselves
//! are compared, since only what is missing does harm: neither what an API server adds to a schema, nor what a newer
//! version has besides, as it has while an upgrade is under way in the right order.

use futures::future;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool,
};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;

use super::{Context, news};
use crate::{
    api::crds,
    cluster::{follow::follow_those, leader::Leadership},
    runtime::metrics::CrdLabel,
};

/// So many of the fields that are missing are named in the log.
const NAMED: usize = 10;

/// Compares them from when this process leads until it stops, whenever one has changed.
///
/// # Errors
/// None: a failing watch is restarted.
pub async fn follow(context: Context, mut leadership: Leadership) -> anyhow::Result<()> {
    let ours = crds();
    for crd in &ours {
        context.metrics.crd_missing_fields.get_or_create(&CrdLabel { crd: crd.name_any() }).set(0);
    }
    let following = async {
        leadership.acquired().await;
        future::join_all(ours.iter().map(|crd| follow_one(&context, crd))).await;
    };
    context.stopped.run_until_cancelled(following).await;
    context.stopped.cancelled().await;
    Ok(())
}

async fn follow_one(context: &Context, ours: &CustomResourceDefinition) {
    let name = ours.name_any();
    let label = CrdLabel { crd: name.clone() };
    let api: Api<CustomResourceDefinition> = Api::all(context.client.clone());
    follow_those(
        api,
        ("CustomResourceDefinition", news::named(&name)),
        |installed, _| Some(missing(ours, installed)),
        |all, _| {
            let missing = all.values().next().map(Vec::as_slice).unwrap_or_default();
            let count = i64::try_from(missing.len()).unwrap_or(i64::MAX);
            let before = context.metrics.crd_missing_fields.get_or_create(&label).set(count);
            if count > 0 && count != before {
                let fields = missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                tracing::warn!(
                    crd = name,
                    count,
                    fields,
                    "the CRD is of an older version than the operator and lacks fields that it writes: upgrade the CRDs"
                );
            } else if count == 0 && before > 0 {
                tracing::info!(crd = name, "the CRD has every field that the operator writes");
            }
        },
        &watch::Sender::new(false),
    )
    .await;
}

/// What an installed CRD does not take of what ours does: fields, as `status.versions[].state`, values, and versions.
fn missing(ours: &CustomResourceDefinition, installed: &CustomResourceDefinition) -> Vec<String> {
    let mut found = vec![];
    for version in &ours.spec.versions {
        let theirs = installed.spec.versions.iter().find(|it| it.name == version.name && it.served);
        match (schema(version), theirs.and_then(schema)) {
            (Some(ours), Some(theirs)) => compare("", ours, theirs, &mut found),
            (Some(_), None) => found.push(format!("version {}", version.name)),
            (None, _) => {}
        }
    }
    found
}

fn schema(version: &CustomResourceDefinitionVersion) -> Option<&JSONSchemaProps> {
    version.schema.as_ref()?.open_api_v3_schema.as_ref()
}

fn compare(path: &str, ours: &JSONSchemaProps, theirs: &JSONSchemaProps, found: &mut Vec<String>) {
    if theirs.x_kubernetes_preserve_unknown_fields == Some(true) {
        return;
    }
    for (name, ours) in ours.properties.iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match theirs.properties.as_ref().and_then(|fields| fields.get(name)) {
            Some(theirs) => compare(&path, ours, theirs, found),
            None if theirs.additional_properties.is_some() => {}
            None => found.push(path),
        }
    }
    if let (Some(JSONSchemaPropsOrArray::Schema(ours)), Some(JSONSchemaPropsOrArray::Schema(theirs))) =
        (&ours.items, &theirs.items)
    {
        compare(&format!("{path}[]"), ours, theirs, found);
    }
    if let (Some(JSONSchemaPropsOrBool::Schema(ours)), Some(JSONSchemaPropsOrBool::Schema(theirs))) =
        (&ours.additional_properties, &theirs.additional_properties)
    {
        compare(&format!("{path}[*]"), ours, theirs, found);
    }
    if let Some(theirs) = &theirs.enum_ {
        let unknown = ours.enum_.iter().flatten().filter(|value| !theirs.contains(value));
        found.extend(unknown.map(|JSON(value)| format!("{path}: {value}")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::crd_of;

    const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

    fn ours() -> CustomResourceDefinition {
        crd_of("ApiKey").unwrap()
    }

    /// What is missing of ours where it is installed with a change.
    fn missing_after(change: impl Fn(&mut Value)) -> Vec<String> {
        let mut installed = serde_json::to_value(ours()).unwrap();
        change(&mut installed);
        missing(&ours(), &serde_json::from_value(installed).unwrap())
    }

    fn at<'a>(crd: &'a mut Value, path: &str) -> &'a mut Value {
        crd.pointer_mut(&format!("{SCHEMA}{path}")).unwrap()
    }

    #[test]
    fn nothing_is_missing_of_what_is_the_same_or_newer() {
        for crd in crds() {
            let installed = serde_json::from_value(serde_json::to_value(&crd).unwrap()).unwrap();
            assert!(missing(&crd, &installed).is_empty(), "{}", crd.name_any());
        }
        let newer = |crd: &mut Value| {
            at(crd, "/properties/status/properties")["sinceThen"] = json!({"type": "string"});
            // As API servers write it.
            crd["spec"]["conversion"] = json!({"strategy": "None"});
        };
        assert!(missing_after(newer).is_empty());
    }

    #[test]
    fn fields_that_are_missing_are_named() {
        let older = |crd: &mut Value| {
            let status = at(crd, "/properties/status/properties");
            status.as_object_mut().unwrap().remove("observedGeneration");
            let version = status.pointer_mut("/versions/items/properties").unwrap();
            version.as_object_mut().unwrap().remove("state");
        };
        assert_eq!(missing_after(older), ["status.observedGeneration", "status.versions[].state"]);
        // Of what is missing itself, nothing else is.
        let oldest = |crd: &mut Value| drop(at(crd, "/properties").as_object_mut().unwrap().remove("status"));
        assert_eq!(missing_after(oldest), ["status"]);
    }

    #[test]
    fn values_that_are_missing_are_named() {
        let older = |crd: &mut Value| {
            let values = at(crd, "/properties/status/properties/versions/items/properties/state/enum");
            values.as_array_mut().unwrap().retain(|value| value != "Deprecated");
        };
        assert_eq!(missing_after(older), ["status.versions[].state: \"Deprecated\""]);
    }

    #[test]
    fn a_version_that_is_not_served_has_nothing() {
        assert_eq!(missing_after(|crd| crd["spec"]["versions"][0]["served"] = json!(false)), ["version v1alpha1"]);
    }

    #[test]
    fn what_takes_anything_lacks_nothing() {
        let any = |crd: &mut Value| {
            *at(crd, "/properties/status") = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        };
        assert!(missing_after(any).is_empty());
    }
}
