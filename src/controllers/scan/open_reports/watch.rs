//! Which Reports of ours are there, while the API server has such a kind.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, api::DynamicObject, core::PartialObjectMeta, runtime::watcher};
use tokio::sync::watch as channel;

use super::Known;
use crate::{
    cluster::{
        follow::{Key, follow_those},
        leader::Leadership,
        open_reports::{CRD, Digests, Seen, ours, resource},
    },
    controllers::{Context, news},
    hardening::OpenReport,
};

/// Follows them from when this process leads until it stops.
pub(super) async fn follow(
    context: Context,
    mut leadership: Leadership,
    known: channel::Sender<Known>,
    digests: Digests,
) -> anyhow::Result<()> {
    let client = &context.client;
    let following = async {
        leadership.acquired().await;
        let served = channel::Sender::new(None);
        tokio::join!(follow_crd(client, &served), follow_reports(client, &served, &known, &digests));
    };
    context.stopped.run_until_cancelled(following).await;
    context.stopped.cancelled().await;
    Ok(())
}

/// Follows whether the API server has the kind.
async fn follow_crd(client: &Client, served: &channel::Sender<Option<bool>>) {
    let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(client.clone());
    follow_those(
        api,
        ("CustomResourceDefinition", news::named(CRD)),
        |crd, _| crd.metadata.deletion_timestamp.is_none().then_some(()),
        |all, _| {
            let now = !all.is_empty();
            if !served.send_if_modified(|served| served.replace(now) != Some(now)) {
                return;
            }
            if now {
                tracing::info!(crd = CRD, "violations are told in Reports");
            } else {
                tracing::warn!(
                    crd = CRD,
                    "violations can't be told in Reports: install the CRDs of openreports.io, or turn them off"
                );
            }
        },
        &channel::Sender::new(false),
    )
    .await;
}

async fn follow_reports(
    client: &Client,
    served: &channel::Sender<Option<bool>>,
    known: &channel::Sender<Known>,
    digests: &Digests,
) {
    let (mut served, listed) = (served.subscribe(), channel::Sender::new(false));
    while served.wait_for(|served| *served == Some(true)).await.is_ok() {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource());
        let following = follow_those(
            api,
            ("Report", watcher::Config::default().labels(&ours())),
            |report, _| Some(digests.seen(report)),
            |all, changed| {
                known.send_modify(|known| note(known, all, changed));
            },
            &listed,
        );
        tokio::select! {
            () = following => return,
            gone = served.wait_for(|served| *served != Some(true)) => if gone.is_err() { return },
        }
        known.send_modify(|known| known.live = None);
    }
}

fn note(known: &mut Known, all: &BTreeMap<Key, Seen>, changed: Option<&Key>) {
    let Some((key, live)) = changed.zip(known.live.as_mut()) else {
        known.live = Some(all.clone());
        return;
    };
    let seen = all.get(key).cloned();
    if seen.as_ref().is_none_or(|seen| !seen.is_owned) {
        known.gone.extend(OpenReport::uid_in(&key.1).map(ToOwned::to_owned));
    }
    match seen {
        Some(seen) => drop(live.insert(key.clone(), seen)),
        None => drop(live.remove(key)),
    }
}
