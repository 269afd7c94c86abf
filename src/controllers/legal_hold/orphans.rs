//! What is refused for holds that are gone.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Client;

use crate::{
    api::labels::OWNER_UID,
    cluster::{
        Result,
        holds::{Holding, Live, made},
        prune::is_orphan,
    },
    controllers::{
        Roots,
        pruning::{Look, Lost, Orphanage},
    },
};

/// Admission policies and bindings of a kind of hold.
pub(super) struct Orphans<K: Holding> {
    pub(super) client: Client,
    pub(super) roots: Roots<K>,
}

/// What was made for one hold.
pub(super) struct Orphan {
    /// Of the first of them.
    metadata: ObjectMeta,
    names: Vec<String>,
}

fn is_lost<K: Holding>(metadata: &ObjectMeta, roots: &Roots<K>) -> bool {
    metadata.labels.as_ref().is_none_or(|labels| is_orphan(labels, &roots.uids()))
}

impl<K: Holding> Orphanage for Orphans<K> {
    type Owner = K;
    type Orphan = Orphan;
    const OWNER: &'static str = K::KIND.as_str();

    fn owners(&self) -> &Roots<K> {
        &self.roots
    }

    async fn orphans(&self, _: Look) -> Result<Vec<Lost<Orphan>>> {
        let mut made_for: BTreeMap<String, Orphan> = BTreeMap::new();
        let policies = made::<ValidatingAdmissionPolicy>(&self.client, K::KIND).await?;
        let bindings = made::<ValidatingAdmissionPolicyBinding>(&self.client, K::KIND).await?;
        for metadata in policies.into_iter().chain(bindings) {
            let uid = metadata.labels.iter().flatten().find(|(key, _)| *key == OWNER_UID);
            let uid = uid.map(|(_, uid)| uid.clone()).unwrap_or_default();
            let name = metadata.name.clone().unwrap_or_default();
            let orphan = made_for.entry(uid).or_insert_with(|| Orphan { metadata, names: vec![] });
            if !orphan.names.contains(&name) {
                orphan.names.push(name);
            }
        }
        let all = made_for.len();
        let lost = made_for.into_values().filter(|orphan| is_lost(&orphan.metadata, &self.roots));
        Ok(vec![Lost::alone(Self::OWNER, lost.collect(), all)])
    }

    fn metadata<'a>(&self, orphan: &'a Orphan) -> &'a ObjectMeta {
        &orphan.metadata
    }

    fn is_orphan(&self, orphan: &Orphan) -> bool {
        is_lost(&orphan.metadata, &self.roots)
    }

    async fn remove(&self, orphan: &Orphan) -> Result<()> {
        for name in &orphan.names {
            Live::read(&self.client, name).await?.remove(&self.client).await?;
        }
        Ok(())
    }
}
