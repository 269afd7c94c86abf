//! The sample intent.

use anyhow::{Result, ensure};
use rampart_e2e::{fixtures, stories};
use serde_json::Value;

use crate::{Env, Tests, matrix, programmed, reach};

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("sample::every_dial_agrees_with_what_was_said_beforehand", every_dial_agrees);
}

/// Alone, and beside the default deny of its servers, where Rampart opens their side.
async fn every_dial_agrees(env: Env) -> Result<()> {
    let world = env.world().await?;
    let intent = stories::sample_policy();
    let denials: Vec<Value> =
        stories::sample_workloads().into_iter().filter(|it| it["kind"] == "NetworkPolicy").collect();
    let steps = [vec![intent.clone()], [denials, vec![intent.clone()]].concat()];
    for (policies, halves) in steps.iter().zip([0, 2]) {
        let expected = reach::expected(world, policies).await?;
        let (others, intents): (Vec<Value>, Vec<Value>) =
            policies.iter().cloned().partition(|it| it["kind"] == "NetworkPolicy");
        for other in &others {
            fixtures::apply(&world.client(), other).await?;
        }
        programmed::apply(&world.client(), &intents).await?;
        let compared = matrix::agrees(world, &expected).await?;
        println!("{} dials, {} of them denied, {halves} halves: no difference", compared.dials, compared.denied);
        ensure!(compared.denied > 0, "nothing was denied");
    }
    Ok(())
}
