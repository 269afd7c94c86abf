//! What the verifier adds to a call through a real Envoy, beside a server that answers a constant.

use std::time::Instant;

use anyhow::{Result, ensure};
use rampart_e2e::{Envoy, wait};

use super::{super::median, KEYS, key, records, servers::Server};

/// Calls in a row through each Envoy, and how often they take turns.
const CALLS: u32 = 200;
const TURNS: u32 = 25;

/// Needs the Envoy that `RAMPART_ENVOY` names.
pub(crate) async fn through_envoy() -> Result<()> {
    let Some(binary) = Envoy::binary() else {
        println!("skipped: through Envoy, as RAMPART_ENVOY names none (e2e/judges/verifier/envoy fetches one)");
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("records.jsonl");
    records(&path, KEYS)?;
    let servers = [Server::constant()?, Server::verifier(&path)?];
    let mut envoys = vec![];
    for (server, name) in servers.iter().zip(["constant", "verifier"]) {
        server.answers(Instant::now() + wait::SOON)?;
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir)?;
        envoys.push(Envoy::start(&binary, &dir, &[server.grpc.number()]).await?);
    }
    let mut took = [vec![], vec![]];
    for call in 0..TURNS * CALLS {
        let (key, turn) = (key(call * 7919 % KEYS), usize::from(call / CALLS % 2 == 1));
        let began = Instant::now();
        let status = envoys[turn].ask(key.expose()).await?;
        took[turn].push(1e6 * began.elapsed().as_secs_f64());
        ensure!(status == 200, "a good key was refused: {status}");
    }
    let [constant, verifier] = took.map(median);
    println!("through Envoy, one call after the other, p50: {verifier:.0} us; with a constant {constant:.0} us");
    println!("added p50 through Envoy: {:.0} us", verifier - constant);
    Ok(())
}
