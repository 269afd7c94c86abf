//! The chart in a cluster: installed by Helm, its two processes each with the rights of its own account, upgraded,
//! uninstalled. Its pods run on the real node (e2e/tests/node), here they are processes beside the control plane.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingWebhookConfiguration},
    apps::v1::Deployment,
    coordination::v1::Lease,
    core::v1::Secret,
    rbac::v1::ClusterRole,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, ValidationDirective},
};
use rampart::api::{ApiKey, RetentionPolicy, SecurityPolicy};
use rampart_e2e::{
    ControlPlane, Operator, Options, Verifier,
    chart::{self, Helm},
    fixtures,
    operator::{Ports, binary, kubeconfig_of, webhook_answers},
    stories, wait,
};
use serde_json::{Value, json};

use crate::{Env, Tests, alerts, floor::refused};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("chart::it_installs_works_upgrades_and_goes", it_installs_works_upgrades_and_goes);
}

pub(crate) struct Installed {
    pub(crate) plane: ControlPlane,
    pub(crate) helm: Helm,
    pub(crate) client: Client,
    /// Path of the chart.
    pub(crate) chart: String,
}

impl Installed {
    pub(crate) async fn new() -> Result<Self> {
        Self::of(chart::directory().display().to_string()).await
    }

    /// Another chart than the present one.
    pub(crate) async fn of(chart: String) -> Result<Self> {
        let plane = ControlPlane::start(&Options::default()).await?;
        let helm = Helm::of_cluster(&plane.admin_kubeconfig()?)?;
        let this = Self { client: plane.client(), plane, helm, chart };
        this.helm(&["install", "rampart"], &["--create-namespace", "--wait", "--timeout=3m"])?;
        Ok(this)
    }

    /// Helm with the chart, in the install namespace.
    pub(crate) fn helm(&self, command: &[&str], flags: &[&str]) -> Result<String> {
        self.helm.run(&[command, &[&self.chart, "--namespace", chart::NAMESPACE], flags].concat())
    }

    /// A process of the chart, as its account; ready when this returns.
    pub(crate) async fn start(&self, part: &str, ports: Ports, flags: &[&str]) -> Result<Operator> {
        let kubeconfig = kubeconfig_of(&self.plane, self.plane.server(), &format!("rampart-{part}")).await?;
        if part == "webhook" {
            self.call_webhook_at(&ports.webhook_url()).await?;
        }
        let process = Operator::start_part(part, self.plane.dir(), &kubeconfig, ports, flags)?;
        process.ready().await?;
        if part == "webhook" {
            webhook_answers(&self.client).await?;
        }
        Ok(process)
    }

    /// The webhook is no pod here.
    async fn call_webhook_at(&self, url: &str) -> Result<()> {
        self.call_webhook(&json!({"url": url})).await
    }

    /// As the chart has it.
    pub(crate) async fn call_webhook_by_service(&self) -> Result<()> {
        let service =
            json!({"name": "rampart-webhook", "namespace": chart::NAMESPACE, "path": "/validate", "port": 443});
        self.call_webhook(&json!({"service": service})).await
    }

    async fn call_webhook(&self, client_config: &Value) -> Result<()> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let mut live = api.get("rampart").await?;
        for webhook in live.webhooks.iter_mut().flatten() {
            let trusted = webhook.client_config.ca_bundle.take();
            webhook.client_config = serde_json::from_value(client_config.clone())?;
            webhook.client_config.ca_bundle = trusted;
        }
        api.replace("rampart", &PostParams::default(), &live).await?;
        Ok(())
    }
}

