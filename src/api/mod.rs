//! The custom resources of `rampart.dev/v1alpha1`: wire types, CEL rules, printer columns; a file a kind.
//!
//! Doc comments here are the manual that `kubectl explain` prints.

mod api_key;
mod cluster_security_policy;
pub mod condition;
pub mod cron;
mod data_class;
mod duration;
mod hardening;
mod invalid;
mod key_caps;
mod key_life;
#[allow(clippy::duplicated_attributes, reason = "columns repeat their types")]
mod key_record;
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
pub mod rules;
mod security_policy;
pub mod selector;
#[allow(clippy::duplicated_attributes, reason = "columns repeat their types")]
mod verifier_report;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

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
pub use legal_hold::{
    ClusterLegalHold, ClusterLegalHoldSpec, HeldResource, HoldState, HoldTerms, LegalHold, LegalHoldSpec,
    LegalHoldStatus,
};
pub use network::{
    Accepted, ClusterNetwork, Direction, Entity, External, Network, NetworkMode, NetworkRule, Peer, Pods, Port,
    Protocol, Reciprocal, ServicePeer,
};
pub use network_status::{ClusterNetworkStatus, Finding, Isolated, NetworkFlow, NetworkPreview, NetworkStatus};
pub use policy_exception::{
    ExceptionState, PolicyException, PolicyExceptionSpec, PolicyExceptionStatus, PolicyKind, PolicyReference,
};
pub use retention_policy::{
    AgeFrom, AnnotationSays, Evidence, LegalBasis, PlanStatus, PlannedObject, Processing, Propagation, ResourceTarget,
    RetentionMode, RetentionPolicy, RetentionPolicySpec, RetentionPolicyStatus, RunStatus, Safety, Target,
};
pub use retention_report::{
    Approval, ApprovedItem, ApprovedPlan, BreakerRecord, ItemResult, KeptRecord, MOST_ITEMS, Outcome, PreviousRun,
    RecordCounts, RecordDecision, RecordItem, ReportPolicy, ReportType, RetentionRecord, RetentionReport,
    RetentionReportSpec, RetentionReportStatus, RolledRun,
};
pub use rules::Rules;
pub use security_policy::{SecurityPolicy, SecurityPolicySpec, SecurityPolicyStatus};
pub use verifier_report::{AddressBlock, KeyUse, VerifierReport, VerifierReportSpec};

/// Every custom resource definition, in the order in which they are written to `crds/`.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        SecurityPolicy::crd(),
        ClusterSecurityPolicy::crd(),
        PolicyException::crd(),
        ApiKey::crd(),
        KeyRecord::crd(),
        VerifierReport::crd(),
        RetentionPolicy::crd(),
        RetentionReport::crd(),
        LegalHold::crd(),
        ClusterLegalHold::crd(),
    ]
}
