//! What owns pods. Owner references are for their authors to choose: only what can be is heard.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::api::dns::is_subdomain;

/// Kinds of the cluster's own that make pods. Pods of any other are shown one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControllerKind {
    /// Of apps/v1.
    ReplicaSet,
    /// Of apps/v1.
    StatefulSet,
    /// Of apps/v1.
    DaemonSet,
    /// Of batch/v1.
    Job,
    /// Of v1.
    ReplicationController,
}

/// What a pod says that controls it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Controller {
    /// Namespace of the pod.
    pub namespace: String,
    /// Its kind.
    pub kind: ControllerKind,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// A workload that owns pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Its group and version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// The workloads of controllers; `None` for a controller that is not there, whatever a pod says.
pub type Owners = BTreeMap<Controller, Option<Workload>>;

impl Controller {
    /// `None` where no such thing can be.
    #[must_use]
    pub fn of(namespace: &str, owner: &OwnerReference) -> Option<Self> {
        let kind = match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("apps/v1", "ReplicaSet") => ControllerKind::ReplicaSet,
            ("apps/v1", "StatefulSet") => ControllerKind::StatefulSet,
            ("apps/v1", "DaemonSet") => ControllerKind::DaemonSet,
            ("batch/v1", "Job") => ControllerKind::Job,
            ("v1", "ReplicationController") => ControllerKind::ReplicationController,
            _ => return None,
        };
        let (name, uid) = (owner.name.clone(), owner.uid.clone());
        is_subdomain(&name).then(|| Self { namespace: namespace.into(), kind, name, uid })
    }
}

impl Workload {
    /// What stands above a controller.
    #[must_use]
    pub fn above(owner: &OwnerReference) -> Option<Self> {
        let known = matches!(
            (owner.api_version.as_str(), owner.kind.as_str()),
            ("apps/v1", "Deployment") | ("batch/v1", "CronJob")
        );
        let OwnerReference { api_version, kind, name, uid, .. } = owner.clone();
        (known && is_subdomain(&owner.name)).then_some(Self { api_version, kind, name, uid })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("apps/v1", "ReplicaSet", "web-1.a", true)]
    #[case("batch/v1", "Job", "a", true)]
    #[case("x/v1", "Job", "a", false)]
    #[case("batch/v1", "Job", "?watch=1", false)]
    #[case("batch/v1", "Job", "../secrets", false)]
    #[case("batch/v1", "Job", "a b", false)]
    #[case("batch/v1", "Job", "", false)]
    #[case("batch/v1", "Job", "a..b", false)]
    fn what_no_controller_can_be_is_not_asked_for(
        #[case] api_version: &str,
        #[case] kind: &str,
        #[case] name: &str,
        #[case] wanted: bool,
    ) {
        let (api_version, kind, name) = (api_version.into(), kind.into(), name.into());
        let owner = OwnerReference { api_version, kind, name, uid: "u".into(), ..OwnerReference::default() };
        assert_eq!(Controller::of("n", &owner).is_some(), wanted);
    }

    #[test]
    fn only_known_kinds_stand_above_a_controller() {
        let owner = |kind: &str| OwnerReference {
            api_version: "apps/v1".into(),
            kind: kind.into(),
            name: "web".into(),
            ..OwnerReference::default()
        };
        assert!(Workload::above(&owner("Deployment")).is_some());
        assert!(Workload::above(&owner(&"x".repeat(1000))).is_none());
    }
}
