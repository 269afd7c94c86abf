//! Hardening and network intent switched off, each by itself, in an installation of the chart: nobody has rights for what is
//! off, nobody misses them, policies say so, and what was made before stays until somebody takes it away.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingAdmissionPolicyBinding, core::v1::Pod, networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use rampart::api::SecurityPolicy;
use rampart_e2e::{
    Operator, fixtures,
    operator::Ports,
    stories::{self, SHOP, WEB},
    wait,
};
use serde_json::json;

use crate::{
    Env, Tests,
    chart::{Installed, nothing_was_forbidden},
    floor::refused,
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("features::what_is_off_is_left_alone_and_said", what_is_off_is_left_alone);
}

/// The two processes.
struct Running {
    webhook: Operator,
    controller: Operator,
}

/// Upgrades to these features, and starts both processes anew, as the chart would.
async fn switch(installed: &Installed, running: Option<Running>, hardening: bool, network: bool) -> Result<Running> {
    let (webhook_ports, controller_ports) = match running {
        Some(Running { webhook, controller }) => (webhook.kill()?, controller.kill()?),
        None => (Ports::claim()?, Ports::claim()?),
    };
    installed.call_webhook_by_service().await?;
    let features = format!("--set=features.hardening={hardening},features.network={network}");
    installed.helm(&["upgrade", "rampart"], &[&features, "--wait", "--timeout=3m", "--force-conflicts"])?;
    let disable = |features: &[(&str, bool)]| {
        let off: Vec<&str> = features.iter().filter(|it| !it.1).map(|it| it.0).collect();
        (!off.is_empty()).then(|| format!("--disable={}", off.join(",")))
    };
    let of_webhook = disable(&[("hardening", hardening)]);
    let of_webhook: Vec<&str> = of_webhook.as_deref().into_iter().collect();
    let of_controller = disable(&[("hardening", hardening), ("network", network)]);
    let of_controller: Vec<&str> = of_controller.as_deref().into_iter().collect();
    let webhook = installed.start("webhook", webhook_ports, &of_webhook).await?;
    let controller = installed.start("controller", controller_ports, &of_controller).await?;
    Ok(Running { webhook, controller })
}

impl Running {
    /// Asked of the API server was nothing that these accounts may not have.
    async fn missed_nothing(&self) -> Result<()> {
        for (name, process) in [("webhook", &self.webhook), ("controller", &self.controller)] {
            let told = nothing_was_forbidden(&process.admin("/metrics").await?.1);
            told.with_context(|| format!("the {name}: {}", process.log_tail()))?;
        }
        Ok(())
    }
}

/// Waits until a policy says that its feature is off, and names which.
async fn says_off(client: &Client, namespace: &str, name: &str, what: &[&str]) -> Result<()> {
    let policies: Api<SecurityPolicy> = Api::namespaced(client.clone(), namespace);
    wait::until("the policy to say that its feature is off", wait::SOON, || async {
        let live = serde_json::to_value(policies.get(name).await?)?;
        let ready = stories::condition(&live, "Ready").unwrap_or_default();
        let stalled = stories::condition(&live, "Stalled").unwrap_or_default();
        ensure!(
            ready["status"] == "False" && ready["reason"] == "FeatureDisabled" && stalled["status"] == "True",
            "{live}"
        );
        let message = ready["message"].as_str().unwrap_or_default();
        Ok(ensure!(what.iter().all(|what| message.contains(what)), "{message}"))
    })
    .await
}

fn ours() -> ListParams {
    ListParams::default().labels("app.kubernetes.io/managed-by=rampart")
}

async fn made(client: &Client) -> Result<usize> {
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), WEB);
    Ok(api.list(&ours()).await?.items.len())
}

async fn what_is_off_is_left_alone(_: Env) -> Result<()> {
    let installed = Installed::new().await?;
    let client = installed.client.clone();
    let running = switch(&installed, None, true, true).await?;
    for namespace in [SHOP, WEB] {
        fixtures::namespace(&client, namespace, json!({})).await?;
        fixtures::ready_for_pods(&client, namespace).await?;
    }
    for object in stories::sample_workloads() {
        fixtures::apply(&client, &object).await?;
    }
    fixtures::apply(&client, &stories::hardening_policy(SHOP, "Enforce")).await?;
    fixtures::apply(&client, &stories::sample_policy()).await?;
    stories::ready::<SecurityPolicy>(&client, SHOP, "hardened").await?;
    stories::ready::<SecurityPolicy>(&client, WEB, "web").await?;
    refused(&client, SHOP, true).await?;
    let all = made(&client).await?;
    ensure!(all > 0, "no NetworkPolicy was made");

    // Network intent alone: what is there stays, and who takes it away is not contradicted.
    let running = switch(&installed, Some(running), true, false).await?;
    says_off(&client, WEB, "web", &["spec.network"]).await?;
    ensure!(made(&client).await? == all, "what was made before is gone");
    let networks: Api<NetworkPolicy> = Api::namespaced(client.clone(), WEB);
    networks.delete_collection(&DeleteParams::default(), &ours()).await?;
    fixtures::apply(&client, &stories::hardening_policy(SHOP, "Warn")).await?;
    stories::ready::<SecurityPolicy>(&client, SHOP, "hardened").await?;
    refused(&client, SHOP, false).await?;
    fixtures::apply(&client, &stories::hardening_policy(SHOP, "Enforce")).await?;
    stories::ready::<SecurityPolicy>(&client, SHOP, "hardened").await?;
    refused(&client, SHOP, true).await?;
    ensure!(made(&client).await? == 0, "somebody made NetworkPolicies");
    running.missed_nothing().await?;

    // Hardening alone: the admission policy goes on refusing, until it is taken away as docs/install.md says.
    let running = switch(&installed, Some(running), false, true).await?;
    says_off(&client, SHOP, "hardened", &["spec.hardening"]).await?;
    wait::until("the NetworkPolicies to be back", wait::SOON, || async {
        let now = made(&client).await?;
        Ok(ensure!(now == all, "{now} of {all}"))
    })
    .await?;
    refused(&client, SHOP, true).await.context("what was enforced is no longer")?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let floor = ListParams::default().labels("rampart.dev/part=floor");
    bindings.delete_collection(&DeleteParams::default(), &floor).await?;
    refused(&client, SHOP, false).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), SHOP);
    pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &stories::root_pod()?).await?;
    running.missed_nothing().await?;

    // Both.
    let running = switch(&installed, Some(running), false, false).await?;
    let mut both = stories::sample_policy();
    both["spec"]["hardening"] = stories::hardening_policy(WEB, "Audit")["spec"]["hardening"].clone();
    fixtures::apply(&client, &both).await?;
    says_off(&client, WEB, "web", &["spec.hardening", "spec.network"]).await?;
    running.missed_nothing().await?;

    // And on again.
    let running = switch(&installed, Some(running), true, true).await?;
    stories::ready::<SecurityPolicy>(&client, SHOP, "hardened").await?;
    stories::ready::<SecurityPolicy>(&client, WEB, "web").await?;
    refused(&client, SHOP, true).await?;
    running.missed_nothing().await
}
