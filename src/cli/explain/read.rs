//! Reads the cluster, with the rights of who asks. What may not be read is told, and the rest is read all the same.

use std::fmt::Debug;

use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta},
};
use rampart_reach::Namespace;
use serde::de::DeserializeOwned;

use super::{
    asking::{asking, needs},
    kinds::{Asked, What},
    known::{Extent, Known},
    terrain::Inhabitant,
};
use crate::{
    cluster::{
        Error, Result,
        error::{call, found},
        pages, pause,
    },
    controllers::cluster_facts,
    network::{Facts, Service},
};

/// Reads for one question.
pub(super) struct Reader {
    pub(super) client: Client,
    /// Namespace of the object; the object's own name, where it is a namespace.
    pub(super) namespace: String,
    pub(super) unread: Vec<String>,
}

/// Objects of which namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// All, or the object's own where no more may be read.
    All,
    /// The object's own.
    Own,
    /// They stand in none.
    Cluster,
}

impl Reader {
    /// The object that is asked about, with no more of it than is needed.
    pub(super) async fn object(&self, asked: &Asked) -> Result<Option<DynamicObject>> {
        let resource = asked.kind.resource();
        let api: Api<DynamicObject> = if asked.kind.is_namespaced() {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        };
        let doing = || format!("reading {} {}", asked.kind.name, asked.name);
        if asked.kind.what != What::Kept {
            return found(call(doing, api.get(&asked.name)).await);
        }
        let read = found(call(doing, api.get_metadata(&asked.name)).await)?;
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
        let is_of_pods = !matches!(what, What::Kept | What::ApiKey);
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
        if has_pods || matches!(what, What::Namespace | What::Kept) {
            self.list(&mut known.retention, Within::Own).await;
        }
        // Pods are never held.
        if matches!(what, What::Template | What::Namespace | What::Kept) {
            self.list(&mut known.holds, Within::Own).await;
            self.list(&mut known.cluster_holds, Within::Cluster).await;
        }
        known.seen.hardening = decides;
        if has_pods {
            let pause = pause::read(&self.client, rampart_namespace).await;
            match pause {
                Ok(pause) => known.pause = pause.map(|(pause, _)| pause),
                Err(error) => {
                    let what =
                        format!("whether hardening is paused (configmap {rampart_namespace}/{})", pause::CONFIG_MAP);
                    self.unread.push(format!("{what}: {}", why(&error)));
                }
            }
            self.surroundings(&mut known, given).await;
        }
        known.unread = self.unread;
        known
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

    /// Namespaces with their labels; the object's own, where no more may be read.
    async fn namespaces(&mut self, all: &mut Vec<Namespace>) -> Extent {
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Namespace>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let named = |it: &DynamicObject| Namespace { name: it.name_any(), labels: it.labels().clone() };
        let read = pages::each(&api, ListParams::default(), "namespaces", |it: DynamicObject| all.push(named(&it)));
        let Err(error) = read.await else { return Extent::Whole };
        let own = found(call(|| format!("reading namespace {}", self.namespace), api.get(&self.namespace)).await);
        let told = format!("namespaces: {}", why(&error));
        all.clear();
        let Ok(own) = own else {
            self.unread.push(told);
            return Extent::Nothing;
        };
        all.extend(own.iter().map(named));
        self.unread.push(format!("{told}; told is {} alone", self.namespace));
        Extent::Own
    }

    async fn pods(&mut self, pods: &mut Vec<Inhabitant>) -> Extent {
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        self.each(&resource, Within::All, |pod| pods.extend(Inhabitant::of(&pod))).await
    }

    /// Objects of a kind. One that has not the shape of its kind is told as unread.
    async fn list<K>(&mut self, all: &mut Vec<K>, within: Within) -> Extent
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Debug,
    {
        let mut broken = vec![];
        let take = |object: DynamicObject| {
            let name = object.metadata.namespace.iter().chain(&object.metadata.name).cloned().collect::<Vec<_>>();
            match object.try_parse::<K>() {
                Ok(object) => all.push(object),
                Err(error) => broken.push(format!("{} {}: {error}", K::kind(&()), name.join("/"))),
            }
        };
        let extent = self.each(&ApiResource::erase::<K>(&()), within, take).await;
        self.unread.extend(broken);
        extent
    }

    async fn each(&mut self, resource: &ApiResource, within: Within, mut take: impl FnMut(DynamicObject)) -> Extent {
        let plural = &resource.plural;
        let own: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, resource);
        let all: Api<DynamicObject> = Api::all_with(self.client.clone(), resource);
        let (asked, place) = match within {
            Within::Own => (&own, format!(" in {}", self.namespace)),
            Within::All => (&all, " of all namespaces".into()),
            Within::Cluster => (&all, String::new()),
        };
        let Err(error) = pages::each(asked, ListParams::default(), plural, &mut take).await else {
            return Extent::Whole;
        };
        let told = format!("{plural}{place}: {}", why(&error));
        if within != Within::All || error.code() != Some(403) {
            self.unread.push(told);
            return Extent::Nothing;
        }
        match pages::each(&own, ListParams::default(), plural, &mut take).await {
            Ok(()) => {
                self.unread.push(format!("{told}; told are those in {}", self.namespace));
                Extent::Own
            }
            Err(error) => {
                self.unread.push(format!("{plural} in {}: {}", self.namespace, why(&error)));
                Extent::Nothing
            }
        }
    }
}

/// Why something could not be read, shortly.
fn why(error: &Error) -> String {
    match error.code() {
        Some(403) => "forbidden".into(),
        Some(404) => "the API server does not know them (is Rampart installed?)".into(),
        _ => error.to_string(),
    }
}
