//! The node itself.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{Env, Tests, matrix, reach, world::World};
use rampart_e2e::fixtures;

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("started::without_policies_every_dial_is_answered", without_policies_every_dial_is_answered);
    tests.add("started::a_default_deny_is_enforced", a_default_deny_is_enforced);
}

/// Without this, a dial that fails would prove nothing.
async fn without_policies_every_dial_is_answered(env: Env) -> Result<()> {
    let world = env.world().await?;
    let expected = reach::expected(world, &[]).await?;
    ensure!(expected.values().all(|allowed| *allowed));
    let compared = matrix::agrees(world, &expected).await?;
    println!("{} dials, all answered", compared.dials);
    Ok(())
}

/// Without this, a dial that succeeds would prove nothing.
async fn a_default_deny_is_enforced(env: Env) -> Result<()> {
    let world: &World = env.world().await?;
    let deny = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": "x"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    });
    fixtures::apply(&world.client(), &deny).await?;
    let open = reach::expected(world, &[]).await?;
    let denied: BTreeMap<_, _> = open
        .into_keys()
        .map(|cell| {
            let allowed = !cell.to.starts_with("x/") || cell.to == cell.from;
            (cell, allowed)
        })
        .collect();
    let compared = matrix::agrees(world, &denied).await?;
    println!("{} of {} dials denied", compared.denied, compared.dials);
    Ok(())
}
