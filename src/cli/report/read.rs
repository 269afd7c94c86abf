//! Reads what a report is made of.

use std::fmt::Debug;

use kube::Resource;
use serde::de::DeserializeOwned;

use super::super::reader::{Extent, Reader, Within, why};
use crate::{
    cluster::pause,
    report::{Listed, Pause, World},
};

/// Whether anything was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Nothing,
    Something,
}

struct Reading {
    reader: Reader,
    seen: Seen,
}

/// Everything, of one namespace or of all; where those may not be read, of that of the kubeconfig's context.
pub(super) async fn world(reader: Reader, only: Option<String>, rampart_namespace: &str) -> (World, Seen) {
    let within = if only.is_some() { Within::Own } else { Within::All };
    let mut reading = Reading { reader, seen: Seen::Nothing };
    let mut namespaces = Listed::default();
    let extent = reading.reader.namespaces(&mut namespaces.items).await;
    namespaces.unread = reading.unread(extent);
    namespaces.items.retain(|it| only.as_ref().is_none_or(|only| *only == it.name));
    let world = World {
        namespaces,
        policies: reading.listed(within).await,
        cluster_policies: reading.listed(Within::Cluster).await,
        exceptions: reading.listed(within).await,
        keys: reading.listed(within).await,
        retention: reading.listed(within).await,
        holds: reading.listed(within).await,
        cluster_holds: reading.listed(Within::Cluster).await,
        pause: reading.pause(rampart_namespace).await,
        only,
        away_since: None,
    };
    (world, reading.seen)
}

impl Reading {
    async fn listed<K>(&mut self, within: Within) -> Listed<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Debug,
    {
        let mut items = vec![];
        let extent = self.reader.list(&mut items, within).await;
        Listed { items, unread: self.unread(extent) }
    }

    async fn pause(&mut self, namespace: &str) -> Listed<Pause> {
        match pause::read(&self.reader.client, namespace).await {
            Ok(found) => {
                self.seen = Seen::Something;
                let paused = found.map(|(pause, _)| Pause { until: pause.until, reason: pause.reason });
                Listed { items: paused.into_iter().collect(), unread: vec![] }
            }
            Err(error) => {
                let what = format!("whether hardening is paused (configmap {namespace}/{})", pause::CONFIG_MAP);
                Listed { items: vec![], unread: vec![format!("{what}: {}", why(&error))] }
            }
        }
    }

    /// What could not be read since the last time.
    fn unread(&mut self, extent: Extent) -> Vec<String> {
        if extent != Extent::Nothing {
            self.seen = Seen::Something;
        }
        std::mem::take(&mut self.reader.unread)
    }
}
