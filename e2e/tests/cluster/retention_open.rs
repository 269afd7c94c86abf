//! A plan above the caps while it is open: what the command line says of it.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::{fixtures, operator, stories};
use serde_json::{Value, json};

use crate::{
    Env, Tests,
    retention::{export, reason, set_up},
    retention_reports::{plan_of, retention},
};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("retention::the_command_line_knows_what_an_approved_plan_leaves_out", approved_plan_is_known);
}

async fn approved_plan_is_known(env: Env) -> Result<()> {
    let (client, namespace) = env.namespace().await?;
    let kubeconfig = env.shared().await?.plane.admin_kubeconfig()?;
    let explained = |name: &str| -> Result<Value> {
        let mut command = Command::new(operator::binary()?);
        command.args(["explain", &format!("cm/{name}"), "-n", &namespace, "-o", "json", "--kubeconfig"]);
        let output = command.arg(&kubeconfig).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_slice(&output.stdout)?;
        told["retention"].get(0).cloned().with_context(|| format!("no policy is about it: {told}"))
    };
    set_up(&client, &namespace, 21, 30).await?;
    let mut policy = stories::retention_policy(&namespace, "Enforce");
    // Approved, it waits for its turn, in some weeks.
    let later = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(24 * 30))?;
    let later = later.to_zoned(jiff::tz::TimeZone::UTC);
    policy["spec"]["schedule"] = json!(format!("0 0 {} {} *", later.day(), later.month()));
    fixtures::apply(&client, &policy).await?;
    let plan = plan_of(&client, &namespace, 21).await?;
    let name = plan.metadata.name.clone().context("a name")?;
    // The status names it.
    reason(&client, &namespace, "BlastRadiusExceeded", "BlastRadiusExceeded").await?;
    let (_, out, _) = retention(&kubeconfig, &["plan", "exports", "-n", &namespace])?;
    ensure!(out.contains("nothing is deleted until the set is approved") && out.contains(&name), "{out}");

    let (code, _, err) = retention(&kubeconfig, &["approve", "exports", "-n", &namespace, "--yes"])?;
    ensure!(code == Some(0), "{err}");
    fixtures::apply(&client, &export(&namespace, "late", |_| {})).await?;
    let (code, out, err) = retention(&kubeconfig, &["plan", "exports", "-n", &namespace])?;
    let said = format!("{name} is approved: 21 of these go once the grace period of all of them is over; 1 wait");
    ensure!(code == Some(1) && out.contains(&said), "{out}{err}");
    let late = out.lines().find(|line| line.contains(" late ")).context("it is not told of")?;
    ensure!(late.contains("was approved without it") && out.matches("without it").count() == 1, "{out}");

    let waits = json!(format!("RetentionReport {name} was approved without it; it waits for the next plan"));
    let (late, old) = (explained("late")?, explained("old-0")?);
    ensure!(late["heldBy"].as_array().is_some_and(|held| held.contains(&waits)), "{late}");
    ensure!(!old["heldBy"].as_array().is_some_and(|held| held.contains(&waits)), "{old}");
    Ok(())
}
