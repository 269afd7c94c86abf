//! What a newcomer does, step by step, with the tools that a newcomer has; each step is timed, and told as the table of
//! docs/install.md.

use std::{
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Client, api::ListParams};
use rampart::api::SecurityPolicy;
use rampart_e2e::{binaries, fixtures, stories, wait};

/// The steps, and how long each took.
#[derive(Default)]
pub(crate) struct Journey(Vec<(&'static str, Duration)>);

impl Journey {
    pub(crate) fn took(&mut self, step: &'static str, began: Instant) {
        self.0.push((step, began.elapsed()));
    }

    pub(crate) fn tell(&self) {
        println!("| step | took |\n|---|---|");
        for (step, took) in &self.0 {
            println!("| {step} | {:.1} s |", took.as_secs_f64());
        }
    }

    /// A sample, the manual, and a verdict.
    pub(crate) async fn with_kubectl(&mut self, client: &Client, kubeconfig: &Path) -> Result<()> {
        let program = binaries::ensure_kubectl()?;
        let plugin = tempfile::tempdir()?;
        symlink(fixtures::repository().join("target/image/rampart"), plugin.path().join("kubectl-rampart"))?;
        let path = format!("{}:{}", plugin.path().display(), std::env::var("PATH").unwrap_or_default());
        let kubectl = |words: &str| -> Result<String> {
            let mut command = Command::new(&program);
            command.args(words.split(' ')).current_dir(fixtures::repository());
            let done = command.env("KUBECONFIG", kubeconfig).env("PATH", &path).output()?;
            let (told, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
            ensure!(done.status.success(), "kubectl {words}: {told}{error}");
            Ok(told.into_owned())
        };
        let began = Instant::now();
        kubectl("apply -f manifests/samples/00-namespace.yaml -f manifests/samples/securitypolicy.yaml")?;
        stories::ready::<SecurityPolicy>(client, stories::WEB, "web").await?;
        self.took("`kubectl apply` of a sample, until it is Ready", began);

        let began = Instant::now();
        let told = kubectl("explain rsp.spec.hardening")?;
        ensure!(told.contains("podSecurity"), "{told}");
        self.took("`kubectl explain rsp.spec.hardening`", began);

        let began = Instant::now();
        let told = kubectl("rampart check manifests/install.yaml")?;
        let verdict = told.lines().last().context("no verdict")?;
        ensure!(verdict.contains(", 0 denied"), "{told}");
        self.took("`kubectl rampart check manifests/install.yaml`", began);

        kubectl("delete -f manifests/samples/securitypolicy.yaml")?;
        let rendered: Api<NetworkPolicy> = Api::namespaced(client.clone(), stories::WEB);
        wait::until("what the sample became to go", wait::SOON, || async {
            let left = rendered.list(&ListParams::default()).await?.items.len();
            Ok(ensure!(left == 0, "{left} NetworkPolicies are left"))
        })
        .await
    }
}
