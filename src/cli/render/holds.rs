//! Legal holds among files.

use serde_json::{Value, json};

use crate::{
    GROUP,
    api::{ClusterLegalHold, LegalHold},
    cli::source::group_kind,
    retention::Hold,
};

/// The hold that an object is; `None` where it is something else.
pub(super) fn of(object: &Value, namespace: &str) -> Option<Result<Hold, String>> {
    let read = |error: serde_json::Error| error.to_string();
    let hold = match group_kind(object) {
        (GROUP, "LegalHold") => {
            let mut object = object.clone();
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.entry("namespace").or_insert_with(|| json!(namespace));
            }
            let hold = serde_json::from_value::<LegalHold>(object).map_err(read);
            hold.and_then(|it| Hold::try_from(&it).map_err(|invalid| invalid.to_string()))
        }
        (GROUP, "ClusterLegalHold") => {
            let hold = serde_json::from_value::<ClusterLegalHold>(object.clone()).map_err(read);
            hold.and_then(|it| Hold::try_from(&it).map_err(|invalid| invalid.to_string()))
        }
        _ => return None,
    };
    Some(hold)
}
