//! Rampart under Argo CD and Flux: what they, by their own code, say of live objects in each state; and that what they
//! applied is what is there, whatever the operator has done meanwhile.

mod differences;
mod health;
mod judges;

use anyhow::{Context as _, Result, ensure};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use rampart_e2e::{
    ControlPlane, Operator, Options,
    chart::Helm,
    fixtures,
    operator::{Ports, kubeconfig_of},
    wait,
};
use serde_json::{Value, json};

use self::judges::Judges;
use crate::{Env, Tests, samples};

pub(crate) fn tests(tests: &mut Tests) {
    // Argo CD's code takes minutes to build.
    if std::env::var_os("RAMPART_GITOPS_JUDGES").is_some() {
        tests.add("gitops::argo_cd_and_flux_see_what_is_true", they_see_what_is_true);
        tests.add("gitops::the_health_check_is_in_argo_cds_form", |_| async { Judges::new()?.tests_of_argo_cd() });
    }
}

/// As Argo CD calls itself.
const MANAGER: &str = "argocd-controller";

/// Rampart as a GitOps tool installs it, and what it applied.
struct Stage {
    plane: ControlPlane,
    client: Client,
    judges: Judges,
    webhook: Operator,
    installed: Vec<Value>,
    samples: Vec<Value>,
}

async fn they_see_what_is_true(_: Env) -> Result<()> {
    let stage = Stage::new(Judges::new()?).await?;
    stage.never_visited().await.context("before the controller's first visit")?;
    let controller = stage.start("controller", Ports::claim()?).await?;
    let told = async {
        stage.healthy().await.context("when all is well")?;
        stage.nothing_differs().await?;
        stage.stalled().await.context("stalled")?;
        stage.suspended().await.context("suspended")
    };
    told.await.with_context(|| controller.log_tail())?;
    stage.nothing_differs_after_a_restart(controller).await?;
    stage.generation_ahead().await.context("with a spec that nobody has seen")?;
    stage.deleting().await.context("being deleted")
}

impl Stage {
    async fn new(judges: Judges) -> Result<Self> {
        let plane = ControlPlane::start(&Options::default()).await?;
        let client = plane.client();
        let ports = Ports::claim()?;
        let installed = installed(&ports.webhook_url())?;
        for object in &installed {
            wait::until("a kind to be served", wait::SOON, || apply(&client, object)).await?;
        }
        let samples = samples::objects("samples")?.into_iter().map(|(_, object)| object).collect();
        let webhook = start(&plane, "webhook", ports).await?;
        let stage = Self { plane, client, judges, webhook, installed, samples };
        for object in &stage.samples {
            // The API server hears a moment later where the webhook is, and what authority vouches for it.
            wait::until("the samples to be taken", wait::SOON, || apply(&stage.client, object)).await?;
        }
        Ok(stage)
    }

    async fn start(&self, part: &str, ports: Ports) -> Result<Operator> {
        start(&self.plane, part, ports).await
    }

    /// Samples of our own kinds.
    fn own(&self) -> impl Iterator<Item = &Value> {
        self.samples.iter().filter(|object| is_own(object))
    }

    async fn live(&self, object: &Value) -> Result<Value> {
        let api = fixtures::api_of(&self.client, object).await?;
        Ok(serde_json::to_value(api.get(name(object)?).await?)?)
    }

    async fn patch(&self, object: &Value, change: &Value) -> Result<()> {
        let api: Api<DynamicObject> = fixtures::api_of(&self.client, object).await?;
        let patched = api.patch(name(object)?, &PatchParams::default(), &Patch::Merge(change)).await;
        patched.map(drop).with_context(|| format!("{} {change}", object["kind"]))
    }
}

async fn start(plane: &ControlPlane, part: &str, ports: Ports) -> Result<Operator> {
    let kubeconfig = kubeconfig_of(plane, plane.server(), &format!("rampart-{part}")).await?;
    let process = Operator::start_part(part, plane.dir(), &kubeconfig, ports, &[])?;
    process.ready().await?;
    Ok(process)
}

/// `manifests/install.yaml`, but for the webhook, which is no pod here.
fn installed(url: &str) -> Result<Vec<Value>> {
    let mut objects = fixtures::documents(&fixtures::repository().join("manifests/install.yaml"))?;
    call_webhook_at(&mut objects, url);
    Ok(objects)
}

/// What the chart makes, without its hooks, likewise.
fn charted(url: &str) -> Result<Vec<Value>> {
    let mut objects = fixtures::parse(&Helm::new()?.template(&[])?)?;
    objects.retain(|object| object.pointer("/metadata/annotations/helm.sh~1hook").is_none());
    call_webhook_at(&mut objects, url);
    ensure!(objects.len() > 20, "the chart makes {} objects", objects.len());
    Ok(objects)
}

fn call_webhook_at(objects: &mut [Value], url: &str) {
    let configurations = objects.iter_mut().filter(|object| object["kind"] == "ValidatingWebhookConfiguration");
    for webhook in configurations.filter_map(|object| object["webhooks"].as_array_mut()).flatten() {
        webhook["clientConfig"] = json!({"url": url});
    }
}

fn is_own(object: &Value) -> bool {
    object["apiVersion"].as_str().unwrap_or_default().starts_with("rampart.dev/")
}

fn name(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().context("an object without a name")
}

/// As Argo CD does with `ServerSideApply=true`, but that nobody else's field may be in its way.
async fn apply(client: &Client, object: &Value) -> Result<()> {
    let api = fixtures::api_of(client, object).await?;
    let params = PatchParams::apply(MANAGER);
    api.patch(name(object)?, &params, &Patch::Apply(object)).await.map(drop).with_context(|| object["kind"].to_string())
}
