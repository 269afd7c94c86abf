//! NetworkPolicies whose owner is gone.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _};

use super::{Networks, index::Live};
use crate::{
    api::{ClusterSecurityPolicy, SecurityPolicy},
    cluster::{Result, apply::delete_seen, owner::is_managed, prune::is_orphan},
    controllers::{
        Roots,
        pruning::{Lost, Orphanage},
    },
};

/// A kind of policy that NetworkPolicies are made for.
pub(in super::super) trait Owning:
    Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static
{
    /// Its name.
    const KIND: &'static str;
    /// Name of its CRD.
    const CRD: &'static str;
}

impl Owning for SecurityPolicy {
    const KIND: &'static str = "SecurityPolicy";
    const CRD: &'static str = "securitypolicies.rampart.dev";
}

impl Owning for ClusterSecurityPolicy {
    const KIND: &'static str = "ClusterSecurityPolicy";
    const CRD: &'static str = "clustersecuritypolicies.rampart.dev";
}

/// NetworkPolicies of a kind of policy whose owner is gone.
pub(in super::super) struct Orphans<K: Owning> {
    pub(in super::super) networks: Networks,
    pub(in super::super) roots: Roots<K>,
}

impl<K: Owning> Orphanage for Orphans<K> {
    type Owner = K;
    type Orphan = Arc<Live>;
    const OWNER: &'static str = K::KIND;
    const CRD: &'static str = K::CRD;

    fn owners(&self) -> &Roots<K> {
        &self.roots
    }

    async fn orphans(&self) -> Result<Vec<Lost<Arc<Live>>>> {
        let owners = self.roots.uids();
        let ours = self.networks.index.filter(|policy| is_managed(policy.labels(), K::KIND));
        let all = ours.len();
        let is_lost = |labels: &BTreeMap<String, String>| is_orphan(labels, &owners);
        let lost = ours.into_iter().filter(|policy| is_lost(policy.object.labels())).collect();
        Ok(vec![Lost::alone(Self::OWNER, lost, all)])
    }

    fn metadata<'a>(&self, orphan: &'a Arc<Live>) -> &'a ObjectMeta {
        &orphan.object.metadata
    }

    fn is_orphan(&self, orphan: &Arc<Live>) -> bool {
        is_orphan(orphan.object.labels(), &self.roots.uids())
    }

    async fn remove(&self, orphan: &Arc<Live>) -> Result<()> {
        delete_seen(&self.networks.context.client, &orphan.object).await?;
        self.networks.index.deleted(&orphan.object);
        Ok(())
    }
}
