//! An operator on a real control plane, and one client with its rights to compare it with.

use std::{
    collections::HashSet,
    fmt::Debug,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::{
    Api, Client, Config, Resource, ResourceExt as _,
    api::DeleteParams,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::{WatchStreamExt as _, watcher},
};
use rampart_e2e::{
    ControlPlane, Operator, Options, fixtures,
    operator::{Ports, USER, kubeconfig},
};

use serde::de::DeserializeOwned;

use super::process::ready_after;

const CONCURRENCY: usize = 16;

/// An operator that is installed, and a client with its rights.
pub(crate) struct Stage {
    pub(crate) plane: ControlPlane,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) operator: Operator,
    pub(crate) peer: Client,
}

impl Stage {
    /// The first start makes the CA; the second is what a restart costs, in seconds to ready.
    pub(crate) async fn set(options: &Options, flags: &[&str]) -> Result<(Self, f64)> {
        let plane = ControlPlane::start(options).await?;
        let ports = Ports::claim()?;
        fixtures::install(&plane.client(), &ports.webhook_url()).await?;
        let kubeconfig = kubeconfig(&plane, plane.server()).await?;
        let first = Operator::start(plane.dir(), &kubeconfig, ports, flags)?;
        first.ready().await?;
        let ports = first.kill()?;
        let began = Instant::now();
        let operator = Operator::start(plane.dir(), &kubeconfig, ports, flags)?;
        let ready = ready_after(&operator, began).await?;
        let text = std::fs::read_to_string(&kubeconfig)?;
        let options = KubeConfigOptions::default();
        let peer = Config::from_custom_kubeconfig(serde_json::from_str::<Kubeconfig>(&text)?, &options).await?;
        Ok((Self { plane, kubeconfig, operator, peer: Client::try_from(peer)? }, ready))
    }
}

/// What the operator wrote so far, the Lease aside.
pub(crate) fn writes(plane: &ControlPlane) -> Result<usize> {
    let counts = plane.audit().counts_of(USER)?;
    Ok(counts.into_iter().filter(|(what, _)| !what.ends_with(" leases")).map(|(_, count)| count).sum())
}

/// Waits until so many objects are ready in the namespaces whose names begin so.
pub(crate) async fn all_ready<K>(client: &Client, prefix: &str, count: usize, is_ready: fn(&K) -> bool) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let stream = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff();
    let mut stream = std::pin::pin!(stream.applied_objects());
    let mut ready = HashSet::new();
    let finished = async {
        while let Some(object) = stream.next().await {
            let Ok(object) = object else { continue };
            let namespace = object.namespace().unwrap_or_default();
            if is_ready(&object) && namespace.starts_with(prefix) {
                ready.insert((namespace, object.name_any()));
                if ready.len() == count {
                    return;
                }
            }
        }
    };
    let limit = Duration::from_mins(10);
    tokio::time::timeout(limit, finished).await.with_context(|| format!("not all became ready in {limit:?}"))
}

/// Kills the operator and takes its webhook away: while it is gone nobody could change its kinds.
pub(crate) async fn silence(client: &Client, operator: Operator) -> Result<Ports> {
    let ports = operator.kill()?;
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    webhooks.delete("rampart", &DeleteParams::default()).await?;
    Ok(ports)
}

/// An operator again, and its webhook.
pub(crate) async fn start(plane: &ControlPlane, kubeconfig: &Path, ports: Ports, flags: &[&str]) -> Result<Operator> {
    let url = ports.webhook_url();
    let operator = Operator::start(plane.dir(), kubeconfig, ports, flags)?;
    fixtures::install(&plane.client(), &url).await?;
    operator.ready().await?;
    Ok(operator)
}

/// So many things at once, as the operator does them too.
pub(crate) async fn each<F, Fut>(count: usize, what: F) -> Result<()>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    stream::iter(0..count).map(|nth| Ok(what(nth))).try_buffer_unordered(CONCURRENCY).try_collect().await
}
