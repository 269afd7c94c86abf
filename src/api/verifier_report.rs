//! `VerifierReport`: what one verifier tells the operator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A VerifierReport is internal: each verifier keeps one of its own in the namespace `rampart-keys`, named after its
/// pod, and writes nothing else. By it the operator knows which keys are admitted by all verifiers, and when a key was
/// used last.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rampart.dev",
    version = "v1alpha1",
    kind = "VerifierReport",
    namespaced,
    plural = "verifierreports",
    doc = "A VerifierReport is internal: what one verifier tells the operator about the records that it serves, and about the use of keys.",
    derive = "PartialEq",
    printcolumn(name = "Keys", type_ = "integer", json_path = ".spec.keys"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".spec.revision"),
    printcolumn(name = "Renewed", type_ = "date", json_path = ".spec.renewedAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct VerifierReportSpec {
    /// resourceVersion of KeyRecords up to which every change is in force at this verifier. Decimal, and comparable
    /// (KEP-5504).
    #[schemars(length(max = 64))]
    pub revision: String,
    /// Whether the process has ended: nobody waits for it any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// When this process started: its counts begin there.
    pub started_at: Time,
    /// When this report was written last.
    pub renewed_at: Time,
    /// Keys that it admits.
    pub keys: i64,
    /// Keys that were used lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5000))]
    pub usage: Vec<KeyUse>,
    /// Addresses that are blocked because of failed authentication.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub blocks: Vec<AddressBlock>,
}

/// How much a key was used.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KeyUse {
    /// Public id of the key.
    #[schemars(length(max = 63))]
    pub id: String,
    /// Calls that it admitted since the process started.
    pub count: i64,
    /// When it was used last.
    pub last_used: Time,
}

/// An address that is blocked.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AddressBlock {
    /// IPv4 address, or IPv6 network of 64 bits.
    #[schemars(length(max = 64))]
    pub address: String,
    /// When the block ends.
    pub until: Time,
}
