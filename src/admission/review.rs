//! The wire form of an AdmissionReview (`admission.k8s.io/v1`), borrowed: only what is needed is read,
//! and objects stay text until somebody asks for them.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::ByteString;
use rampart_pss::Pod;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;
use thiserror::Error;

const VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

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
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    /// The object as it is.
    #[serde(borrow, default)]
    pub old_object: Option<&'a RawValue>,
    /// A new pod that was read together with the review, and the body of both.
    #[serde(skip)]
    pub(super) new_pod: Option<(Pod<'a>, &'a [u8])>,
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
        // As text: looking for what is no UTF-8 once costs less than in each string.
        if let Ok(text) = std::str::from_utf8(body)
            && let Ok(review) = serde_json::from_str::<NewPodReview<'a>>(text)
            && let Some(request) = review.request(body)
        {
            return Ok(request);
        }
        Self::parse_any(body)
    }

    fn parse_any(body: &'a [u8]) -> Result<Request<'a>, BadReview> {
        let review: Review<'a> = serde_json::from_slice(body)?;
        if review.api_version != VERSION || review.kind != KIND {
            let found = format!("{:?} {:?}", review.api_version, review.kind);
            return Err(BadReview::WrongKind { found });
        }
        review.request.ok_or(BadReview::NoRequest)
    }
}

impl<'a> Request<'a> {
    /// The object as it would be. That of a new pod is looked for in the body only now.
    #[must_use]
    pub fn object(&self) -> Option<&'a RawValue> {
        match &self.new_pod {
            Some((_, body)) => Review::parse_any(body).ok()?.object,
            None => self.object,
        }
    }
}

/// The review of a new pod, which is what is asked most: one pass reads it with the pod, where taking the
/// object as text and reading that takes two. Any other fails at its kind or operation, which the API server
/// writes before the object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewPodReview<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: NewPod<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewPod<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "pod_kind")]
    kind: Kind<'a>,
    #[serde(borrow, default)]
    sub_resource: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    namespace: Option<Cow<'a, str>>,
    #[serde(deserialize_with = "creation")]
    operation: Operation,
    #[serde(borrow)]
    object: Pod<'a>,
    #[serde(borrow, default)]
    old_object: Option<&'a RawValue>,
}

fn pod_kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind<'de>, D::Error> {
    let kind = Kind::deserialize(deserializer)?;
    if (&*kind.group, &*kind.kind) == ("", "Pod") { Ok(kind) } else { Err(D::Error::custom("no pod")) }
}

fn creation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Operation, D::Error> {
    let operation = Operation::deserialize(deserializer)?;
    if operation == Operation::Create { Ok(operation) } else { Err(D::Error::custom("no creation")) }
}

impl<'a> NewPodReview<'a> {
    /// The request, unless the rest of it is not as it should be: then the other way to read it says so.
    fn request(self, body: &'a [u8]) -> Option<Request<'a>> {
        let NewPod { uid, kind, sub_resource, name, namespace, operation, object, old_object } = self.request;
        let is_one = self.api_version == VERSION && self.kind == KIND && sub_resource.is_none();
        let new_pod = Some((object, body));
        let request =
            Request { uid, kind, sub_resource, name, namespace, operation, object: None, old_object, new_pod };
        is_one.then_some(request)
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
        serde_json::to_vec(&Body { api_version: VERSION, kind: KIND, response: self })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const POD: &str =
        r#"{"metadata":{"name":"a"},"spec":{"containers":[{"name":"a","securityContext":{"privileged":true}}]}}"#;

    fn review(kind: &str, rest: &str) -> String {
        format!(
            r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","kind":{{"group":"","version":"v1","kind":"{kind}"}},"namespace":"n",{rest}}}}}"#
        )
    }

    #[rstest]
    #[case::new_pod("Pod", r#""operation":"CREATE","object":POD,"oldObject":null"#, true)]
    #[case::object_first("Pod", r#""object":POD,"operation":"CREATE""#, true)]
    #[case::update("Pod", r#""operation":"UPDATE","object":POD,"oldObject":POD"#, false)]
    #[case::subresource("Pod", r#""subResource":"binding","operation":"CREATE","object":POD"#, false)]
    #[case::template("Deployment", r#""operation":"CREATE","object":POD"#, false)]
    fn a_new_pod_is_read_at_once_and_its_text_is_the_same(#[case] kind: &str, #[case] rest: &str, #[case] new: bool) {
        let body = review(kind, &rest.replace("POD", POD));
        let request = Review::parse(body.as_bytes()).unwrap();
        assert_eq!(request.new_pod.is_some(), new);
        assert_eq!((&*request.uid, request.namespace.as_deref()), ("u", Some("n")));
        assert_eq!(request.object().unwrap().get(), POD);
    }

    #[rstest]
    #[case::no_object(r#""operation":"CREATE","object":null"#)]
    #[case::no_pod(r#""operation":"CREATE","object":{"spec":{"containers":7}}"#)]
    fn what_is_no_pod_is_told_by_its_text(#[case] rest: &str) {
        let body = review("Pod", rest);
        assert!(Review::parse(body.as_bytes()).unwrap().new_pod.is_none());
    }

    #[test]
    fn another_version_and_what_follows_a_review_are_refused() {
        let body = review("Pod", &format!(r#""operation":"CREATE","object":{POD}"#));
        let other = body.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
        assert!(matches!(Review::parse(other.as_bytes()), Err(BadReview::WrongKind { .. })));
        assert!(matches!(Review::parse(format!("{body}}}").as_bytes()), Err(BadReview::Unreadable(_))));
    }
}
