//! NetworkPolicies whose owner is gone.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::{
    super::{
        Context, Roots,
        network_index::{Live, NetworkIndex},
        pruning::Orphanage,
    },
    KIND,
};
use crate::{
    api::SecurityPolicy,
    cluster::{Result, apply::delete_seen, owner::is_managed, prune::is_orphan},
};

/// NetworkPolicies whose owner is gone.
pub(super) struct Orphans {
    pub(super) context: Context,
    pub(super) index: NetworkIndex,
    pub(super) roots: Roots<SecurityPolicy>,
}

impl Orphanage for Orphans {
    type Orphan = Arc<Live>;
    const OWNER: &'static str = KIND;
    const CRD: &'static str = "securitypolicies.rampart.dev";

    async fn orphans(&self) -> Result<(Vec<Arc<Live>>, usize)> {
        let owners = self.roots.uids();
        let ours = self.index.filter(|policy| is_managed(policy.labels(), KIND));
        let all = ours.len();
        let is_lost = |labels: &BTreeMap<String, String>| is_orphan(labels, &owners);
        Ok((ours.into_iter().filter(|policy| is_lost(policy.object.labels())).collect(), all))
    }

    fn metadata<'a>(&self, orphan: &'a Arc<Live>) -> &'a ObjectMeta {
        &orphan.object.metadata
    }

    fn is_orphan(&self, orphan: &Arc<Live>) -> bool {
        is_orphan(orphan.object.labels(), &self.roots.uids())
    }

    async fn remove(&self, orphan: &Arc<Live>) -> Result<()> {
        delete_seen(&self.context.client, &orphan.object).await?;
        self.index.deleted(&orphan.object);
        Ok(())
    }
}
