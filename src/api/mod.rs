//! The custom resources of `rampart.dev/v1alpha1`: wire types, CEL rules, printer columns; a file a kind.
//!
//! Doc comments here are the manual that `kubectl explain` prints.

mod api_key;
mod cluster_security_policy;
pub mod condition;
pub mod cron;
mod data_class;
pub mod dns;
mod duration;
mod hardening;
mod invalid;
mod key_caps;
mod key_life;
#[allow(clippy::duplicated_attributes, reason = "columns repeat their types")]
mod key_record;
mod key_source;
pub mod labels;
#[allow(clippy::duplicated_attributes, reason = "columns repeat their types")]
mod legal_hold;
mod network;
mod network_status;
#[allow(clippy::duplicated_attributes, reason = "columns repeat their types")]
mod policy_exception;
mod retention_policy;
#[allow(clippy::duplicated_attributes, reason = "columns repeat their types")]
mod retention_report;
mod retention_status;
pub mod rules;
mod second;
mod security_policy;
pub mod selector;
#[allow(clippy::duplicated_attributes, reason = "columns repeat their types")]
mod verifier_report;

use std::borrow::Cow;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::{CustomResourceExt, Resource};
use serde_json::json;

pub use api_key::{
    ApiKey, ApiKeySpec, ApiKeyStatus, ConsumerSecret, ConsumerStatus, Counted, DeletionPolicy, Owner, SecretKeys,
    Usage, VerifierCounts, VersionState, VersionStatus,
};
pub use cluster_security_policy::{
    ClusterSecurityPolicy, ClusterSecurityPolicySpec, ClusterSecurityPolicyStatus, Exceptions, SystemNamespace,
};
pub use data_class::DataClass;
pub use duration::GoDuration;
pub use hardening::{
    AdmissionPolicy, Enforcer, Fix, Hardening, HardeningMode, HardeningStatus, Level, PodCounts, PodSecurity, Sample,
};
pub use invalid::Invalid;
pub use key_caps::{KeyCaps, KeyRole, MaxRate};
pub use key_life::{
    Hook, Hooks, RateLimit, RateShare, RestartKind, RestartTarget, RetireWhen, Revocation, Rotation, RotationPolicy,
    RotationWindow,
};
pub use key_record::{ApiKeyRef, KeyRecord, KeyRecordSpec, Limits, RecordState, Verb};
pub use key_source::{Generated, Imported, KeySource, TokenRef};
pub use legal_hold::{
    ClusterLegalHold, ClusterLegalHoldSpec, HeldResource, HoldState, HoldTerms, LegalHold, LegalHoldSpec,
    LegalHoldStatus,
};
pub use network::{
    Accepted, ClusterNetwork, Direction, Entity, External, Network, NetworkMode, NetworkRule, Peer, Pods, Port,
    Protocol, Reciprocal, ServicePeer,
};
pub use network_status::{
    ClusterNetworkStatus, Finding, Isolated, MOST_FINDINGS, MOST_NAMED, MOST_RENDERED, NetworkFlow, NetworkPreview,
    NetworkStatus,
};
pub use policy_exception::{
    ExceptionState, PolicyException, PolicyExceptionSpec, PolicyExceptionStatus, PolicyKind, PolicyReference,
};
pub use retention_policy::{
    AgeFrom, AnnotationSays, Evidence, LegalBasis, Processing, Propagation, ResourceTarget, RetentionMode,
    RetentionPolicy, RetentionPolicySpec, Safety, Target,
};
pub use retention_report::{
    Approval, ApprovedItem, ApprovedPlan, BreakerRecord, ItemResult, KeptRecord, MOST_ITEMS, Outcome, PreviousRun,
    RecordAct, RecordCounts, RecordDecision, RecordItem, ReportPolicy, ReportType, RetentionRecord, RetentionReport,
    RetentionReportSpec, RetentionReportStatus, RolledRun,
};
pub use retention_status::{PlanStatus, PlannedObject, RetentionPolicyStatus, RunStatus};
pub use rules::Rules;
pub use second::whole_second;
pub use security_policy::{SecurityPolicy, SecurityPolicySpec, SecurityPolicyStatus};
pub use verifier_report::{AddressBlock, KeyUse, VerifierReport, VerifierReportSpec};

/// A kind of ours.
struct Kind {
    name: fn(&()) -> Cow<'_, str>,
    definition: fn() -> CustomResourceDefinition,
}

impl Kind {
    const fn of<K: Resource<DynamicType = ()> + CustomResourceExt>() -> Self {
        Self { name: K::kind, definition: K::crd }
    }

    /// Its definition, which takes milliseconds to make.
    fn definition(&self) -> CustomResourceDefinition {
        let mut crd = (self.definition)();
        if let Some(status) = status_of(&mut crd).filter(|status| holds_conditions(status)) {
            status.default = Some(JSON(unvisited()));
        }
        crd
    }
}

const KINDS: [Kind; 10] = [
    Kind::of::<SecurityPolicy>(),
    Kind::of::<ClusterSecurityPolicy>(),
    Kind::of::<PolicyException>(),
    Kind::of::<ApiKey>(),
    Kind::of::<KeyRecord>(),
    Kind::of::<VerifierReport>(),
    Kind::of::<RetentionPolicy>(),
    Kind::of::<RetentionReport>(),
    Kind::of::<LegalHold>(),
    Kind::of::<ClusterLegalHold>(),
];

/// Every custom resource definition, in the order in which they are written to `crds/`.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    KINDS.iter().map(Kind::definition).collect()
}

/// The definition of a kind, if it is one of ours.
#[must_use]
pub fn crd_of(kind: &str) -> Option<CustomResourceDefinition> {
    KINDS.iter().find(|it| (it.name)(&()) == kind).map(Kind::definition)
}

/// Whether objects of a kind tell of themselves in conditions.
#[must_use]
pub fn has_conditions(crd: &CustomResourceDefinition) -> bool {
    status_of(&mut crd.clone()).is_some_and(|status| holds_conditions(status))
}

fn holds_conditions(status: &JSONSchemaProps) -> bool {
    status.properties.as_ref().is_some_and(|fields| fields.contains_key("conditions"))
}

fn status_of(crd: &mut CustomResourceDefinition) -> Option<&mut JSONSchemaProps> {
    let schema = crd.spec.versions.first_mut()?.schema.as_mut()?.open_api_v3_schema.as_mut()?;
    schema.properties.as_mut()?.get_mut("status")
}

/// The status of an object before the controller's first visit: without it kstatus, and so Flux, would take what was
/// just made for done. As Gateway API has it.
fn unvisited() -> serde_json::Value {
    json!({"conditions": [{
        "type": condition::Type::Ready.as_str(), "status": "Unknown", "reason": "Pending",
        "message": "Waiting for Rampart", "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_made_is_not_taken_for_done() {
        let mut told = vec![];
        for mut crd in crds().into_iter().filter(has_conditions) {
            let default = status_of(&mut crd).and_then(|status| status.default.clone());
            assert_eq!(default, Some(JSON(unvisited())), "{}", crd.spec.names.kind);
            told.push(crd.spec.names.kind);
        }
        let wanted = [
            "SecurityPolicy",
            "ClusterSecurityPolicy",
            "PolicyException",
            "ApiKey",
            "RetentionPolicy",
            "LegalHold",
            "ClusterLegalHold",
        ];
        assert_eq!(told, wanted);
    }
}
