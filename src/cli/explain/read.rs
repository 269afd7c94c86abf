//! Reads the cluster, with the rights of who asks. What may not be read is told, and the rest is read all the same.

use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, PartialObjectMeta},
};

use super::{
    super::{
        connection::found,
        lead,
        reader::{Extent, Reader, Within, why},
    },
    asking::{asking, needs},
    kinds::{Kind, What},
    known::Known,
    terrain::Inhabitant,
};
use crate::{
    api::RetentionReport,
    cluster::{Result, error::call, retention_reports},
    controllers::cluster_facts,
    network::{Facts, Service},
};

impl Reader {
    /// The object that is asked about, with no more of it than is needed.
    pub(super) async fn object(&self, kind: &Kind, name: &str) -> Result<Option<DynamicObject>> {
        let resource = kind.resource();
        let api: Api<DynamicObject> = if kind.is_namespaced() {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        };
        let doing = || format!("reading {} {name}", kind.name);
        if kind.what != What::Kept {
            return found(call(doing, api.get(name)).await);
        }
        let read = found(call(doing, api.get_metadata(name)).await)?;
        let bare = |PartialObjectMeta { metadata, .. }: PartialObjectMeta<DynamicObject>| DynamicObject {
            types: None,
            metadata,
            data: serde_json::Value::Null,
        };
        Ok(read.map(bare))
    }

    /// What decides about the object.
    pub(super) async fn known(mut self, what: What, given: &Facts, rampart_namespace: &str) -> Known {
        let mut known = Known::default();
        known.seen.namespaces = self.namespaces(&mut known.namespaces).await;
        let mut decides = known.seen.namespaces.in_its_namespace();
        let has_pods = matches!(what, What::Pod | What::Template);
        let is_of_pods = !matches!(what, What::Kept | What::Other | What::ApiKey) && !what.is_hold();
        if is_of_pods {
            known.seen.pods = self.pods(&mut known.pods).await;
        }
        if is_of_pods && what != What::ClusterSecurityPolicy {
            known.seen.network_policies = self.list(&mut known.network_policies, Within::All).await;
            let within = if has_pods { Within::All } else { Within::Own };
            decides = decides.min(self.list(&mut known.policies, within).await.in_its_namespace());
        }
        if has_pods || matches!(what, What::Namespace | What::ApiKey) {
            decides = decides.min(self.list(&mut known.cluster_policies, Within::Cluster).await);
        }
        if has_pods || what == What::Namespace {
            decides = decides.min(self.list(&mut known.exceptions, Within::Own).await);
        }
        if !what.is_of_cluster() {
            self.list(&mut known.retention, Within::Own).await;
            self.plans(&mut known).await;
        }
        // Neither pods nor holds are ever held.
        if what != What::Pod && !what.is_of_cluster() && !what.is_hold() {
            self.list(&mut known.holds, Within::Own).await;
            self.list(&mut known.cluster_holds, Within::Cluster).await;
        }
        known.seen.hardening = decides;
        if has_pods {
            known.pause = self.pause(rampart_namespace).await.0;
            self.surroundings(&mut known, given).await;
        }
        known.away_since = lead::away_since(&self.client, rampart_namespace).await;
        known.unread = self.unread;
        known
    }

    /// What the plans say that RetentionPolicies made last.
    async fn plans(&mut self, known: &mut Known) {
        let api: Api<RetentionReport> = Api::namespaced(self.client.clone(), &self.namespace);
        let named = known.retention.iter().filter_map(|it| it.status.as_ref()?.plan.as_ref()?.report.as_ref());
        for name in named {
            match retention_reports::read(&api, name).await {
                Ok(plan) => known.plans.extend(plan),
                Err(error) => self.unread.push(format!("whether RetentionReport {name} is approved: {}", why(&error))),
            }
        }
    }

    /// What rendering of intents that are not in force asks besides pods.
    async fn surroundings(&mut self, known: &mut Known, given: &Facts) {
        let asked = needs(&asking(known));
        if asked.services {
            let mut services: Vec<k8s_openapi::api::core::v1::Service> = vec![];
            self.list(&mut services, Within::All).await;
            let named = |it: &k8s_openapi::api::core::v1::Service| (it.namespace().unwrap_or_default(), it.name_any());
            known.services = services.iter().filter_map(|it| Some((named(it), Service::of(it)?))).collect();
        }
        known.facts = given.clone();
        if asked.addresses {
            let (facts, unread) = cluster_facts::read(&self.client, given).await;
            known.facts = facts;
            let told =
                unread.iter().map(|(kind, error)| format!("addresses of the cluster, of {kind}: {}", why(error)));
            self.unread.extend(told);
        }
    }

    async fn pods(&mut self, pods: &mut Vec<Inhabitant>) -> Extent {
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        self.each(&resource, Within::All, |pod| pods.extend(Inhabitant::of(&pod))).await
    }
}
