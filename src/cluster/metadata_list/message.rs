//! Metadata in protobuf, as `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto` numbers it: what somebody asks for,
//! without the managers of fields, which are most of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListMeta {
    #[prost(string, tag = "2")]
    pub(super) resource_version: String,
    #[prost(string, tag = "3")]
    pub(super) r#continue: String,
}

/// Any object; its other fields are passed over.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Object {
    #[prost(message, optional, tag = "1")]
    pub(super) metadata: Option<ObjectMeta>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ObjectMeta {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
    #[prost(string, tag = "5")]
    pub(super) uid: String,
    #[prost(string, tag = "6")]
    pub(super) resource_version: String,
    #[prost(message, optional, tag = "8")]
    pub(super) creation_timestamp: Option<Time>,
    #[prost(message, optional, tag = "9")]
    pub(super) deletion_timestamp: Option<Time>,
    #[prost(btree_map = "string, string", tag = "11")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    pub(super) annotations: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "13")]
    pub(super) owner_references: Vec<OwnerReference>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OwnerReference {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) uid: String,
    #[prost(string, tag = "5")]
    pub(super) api_version: String,
    #[prost(bool, optional, tag = "6")]
    pub(super) controller: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub(super) block_owner_deletion: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Time {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

impl From<ListMeta> for meta::ListMeta {
    fn from(list: ListMeta) -> Self {
        Self { resource_version: said(list.resource_version), continue_: said(list.r#continue), ..Self::default() }
    }
}

impl From<Object> for meta::ObjectMeta {
    fn from(object: Object) -> Self {
        let metadata = object.metadata.unwrap_or_default();
        let owners: Vec<_> = metadata.owner_references.into_iter().map(Into::into).collect();
        Self {
            name: said(metadata.name),
            namespace: said(metadata.namespace),
            uid: said(metadata.uid),
            resource_version: said(metadata.resource_version),
            creation_timestamp: metadata.creation_timestamp.and_then(time),
            deletion_timestamp: metadata.deletion_timestamp.and_then(time),
            labels: Some(metadata.labels).filter(|labels| !labels.is_empty()),
            annotations: Some(metadata.annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(owners).filter(|owners| !owners.is_empty()),
            ..Self::default()
        }
    }
}

impl From<OwnerReference> for meta::OwnerReference {
    fn from(owner: OwnerReference) -> Self {
        Self {
            api_version: owner.api_version,
            kind: owner.kind,
            name: owner.name,
            uid: owner.uid,
            controller: owner.controller,
            block_owner_deletion: owner.block_owner_deletion,
        }
    }
}

/// Go writes the texts that are not there, too.
fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// And the times, as the epoch.
fn time(time: Time) -> Option<meta::Time> {
    let is_set = (time.seconds, time.nanos) != (0, 0);
    Timestamp::new(time.seconds, time.nanos).ok().filter(|_| is_set).map(meta::Time)
}