async fn it_installs_works_upgrades_and_goes(_: Env) -> Result<()> {
    let installed = Installed::new().await?;
    every_shape_is_valid(&installed).await?;
    let webhook = installed.start("webhook", Ports::claim()?, &[]).await?;
    let controller = installed.start("controller", Ports::claim()?, &["--retention-minimum-grace=1s"]).await?;
    let verifier = Verifier::start(&installed.plane, installed.plane.server(), "rampart-verifier-1").await?;
    stories(&installed.client, "shop").await?;
    for process in [&webhook, &controller] {
        nothing_was_forbidden(&process.admin("/metrics").await?.1)?;
    }
    nothing_was_forbidden(&verifier.admin("/metrics").await?.1)?;
    let heard = alerts::heard(&verifier).await?;
    wait::until("the verifier to hear of the API server while no key changes", wait::SOON, || async {
        Ok(ensure!(alerts::heard(&verifier).await? > heard))
    })
    .await?;
    let mut served = vec![];
    for (pod, process) in [("controller", &controller), ("webhook", &webhook)] {
        served.push((pod, process.admin("/metrics").await?.1));
    }
    served.push(("verifier", verifier.admin("/metrics").await?.1));
    alerts::what_is_asked_is_served(&served)?;
    alerts::a_healthy_installation_alerts_of_nothing(&served)?;
    a_second_installation_is_refused(&installed)?;
    drop(verifier);

    // A feature that is off takes its rights away, and the controller does not miss them.
    let off = ["--set=features.apiKeys=false,features.retention=false,verifier.enabled=false"];
    installed.call_webhook_by_service().await?;
    installed.helm(&["upgrade", "rampart"], &[&off[..], &["--wait", "--timeout=3m", "--force-conflicts"]].concat())?;
    let ports = controller.kill()?;
    let controller = installed.start("controller", ports, &["--disable=api-keys,retention"]).await?;
    installed.call_webhook_at(&webhook.webhook_url()).await?;
    webhook_answers(&installed.client).await?;
    fixtures::apply(&installed.client, &stories::hardening_policy("shop", "Warn")).await?;
    stories::ready::<SecurityPolicy>(&installed.client, "shop", "hardened").await?;
    fixtures::apply(&installed.client, &stories::hardening_policy("shop", "Enforce")).await?;
    stories::ready::<SecurityPolicy>(&installed.client, "shop", "hardened").await?;
    nothing_was_forbidden(&controller.admin("/metrics").await?.1)?;

    nothing_is_taken_away_while_the_controller_runs(&installed).await?;
    // As the Job of the chart does it: first the operator goes, then what it made.
    controller.stop().await?;
    webhook.stop().await?;
    uninstall(&installed).await
}

/// The server takes every form of the chart, with every field known to it.
async fn every_shape_is_valid(installed: &Installed) -> Result<()> {
    // As Helm, which takes away what it no longer says; it goes by the name of its program.
    let deployments: Api<Deployment> = Api::namespaced(installed.client.clone(), chart::NAMESPACE);
    let live = deployments.get("rampart-webhook").await?;
    let helm = live.managed_fields().iter().find(|it| it.operation.as_deref() == Some("Apply"));
    let helm = helm.and_then(|it| it.manager.as_deref()).context("Helm has not applied the Deployment")?;
    let params = PatchParams {
        dry_run: true,
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply(helm).force()
    };
    for values in chart::SHAPES {
        for object in fixtures::parse(&installed.helm.template(values)?)? {
            let name = object["metadata"]["name"].as_str().context("no name")?;
            let api: Api<DynamicObject> = fixtures::api_of(&installed.client, &object).await?;
            let taken = api.patch(name, &params, &Patch::Apply(&object)).await;
            taken.with_context(|| format!("{values:?}: {} {name}", object["kind"]))?;
        }
    }
    Ok(())
}

/// One of each thing that the operator does.
async fn stories(client: &Client, namespace: &str) -> Result<()> {
    fixtures::namespace(client, namespace, json!({"rampart.dev/retention": "allowed"})).await?;
    fixtures::ready_for_pods(client, namespace).await?;
    fixtures::apply(client, &stories::hardening_policy(namespace, "Enforce")).await?;
    fixtures::apply(client, &stories::api_key(namespace)).await?;
    for object in stories::retention_fixtures(namespace, 1, 2)? {
        fixtures::apply(client, &object).await?;
    }
    fixtures::apply(client, &stories::retention_policy(namespace, "Enforce")).await?;
    fixtures::namespace(client, stories::WEB, json!({})).await?;
    fixtures::ready_for_pods(client, stories::WEB).await?;
    for object in stories::sample_workloads() {
        fixtures::apply(client, &object).await?;
    }
    fixtures::apply(client, &stories::sample_policy()).await?;
    stories::ready::<SecurityPolicy>(client, namespace, "hardened").await?;
    stories::ready::<ApiKey>(client, namespace, "orders").await?;
    stories::ready::<RetentionPolicy>(client, namespace, "exports").await?;
    refused(client, namespace, true).await
}

