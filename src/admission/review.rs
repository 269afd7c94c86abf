//! The wire form of an AdmissionReview (`admission.k8s.io/v1`), borrowed: only what is needed is read,
//! and objects stay text until somebody asks for them.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

/// A review as the API server sends it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Review<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    request: Option<Request<'a>>,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// Identifies the review; the answer repeats it.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// Kind of the object.
    #[serde(borrow)]
    pub kind: Kind<'a>,
    /// Subresource, if any.
    #[serde(borrow, default)]
    pub sub_resource: Option<Cow<'a, str>>,
    /// Name; empty while the API server still has to make one up.
    #[serde(borrow, default)]
    pub name: Option<Cow<'a, str>>,
    /// Namespace.
    #[serde(borrow, default)]
    pub namespace: Option<Cow<'a, str>>,
    /// What is done.
    pub operation: Operation,
    /// The object as it would be.
    #[serde(borrow, default)]
    pub object: Option<&'a RawValue>,
    /// The object as it is.
    #[serde(borrow, default)]
    pub old_object: Option<&'a RawValue>,
}

/// Group and kind of an object.
#[derive(Debug, Deserialize)]
pub struct Kind<'a> {
    /// API group, empty for core.
    #[serde(borrow, default)]
    pub group: Cow<'a, str>,
    /// Kind.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
}

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// It is created.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
    /// Somebody connects to it.
    Connect,
}

/// Why a body is not a review.
#[derive(Debug, Error)]
pub enum BadReview {
    /// Nothing was sent.
    #[error("the body is empty: send an AdmissionReview of admission.k8s.io/v1")]
    Empty,
    /// It is not JSON, or lacks what a review has.
    #[error("the body is not an AdmissionReview: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It is something else.
    #[error("the body is {found}, and must be admission.k8s.io/v1 AdmissionReview")]
    WrongKind {
        /// What it says it is.
        found: String,
    },
    /// It asks nothing.
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

impl<'a> Review<'a> {
    /// Reads a request from a body.
    ///
    /// # Errors
    /// When the body is not an AdmissionReview with a request.
    pub fn parse(body: &'a [u8]) -> Result<Request<'a>, BadReview> {
        if body.is_empty() {
            return Err(BadReview::Empty);
        }
        let review: Review<'a> = serde_json::from_slice(body)?;
        if review.api_version != "admission.k8s.io/v1" || review.kind != "AdmissionReview" {
            let found = format!("{:?} {:?}", review.api_version, review.kind);
            return Err(BadReview::WrongKind { found });
        }
        review.request.ok_or(BadReview::NoRequest)
    }
}

/// What is answered. The default refuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    uid: String,
    /// Whether the request is admitted.
    pub allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// What the client is told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What the audit log is told; the API server puts the webhook's name before each key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audit_annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// HTTP status code for the client.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Answer {
    /// Admits.
    #[must_use]
    pub fn allow() -> Self {
        Self { allowed: true, ..Self::default() }
    }

    /// Refuses.
    #[must_use]
    pub fn deny(code: u16, reason: &'static str, message: String) -> Self {
        Self { status: Some(Status { code, reason, message }), ..Self::default() }
    }

    /// Changes the object.
    pub(super) fn patch(&mut self, patch: &json_patch::Patch) {
        // Texts, numbers and objects of the same: nothing that can't be written.
        self.patch = serde_json::to_vec(patch).ok().map(ByteString);
        self.patch_type = self.patch.is_some().then_some("JSONPatch");
    }

    /// Adds a warning.
    #[must_use]
    pub fn with_warning(mut self, warning: String) -> Self {
        self.warnings.push(warning);
        self
    }

    /// The body that answers the review of this uid.
    ///
    /// # Errors
    /// When it can't be serialised, which does not happen for these types.
    pub fn to_body(mut self, uid: &str) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            api_version: &'static str,
            kind: &'static str,
            response: Answer,
        }
        self.uid = uid.into();
        serde_json::to_vec(&Body { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response: self })
    }
}
