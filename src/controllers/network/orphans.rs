//! NetworkPolicies whose owner is gone.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::networking::v1::NetworkPolicy, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{CustomResourceExt, Resource, ResourceExt as _};

use super::{Networks, index::Live};
use crate::{
    api::{ClusterSecurityPolicy, SecurityPolicy, labels::OWNER_UID},
    cluster::{Result, apply::delete_seen, owner::is_managed},
    controllers::{
        Roots,
        pruning::{Look, Lost, Orphanage},
    },
};

/// A kind of policy that NetworkPolicies are made for.
pub(in super::super) trait Owning:
    Resource<DynamicType = ()> + CustomResourceExt + Clone + std::fmt::Debug + Send + Sync + 'static
{
    /// Its name.
    const KIND: &'static str;
}

impl Owning for SecurityPolicy {
    const KIND: &'static str = "SecurityPolicy";
}

impl Owning for ClusterSecurityPolicy {
    const KIND: &'static str = "ClusterSecurityPolicy";
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

    fn owners(&self) -> &Roots<K> {
        &self.roots
    }

    async fn orphans(&self, _: Look) -> Result<Vec<Lost<Arc<Live>>>> {
        let owners = self.roots.places();
        let ours = self.networks.index.filter(|policy| is_managed(policy.labels(), K::KIND));
        let all = ours.len();
        let lost = ours.into_iter().filter(|policy| is_lost(&policy.object, &owners)).collect();
        Ok(vec![Lost::alone(Self::OWNER, lost, all)])
    }

    fn metadata<'a>(&self, orphan: &'a Arc<Live>) -> &'a ObjectMeta {
        &orphan.object.metadata
    }

    fn is_orphan(&self, orphan: &Arc<Live>) -> bool {
        is_lost(&orphan.object, &self.roots.places())
    }

    async fn remove(&self, orphan: &Arc<Live>) -> Result<()> {
        delete_seen(&self.networks.context.client, &orphan.object).await?;
        self.networks.index.deleted(&orphan.object);
        Ok(())
    }
}

/// Whether the policy that an object names as its owner is none of these, or one of another namespace.
fn is_lost(policy: &NetworkPolicy, owners: &BTreeMap<String, Option<String>>) -> bool {
    let place = policy.labels().get(OWNER_UID).and_then(|uid| owners.get(uid));
    place.is_none_or(|place| place.is_some() && *place != policy.metadata.namespace)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_of_another_namespace_than_its_owner_is_lost() {
        let owners = [("a", Some("shop")), ("b", None)];
        let owners: BTreeMap<String, Option<String>> =
            owners.map(|(uid, namespace)| (uid.to_owned(), namespace.map(str::to_owned))).into();
        let lost = |uid: &str, namespace: &str| {
            let policy =
                json!({"metadata": {"name": "p", "namespace": namespace, "labels": {"rampart.dev/owner-uid": uid}}});
            is_lost(&serde_json::from_value(policy).unwrap(), &owners)
        };
        assert_eq!((lost("a", "shop"), lost("b", "shop"), lost("b", "books")), (false, false, false));
        assert_eq!((lost("a", "books"), lost("c", "shop")), (true, true));
    }
}
