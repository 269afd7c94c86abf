//! Events: few and stable reasons, about the resource that people look at.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::error::CALL_DEADLINE;

/// Publishes events; losing one never fails what it is about.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

/// What happened, as a stable name, and whether it is worth a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Its name.
    pub name: &'static str,
    /// Whether it is worth a look.
    pub warning: bool,
}

impl Reason {
    /// As it should be.
    #[must_use]
    pub const fn normal(name: &'static str) -> Self {
        Self { name, warning: false }
    }

    /// Worth a look.
    #[must_use]
    pub const fn warning(name: &'static str) -> Self {
        Self { name, warning: true }
    }
}

/// The API server refuses longer notes.
const MAX_NOTE: usize = 1024;

impl Events {
    /// Events of one controller.
    #[must_use]
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter { controller: "rampart".into(), instance: Some(instance.into()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Publishes an event about `root`.
    pub async fn publish<K: Resource<DynamicType = ()>>(&self, root: &K, reason: Reason, note: &str) {
        self.publish_about(&root.object_ref(&()), reason, note).await;
    }

    /// Publishes an event about what `regarding` names.
    pub async fn publish_about(&self, regarding: &ObjectReference, reason: Reason, note: &str) {
        let end = (0..=MAX_NOTE.min(note.len())).rev().find(|end| note.is_char_boundary(*end)).unwrap_or_default();
        let event = Event {
            type_: if reason.warning { EventType::Warning } else { EventType::Normal },
            reason: reason.name.into(),
            note: note.get(..end).map(Into::into),
            action: reason.name.into(),
            secondary: None,
        };
        let published = tokio::time::timeout(CALL_DEADLINE, self.recorder.publish(&event, regarding)).await;
        if !matches!(published, Ok(Ok(()))) {
            tracing::warn!(reason = reason.name, regarding = regarding.name, "an event was not recorded");
        }
    }
}
