//! Reads what a report is made of.

use std::fmt::Debug;

use kube::Resource;
use serde::de::DeserializeOwned;

use super::super::{
    lead,
    reader::{Extent, Reader, Within},
};
use crate::report::{Listed, Pause, World};

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
        away_since: lead::away_since(&reading.reader.client, rampart_namespace).await,
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
        let (found, extent) = self.reader.pause(namespace).await;
        let paused = found.map(|pause| Pause { until: pause.until, reason: pause.reason });
        Listed { items: paused.into_iter().collect(), unread: self.unread(extent) }
    }

    /// What could not be read since the last time.
    fn unread(&mut self, extent: Extent) -> Vec<String> {
        if extent != Extent::Nothing {
            self.seen = Seen::Something;
        }
        std::mem::take(&mut self.reader.unread)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response, header::DATE};
    use kube::{Client, client::Body};
    use serde_json::json;

    use super::*;
    use crate::cluster::leader::LEASE;

    /// An API server that tells of no pause, and of a leader that is long silent.
    fn silent() -> Client {
        let answer = |request: Request<Body>| {
            let refused = json!({"status": "Failure", "message": "no", "reason": "Forbidden", "code": 403});
            let lease = json!({"metadata": {"name": LEASE},
                "spec": {"renewTime": "2026-11-28T11:00:00.000000Z", "leaseDurationSeconds": 15}});
            let (code, json): (u16, _) = match request.uri().path().rsplit('/').next() {
                Some("rampart-pause") => (403, refused),
                Some(LEASE) => (200, lease),
                Some("version") => (200, json!({})),
                _ => (200, json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": []})),
            };
            let answer = Response::builder().status(code).header(DATE, "Sat, 28 Nov 2026 12:00:00 GMT");
            let answer = answer.body(Body::from(json.to_string().into_bytes()));
            std::future::ready(Ok::<_, Infallible>(answer.unwrap()))
        };
        Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn a_silent_controller_and_a_pause_that_is_not_known_are_told() {
        let reader = Reader::new(silent(), "shop".into());
        let (world, seen) = world(reader, None, "rampart-system").await;
        assert_eq!(seen, Seen::Something);
        assert_eq!(world.away_since.map(|it| it.to_string()).as_deref(), Some("2026-11-28T11:00:00Z"));
        let unread = "whether hardening is paused (configmap rampart-system/rampart-pause): forbidden";
        assert_eq!(world.pause.unread, [unread]);
    }
}
