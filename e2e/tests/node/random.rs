//! Random intents.

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::seed;
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use crate::{Env, Tests, intents, matrix, programmed, reach, world::World};

/// Intents that are in force at the same time, so that they meet: in one namespace, or at both ends of a connection.
const AT_ONCE: usize = 3;
const ROUNDS: usize = 20;

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("random::every_dial_agrees_with_what_was_said_beforehand", every_dial_agrees);
}

async fn every_dial_agrees(env: Env) -> Result<()> {
    let world = env.world().await?;
    let mut rng = StdRng::seed_from_u64(seed());
    let (mut dials, mut denied) = (0, 0);
    let mut before: Vec<Value> = vec![];
    for round in 0..ROUNDS {
        let policies: Vec<Value> =
            (0..AT_ONCE).map(|nth| intents::random(&mut rng, &format!("random-{nth}"))).collect();
        let compared = one(world, &before, &policies).await;
        let compared = compared.with_context(|| format!("round {round}: {}", Value::from(policies.clone())))?;
        dials += compared.dials;
        denied += compared.denied;
        before = policies;
    }
    println!("{} intents in {ROUNDS} rounds, {dials} dials, {denied} of them denied: no difference", ROUNDS * AT_ONCE);
    ensure!(
        dials / 20 < denied && denied < dials - dials / 20,
        "hardly anything is denied, or hardly anything allowed"
    );
    Ok(())
}

/// Replaces the policies of the last round: those of the same name and namespace are updated in place.
async fn one(world: &World, before: &[Value], policies: &[Value]) -> Result<matrix::Compared> {
    let expected = reach::expected(world, policies).await?;
    let place = |policy: &Value| (policy["metadata"]["namespace"].clone(), policy["metadata"]["name"].clone());
    for stale in before.iter().filter(|it| !policies.iter().any(|new| place(new) == place(it))) {
        let (namespace, name) = place(stale);
        let (namespace, name) = (namespace.as_str().unwrap_or_default(), name.as_str().unwrap_or_default());
        programmed::disable(&world.client(), namespace, name).await?;
    }
    programmed::apply(&world.client(), policies).await?;
    matrix::agrees(world, &expected).await
}
