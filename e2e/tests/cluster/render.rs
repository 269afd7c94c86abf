//! `rampart render`: what it prints is what the operator applies, or what an API server loads by itself.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::{Api, ResourceExt as _, api::ListParams};
use rampart_e2e::{ControlPlane, Operator, Options, fixtures, operator, stories, wait};
use serde_json::{Value, json};

use crate::{Env, Tests, admission::post, floor::path};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("render::prints_what_the_operator_applies", prints_what_is_applied);
    tests.add("render::static_policies_hold_without_rampart_and_without_objects", static_policies_hold);
}

fn resources() -> [Value; 2] {
    let wide = json!({
        "apiVersion": "rampart.dev/v1alpha1", "kind": "ClusterSecurityPolicy", "metadata": {"name": "platform"},
        "spec": {"namespaceSelector": {"matchLabels": {"tier": "web"}},
                 "hardening": {"mode": "Enforce", "podSecurity": {"level": "baseline"}}},
    });
    [stories::hardening_policy("shop", "Enforce"), wide]
}

fn render(flags: &[&str]) -> Result<String> {
    let file = tempfile::NamedTempFile::with_suffix(".json")?;
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": resources()}).to_string())?;
    let output = Command::new(operator::binary()?).arg("render").args(flags).arg(file.path()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

async fn prints_what_is_applied(_: Env) -> Result<()> {
    let plane = ControlPlane::start(&Options { controllers: false, ..Options::default() }).await?;
    let client = plane.client();
    let _operator = Operator::install(&plane, &[]).await?;
    fixtures::namespace(&client, "shop", json!({})).await?;
    for resource in resources() {
        fixtures::apply(&client, &resource).await?;
    }
    let rendered = fixtures::parse(&render(&[])?)?;
    let wanted: Vec<ValidatingAdmissionPolicy> = rendered
        .into_iter()
        .filter(|object| object["kind"] == "ValidatingAdmissionPolicy")
        .map(serde_json::from_value)
        .collect::<Result<_, _>>()?;
    let api: Api<ValidatingAdmissionPolicy> = Api::all(client);
    wait::until("the operator to apply what was rendered", wait::SOON, || async {
        let live = api.list(&ListParams::default().labels("rampart.dev/part=floor")).await?.items;
        let texts = |all: &[ValidatingAdmissionPolicy]| -> BTreeSet<(String, String)> {
            let validations =
                |it: &ValidatingAdmissionPolicy| format!("{:?}", it.spec.as_ref().map(|it| &it.variables));
            all.iter().map(|it| (it.name_any(), validations(it))).collect()
        };
        ensure!(wanted.len() == 2 && texts(&live) == texts(&wanted), "{} live, {} rendered", live.len(), wanted.len());
        Ok(())
    })
    .await
}

async fn static_policies_hold(_: Env) -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("rampart.yaml"), render(&["--static"])?)?;
    // The oldest supported version knows no such files.
    let kubernetes = Options { static_admission: Some(dir.path().into()), ..Options::default() }.newest();
    let plane = ControlPlane::start(&kubernetes).await?;
    let client = plane.client();
    for (name, labels) in [("shop", json!({})), ("web", json!({"tier": "web"})), ("free", json!({}))] {
        fixtures::namespace(&client, name, labels).await?;
    }
    let mut pod = serde_json::to_value(stories::root_pod()?)?;
    pod["spec"]["hostNetwork"] = json!(true);
    for (namespace, wanted) in [("shop", Some("restricted:latest")), ("web", Some("baseline:latest")), ("free", None)] {
        wait::until(&format!("an answer in {namespace}"), wait::SOON, || async {
            let (code, body, _) = post(&client, &path(namespace), &pod).await?;
            let said: Value = serde_json::from_str(&body)?;
            let message = said["message"].as_str().unwrap_or_default();
            match wanted {
                Some(standard) => {
                    let words = format!(".static.k8s.io' denied request: violates PodSecurity \"{standard}\": ");
                    ensure!(code == 403 && message.contains(&words), "{code}: {message}");
                }
                None => ensure!(code == 201, "{code}: {message}"),
            }
            Ok(())
        })
        .await?;
    }
    let api: Api<ValidatingAdmissionPolicy> = Api::all(client);
    let objects = api.list(&ListParams::default()).await.context("listing admission policies")?.items;
    ensure!(objects.iter().all(|it| !it.name_any().starts_with("rampart")), "they are objects, which can be deleted");
    Ok(())
}
