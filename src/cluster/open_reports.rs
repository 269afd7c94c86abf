//! Reports of OpenReports (`openreports.io`): found by their label, written whole, and removed.
//!
//! A Report is ours as a whole. So it is created, which overwrites nobody's, and replaced over what was seen: apply would
//! leave what others added to it, and can't say that nothing may be there.

use std::hash::{BuildHasher as _, RandomState};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions},
    core::GroupVersionKind,
};
use serde_json::Value;

use super::{
    Error, Result,
    error::{call, found},
    follow::Key,
    metadata_list,
};
use crate::{
    api::labels::{MANAGED_BY, MANAGER, OWNER_KIND, OWNER_UID},
    hardening::{OpenReport, Workload},
};

/// The custom resource definition of Reports; it is others' to install.
pub const CRD: &str = "reports.openreports.io";
const FIELD_MANAGER: &str = "rampart-open-reports";

/// The kind.
#[must_use]
pub fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("openreports.io", "v1alpha1", "Report");
    ApiResource::from_gvk_with_plural(&kind, "reports")
}

/// Selects those that Rampart wrote.
#[must_use]
pub fn ours() -> String {
    format!("{MANAGED_BY}={MANAGER}")
}

/// A Report as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    uid: Option<String>,
    version: Option<String>,
    /// Of its content.
    pub digest: u64,
    /// Whether it refers to the workload that it is of. Who deletes a workload and spares its pods takes that away
    /// (`--cascade=orphan`).
    pub is_owned: bool,
    /// Whether it is of a CronJob.
    pub of_cron_job: bool,
}

/// What contents are compared by, so that they need not be kept. Of this process alone.
#[derive(Debug, Clone, Default)]
pub struct Digests(RandomState);

impl Digests {
    /// The digest of a content.
    #[must_use]
    pub fn of(&self, content: &Value) -> u64 {
        self.0.hash_one(content)
    }

    /// What is kept of a Report that was read.
    #[must_use]
    pub fn seen(&self, report: &DynamicObject) -> Seen {
        let workload = OpenReport::uid_in(report.metadata.name.as_deref().unwrap_or_default());
        Seen {
            uid: report.uid(),
            version: report.resource_version(),
            digest: self.of(&report.data),
            is_owned: report.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == workload),
            of_cron_job: report.labels().get(OWNER_KIND).is_some_and(|kind| kind == "CronJob"),
        }
    }
}

/// Writes a Report: anew, or over the very one that was seen. Returns the content that the API server keeps.
///
/// # Errors
/// When the name is taken by a Report that is not ours, somebody changed it meanwhile, or the call fails.
pub async fn write(client: &Client, report: &OpenReport, seen: Option<&Seen>) -> Result<Value> {
    let (name, wanted) = (report.name(), object(report, seen));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &report.namespace, &resource());
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let doing = || format!("writing Report {}/{name}", report.namespace);
    let written = match seen {
        Some(_) => call(doing, api.replace(&name, &params, &wanted)).await,
        None => match call(doing, api.create(&params, &wanted)).await {
            Err(error) if error.code() == Some(409) => Err(Error::Foreign { kind: "Report", name }),
            other => other,
        },
    };
    Ok(written?.data)
}

fn object(report: &OpenReport, seen: Option<&Seen>) -> DynamicObject {
    let Workload { api_version, kind, name, uid } = report.workload.clone();
    let labels = [(MANAGED_BY, MANAGER), (OWNER_KIND, &kind), (OWNER_UID, &uid)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut object = DynamicObject::new(&report.name(), &resource()).data(report.content.clone());
    object.metadata = ObjectMeta {
        namespace: Some(report.namespace.clone()),
        labels: Some(labels.into()),
        uid: seen.and_then(|seen| seen.uid.clone()),
        resource_version: seen.and_then(|seen| seen.version.clone()),
        // It says nothing of what is no more.
        owner_references: Some(vec![OwnerReference { api_version, kind, name, uid, ..OwnerReference::default() }]),
        ..object.metadata
    };
    object
}

/// Removes the very Report that was seen. One that is gone already is fine.
///
/// # Errors
/// When somebody changed it meanwhile, or the call fails.
pub async fn remove(client: &Client, key: &Key, seen: &Seen) -> Result<()> {
    let Seen { uid, version, .. } = seen.clone();
    remove_if(client, key, Preconditions { uid, resource_version: version }).await
}

/// Removes all of ours; how many there were.
///
/// # Errors
/// When a call fails: 404 where the API server has no such kind.
pub async fn remove_all(client: &Client) -> Result<usize> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource());
    let mut reports = vec![];
    metadata_list::each(&api, ListParams::default().labels(&ours()), "Reports", |report| reports.push(report)).await?;
    for report in &reports {
        let key = (report.namespace.clone().unwrap_or_default(), report.name.clone().unwrap_or_default());
        let seen = Preconditions { uid: report.uid.clone(), resource_version: report.resource_version.clone() };
        remove_if(client, &key, seen).await?;
    }
    Ok(reports.len())
}

async fn remove_if(client: &Client, (namespace, name): &Key, seen: Preconditions) -> Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource());
    let params = DeleteParams { preconditions: Some(seen), ..DeleteParams::default() };
    found(call(|| format!("removing Report {namespace}/{name}"), api.delete(name, &params)).await).map(drop)
}