/// No call was refused for want of a right.
pub(crate) fn nothing_was_forbidden(metrics: &str) -> Result<()> {
    let calls: Vec<&str> = metrics.lines().filter(|line| line.starts_with("rest_client_requests_total{")).collect();
    ensure!(!calls.is_empty(), "no calls are counted");
    let forbidden: Vec<_> = calls.into_iter().filter(|line| line.contains("code=\"403\"")).collect();
    ensure!(forbidden.is_empty(), "{forbidden:?}");
    Ok(())
}

fn a_second_installation_is_refused(installed: &Installed) -> Result<()> {
    let second = installed.helm(&["install", "other"], &[]);
    let error = format!("{:#}", second.err().context("a second release was installed")?);
    ensure!(error.contains("rampart"), "{error}");
    let elsewhere = installed.helm.run(&["install", "rampart", &installed.chart, "--namespace", "default"]);
    let error = format!("{:#}", elsewhere.err().context("a second namespace was taken")?);
    ensure!(error.contains("once a cluster"), "{error}");
    Ok(())
}

async fn nothing_is_taken_away_while_the_controller_runs(installed: &Installed) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(installed.client.clone(), chart::NAMESPACE);
    let leases: Api<Lease> = Api::namespaced(installed.client.clone(), chart::NAMESPACE);
    // Made anew, they would be others.
    let found = || async {
        let (ca, lease) = (secrets.get_metadata("rampart-webhook-ca").await?, leases.get_metadata("rampart").await?);
        anyhow::Ok((ca.uid(), lease.uid()))
    };
    let before = found().await?;
    let told = run_uninstall(installed)?;
    let said = String::from_utf8_lossy(&told.stderr);
    ensure!(told.status.code() == Some(2) && said.contains("the controller e2e holds the Lease"), "{said}");
    ensure!(before == found().await?, "they are others");
    refused(&installed.client, "shop", true).await
}

fn run_uninstall(installed: &Installed) -> Result<std::process::Output> {
    let kubeconfig = installed.plane.admin_kubeconfig()?;
    Ok(Command::new(binary()?).args(["uninstall", "--kubeconfig"]).arg(&kubeconfig).output()?)
}

async fn uninstall(installed: &Installed) -> Result<()> {
    let client = &installed.client;
    // No pod runs here, so that the hook's Job would do nothing.
    installed.helm.run(&["uninstall", "rampart", "--namespace", chart::NAMESPACE, "--no-hooks", "--wait"])?;
    refused(client, "shop", true).await.context("admission policies enforce until they are taken away")?;
    let told = run_uninstall(installed)?;
    ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    refused(client, "shop", false).await?;

    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let floor: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    wait::until("what the operator owned to go", wait::SOON, || async {
        let left: Vec<String> =
            webhooks.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
        ensure!(left.is_empty(), "{left:?}");
        let left: Vec<String> = floor.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
        Ok(ensure!(left.is_empty(), "{left:?}"))
    })
    .await?;
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let roles = roles.list(&ListParams::default()).await?;
    let left: Vec<String> =
        roles.iter().map(ResourceExt::name_any).filter(|name| name.starts_with("rampart")).collect();
    ensure!(left.is_empty(), "{left:?}");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), chart::NAMESPACE);
    let left: BTreeSet<String> =
        secrets.list_metadata(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    ensure!(left == BTreeSet::from(["rampart-adoption".to_owned()]), "{left:?}");

    // Policies and keys are there still, and the next installation takes them up again.
    let keys: Api<ApiKey> = Api::namespaced(client.clone(), "shop");
    keys.get("orders").await.context("an ApiKey went with the chart")?;
    installed.helm(&["install", "rampart"], &["--wait", "--timeout=3m"])?;
    installed.helm.run(&["uninstall", "rampart", "--namespace", chart::NAMESPACE, "--no-hooks"])?;
    keys.delete("orders", &DeleteParams::default()).await?;
    Ok(())
}
