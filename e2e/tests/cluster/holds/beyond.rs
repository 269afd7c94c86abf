//! Holds that an API server loads from files, and an operator whose clock is wrong.

use std::process::Command;

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use kube::api::DeleteParams;
use rampart_e2e::{ControlPlane, Operator, Options, faketime, fixtures, operator, wait};
use serde_json::json;

use super::{held, hold, kept, map, merge, refused};
use crate::{Env, Tests};

pub(super) fn tests(tests: &mut Tests) {
    tests.add("holds::static_holds_need_no_object_that_can_be_deleted", static_holds);
    tests.add("holds::a_clock_that_is_ahead_ends_no_hold", ahead);
}

async fn static_holds(_: Env) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("holds.json");
    std::fs::write(&file, hold("shop", "case-17", &json!({})).to_string())?;
    let output = Command::new(operator::binary()?).args(["render", "--static"]).arg(&file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(&file)?;
    std::fs::write(dir.path().join("holds.yaml"), output.stdout)?;
    // The oldest supported version knows no such files.
    let kubernetes = Options { static_admission: Some(dir.path().into()), controllers: false, ..Options::default() };
    let plane = ControlPlane::start(&kubernetes.newest()).await?;
    let client = plane.client();
    fixtures::namespace(&client, "shop", json!({})).await?;
    for (name, case) in [("held", "17"), ("free", "18")] {
        fixtures::apply(&client, &map("shop", name, case)).await?;
    }
    let maps = fixtures::api_of(&client, &map("shop", "held", "17")).await?;
    let words = "static.k8s.io' denied request: held by LegalHold shop/case-17: ";
    refused("delete", maps.delete("held", &DeleteParams::default()).await, words)?;
    refused("empty", merge(&maps, "held", json!({"data": null})).await, words)?;
    let namespaces = fixtures::api_of(&client, &json!({"apiVersion": "v1", "kind": "Namespace"})).await?;
    let of_namespace = "the namespace has LegalHold shop/case-17";
    refused("delete the namespace", namespaces.delete("shop", &DeleteParams::default()).await, of_namespace)?;
    maps.delete("free", &DeleteParams::default()).await?;
    Ok(())
}

async fn ahead(_: Env) -> Result<()> {
    let Some(library) = faketime::library() else { return Ok(()) };
    let plane = ControlPlane::start(&Options::default()).await?;
    let client = plane.client();
    let operator = Operator::install(&plane, &[]).await?;
    fixtures::namespace(&client, "shop", json!({})).await?;
    fixtures::apply(&client, &map("shop", "held", "17")).await?;
    let until = (Timestamp::now() + SignedDuration::from_hours(24)).to_string();
    let holds = held(&client, &hold("shop", "case-17", &json!({"indefinite": null, "until": until}))).await?;

    let ports = operator.kill()?;
    let kubeconfig = operator::kubeconfig(&plane, plane.server()).await?;
    let clock = library.clock(plane.dir(), "+400d")?;
    let operator = Operator::start_with("run", plane.dir(), &kubeconfig, ports, &[], &clock.environment())?;
    operator.ready().await?;
    wait::until("the operator to tell that its clock is wrong", wait::SOON, || async {
        ensure!(operator.log()?.contains("it has ended by our clock alone"), "it does not");
        Ok(())
    })
    .await?;
    let maps = fixtures::api_of(&client, &map("shop", "held", "17")).await?;
    kept(&maps, "held").await?;
    refused("delete", maps.delete("held", &DeleteParams::default()).await, "held by LegalHold shop/case-17")?;
    let state = holds.get("case-17").await?.data["status"]["state"].clone();
    ensure!(state == "Active", "it is {state}");
    Ok(())
}
