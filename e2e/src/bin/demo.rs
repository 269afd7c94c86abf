//! `make demo`: Rampart's main job, on a real control plane, each step checked.

use std::{process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use rampart_e2e::{
    ControlPlane, Operator, Options, Verifier,
    stories::{self, checked, title},
    table,
};

#[tokio::main]
async fn main() -> ExitCode {
    match demo().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nNot so: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<()> {
    let began = Instant::now();
    tokio::select! {
        told = tell() => told?,
        _ = tokio::signal::ctrl_c() => println!("\nStopped; nothing is left behind."),
    }
    println!("The demo took {} s.", began.elapsed().as_secs());
    Ok(())
}

async fn tell() -> Result<()> {
    title("A control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok");
    let began = Instant::now();
    let plane = ControlPlane::start(&Options::default()).await?;
    checked(&format!("ready in {:.1} s at {}", began.elapsed().as_secs_f64(), plane.server()));

    title("Rampart: crds/, roles, webhook configuration, and `rampart run` as a process");
    let operator = Operator::install(&plane, &["--retention-minimum-grace=1s", "--retention-interval=2s"]).await?;
    checked("/readyz answers 200: certificate, CA bundle, policies and watches are there");

    let client = plane.client();
    // What went wrong may stand in the log, and it goes with the demo.
    steps(&plane, &client).await.with_context(|| format!("rampart's log ends:{}\n", operator.log_tail()))?;

    title("kubectl get rampart,rhold -A");
    let plurals = [
        "securitypolicies",
        "clustersecuritypolicies",
        "policyexceptions",
        "apikeys",
        "retentionpolicies",
        "legalholds",
    ];
    for plural in plurals {
        let table = table::of(&client, "rampart.dev/v1alpha1", plural).await?;
        ensure!(table.contains("True"), "nothing is ready in:\n{table}");
        println!("{table}");
    }

    let kubeconfig = plane.admin_kubeconfig()?;
    if std::env::var_os("DEMO_EXIT").is_none_or(|value| value.is_empty() || value == "0") {
        println!("Explore: kubectl --kubeconfig {} get rampart -A", kubeconfig.display());
        println!("Ctrl-C stops everything and leaves nothing behind.");
        std::future::pending::<()>().await;
    }
    let status = operator.stop().await?;
    ensure!(status.success(), "rampart ended with {status}");
    Ok(())
}

async fn steps(plane: &ControlPlane, client: &Client) -> Result<()> {
    stories::network::tell(client, stories::network::IMAGE).await?;
    stories::hardening::restricted(client).await?;
    stories::hardening::platform(client).await?;
    stories::hardening::scanned(client).await?;
    title("The verifier: what proxies ask whether a key is good, as a process");
    let verifier = Verifier::start(plane, plane.server(), "rampart-verifier-0").await?;
    checked("it is ready, and may read digests and nothing else");
    stories::keys::tell(client, async |key| verifier.ask(key).await).await?;
    stories::retention::tell(client).await?;
    stories::holds::tell(client).await
}
