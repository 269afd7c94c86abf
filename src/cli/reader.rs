//! Lists of a cluster, with the rights of who asks. What may not be read is told, and the rest is read all the same.

use std::fmt::Debug;

use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject, ListParams},
};
use rampart_reach::Namespace;
use serde::de::DeserializeOwned;

use super::terminal::Progress;
use crate::cluster::{
    Error,
    error::{call, found},
    pages,
    pause::{self, Pause},
};

/// Reads for one question.
pub(super) struct Reader {
    pub(super) client: Client,
    /// Namespace of the object; the object's own name, where it is a namespace.
    pub(super) namespace: String,
    pub(super) unread: Vec<String>,
    pub(super) progress: Progress,
}

/// Objects of which namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// All, or the object's own where no more may be read.
    All,
    /// The object's own.
    Own,
    /// They stand in none.
    Cluster,
}

/// How much of a kind was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// Nothing.
    Nothing,
    /// Of the object's namespace.
    Own,
    /// Everything that was asked for.
    #[default]
    Whole,
}

impl Extent {
    /// For what is asked of the object's namespace alone.
    pub(super) const fn in_its_namespace(self) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::Own | Self::Whole => Self::Whole,
        }
    }
}

impl Reader {
    /// Has read nothing yet.
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace, unread: vec![], progress: Progress::open("reading the cluster") }
    }

    /// Namespaces with their labels; the object's own, where no more may be read.
    pub(super) async fn namespaces(&mut self, all: &mut Vec<Namespace>) -> Extent {
        self.progress.says("reading namespaces");
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

    /// The pause of hardening, if one is set.
    pub(super) async fn pause(&mut self, rampart_namespace: &str) -> (Option<Pause>, Extent) {
        match pause::read(&self.client, rampart_namespace).await {
            Ok(pause) => (pause.map(|(pause, _)| pause), Extent::Whole),
            Err(error) => {
                let what = format!("whether hardening is paused (configmap {rampart_namespace}/{})", pause::CONFIG_MAP);
                self.unread.push(format!("{what}: {}", why(&error)));
                (None, Extent::Nothing)
            }
        }
    }

    /// Objects of a kind. One that has not the shape of its kind is told as unread.
    pub(super) async fn list<K>(&mut self, all: &mut Vec<K>, within: Within) -> Extent
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

    pub(super) async fn each(
        &mut self,
        resource: &ApiResource,
        within: Within,
        mut take: impl FnMut(DynamicObject),
    ) -> Extent {
        let plural = &resource.plural;
        self.progress.says(&format!("reading {plural}"));
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
pub(super) fn why(error: &Error) -> String {
    match error.code() {
        Some(403) => "forbidden".into(),
        Some(404) => "the API server does not know them (is Rampart installed?)".into(),
        _ => error.to_string(),
    }
}
