//! Start, leader election, shutdown.

use anyhow::{Context as _, Result, ensure};
use http::Request;
use k8s_openapi::api::{coordination::v1::Lease, flowcontrol::v1::FlowSchema};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
    client::Body,
};
use rampart::api::RetentionPolicy;
use rampart_e2e::stories;
use rampart_e2e::{
    ControlPlane, Operator, Options, fixtures,
    operator::{Ports, kubeconfig},
    wait,
};
use serde_json::json;

use crate::{Env, Tests, retention_reports::acting_as};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("lifecycle::one_leads_another_takes_over_and_the_loser_ends", leadership);
    tests.add("lifecycle::the_lease_has_a_flow_of_its_own", flow);
}

/// By the API server's own word.
async fn flow_of(client: &Client, path: &str) -> Result<String> {
    let answer = client.send(Request::get(path).body(Body::empty())?).await?;
    ensure!(answer.status().is_success(), "{path}: {}", answer.status());
    let schema = answer.headers().get("x-kubernetes-pf-flowschema-uid").context("no flow")?;
    Ok(schema.to_str()?.to_owned())
}

async fn flow(env: Env) -> Result<()> {
    let schemas: Api<FlowSchema> = Api::all(env.shared().await?.plane.client());
    let ours = schemas.get("rampart-leader-election").await?.uid().context("a UID")?;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/rampart-system/leases/rampart";
    let others = "/apis/rampart.dev/v1alpha1/securitypolicies?limit=1";
    for account in ["rampart-controller", "rampart"] {
        let client = acting_as(&env, &format!("system:serviceaccount:rampart-system:{account}")).await?;
        // It follows such objects by a watch, as all others do.
        wait::until("the Lease to have its flow", wait::SOON, || async {
            let found = flow_of(&client, leases).await?;
            Ok(ensure!(found == ours, "{account}: {found}"))
        })
        .await?;
        ensure!(flow_of(&client, others).await? != ours, "{account}: everything has it");
    }
    Ok(())
}

/// Longer than a busy machine keeps who leads from renewing it.
const LEASE: &str = "--lease-duration=30s";

async fn leads(operator: &Operator) -> Result<bool> {
    let (_, text) = operator.admin("/metrics").await?;
    Ok(text.lines().any(|line| line.starts_with("leader_election_master_status") && line.ends_with(" 1")))
}

async fn leadership(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options { controllers: false, ..Options::default() }).await?;
    let client = plane.client();
    let first = Operator::install(&plane, &[LEASE]).await?;
    wait::until("the first to lead", wait::SOON, || async { Ok(ensure!(leads(&first).await?)) }).await?;
    let config = kubeconfig(&plane, plane.server()).await?;
    let flags = [LEASE, "--identity=second"];
    let mut second = Operator::start(plane.dir(), &config, Ports::claim()?, &flags)?;
    second.ready().await.context("a replica that does not lead is ready too: its webhook serves")?;
    ensure!(!leads(&second).await?, "two lead");

    // A grace period below the minimum is refused where the flag is not given.
    fixtures::namespace(&client, stories::REPORTS, json!({})).await?;
    fixtures::apply(&client, &stories::retention_policy(stories::REPORTS, "Enforce")).await?;
    let policies: Api<RetentionPolicy> = Api::namespaced(client.clone(), stories::REPORTS);
    wait::until("a short grace to be refused", wait::SOON, || async {
        let live = serde_json::to_value(policies.get("exports").await?)?;
        let accepted = stories::condition(&live, "Accepted").unwrap_or_default();
        ensure!(
            accepted["message"].as_str().unwrap_or_default().contains("gracePeriod: must be at least 3600s"),
            "{accepted}"
        );
        Ok(())
    })
    .await?;

    let status = first.stop().await?;
    ensure!(
        status.success(),
        "a clean end is {status}: {}",
        rampart_e2e::control_plane::log_tail(plane.dir(), "rampart")
    );
    wait::until("the second to lead", wait::SOON, || async { Ok(ensure!(leads(&second).await?)) }).await?;

    // Somebody else takes the Lease, however that came: who lost it must not go on.
    let leases: Api<Lease> = Api::namespaced(client, "rampart-system");
    let stolen = json!({"spec": {"holderIdentity": "third"}});
    leases.patch("rampart", &PatchParams::default(), &Patch::Merge(&stolen)).await?;
    let second = std::cell::RefCell::new(&mut second);
    let status =
        wait::until("the loser to end", wait::SOON, || async { second.borrow_mut().ended()?.context("it runs") })
            .await?;
    ensure!(!status.success(), "an end that nobody asked for is {status}");
    Ok(())
}
