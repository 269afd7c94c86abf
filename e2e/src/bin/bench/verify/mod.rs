//! The verifier: its core beside one digest and one look-up, and its servers beside ones that answer a constant.

mod envoy;
mod load;
mod servers;

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use jiff::Timestamp;
use rampart::{
    api::KeyRecordSpec,
    keys::{
        format::ApiKeyText,
        verify::{Credentials, Request, Route, Verdict, Verifier},
    },
};
use rampart_e2e::cores;
use serde_json::json;
use sha2::{Digest as _, Sha256};

pub(super) use self::{
    envoy::through_envoy,
    servers::{CONSTANT, constant},
};
use super::{
    at_least, figure,
    load::{CONCURRENT, Round, closed, open, tell_stalls},
    median, percentile,
    process::memory,
};

const KEYS: u32 = 100_000;
const MANY: u32 = 1_000_000;
const PASSES: usize = 9;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);

pub(super) fn bench() -> Result<bool> {
    let mut good = core()?;
    good &= loading()?;
    Ok(good & served()?)
}

fn id(nth: u32) -> String {
    format!("{nth:08}")
}

fn key(nth: u32) -> ApiKeyText {
    let mut entropy = [0; 32];
    entropy[..4].copy_from_slice(&nth.to_be_bytes());
    ApiKeyText::new("acme_live", &id(nth), &entropy)
}

/// Each key has an owner of its own; roles are few.
fn record(nth: u32) -> serde_json::Value {
    json!({
        "apiKey": {"namespace": format!("customer-{nth}"), "name": "orders", "version": 1},
        "digest": key(nth).digest(), "owner": {"customerId": format!("customer-{nth}")}, "role": "Editor",
        "verbs": ["Read", "Write"], "audiences": ["orders-api"], "state": "Active",
        "limits": {"perSecond": 1_000_000, "burst": 10_000_000, "perMinute": 60_000_000, "perHour": 900_000_000,
                   "perDay": 900_000_000},
        "expiresAt": "2100-01-01T00:00:00Z",
    })
}

/// Writes so many records into a file, as `rampart verifier --index` reads it. How long it is, in bytes.
fn records(path: &Path, keys: u32) -> Result<usize> {
    let mut text = String::new();
    for nth in 0..keys {
        let record = json!({"apiVersion": "rampart.dev/v1alpha1", "kind": "KeyRecord", "metadata": {"name": id(nth)},
                            "spec": record(nth)});
        writeln!(text, "{record}")?;
    }
    fs::write(path, &text)?;
    Ok(text.len())
}

fn filled(keys: u32) -> Result<Verifier> {
    let verifier = Verifier::new(vec![]);
    let mut changes = verifier.changes();
    for nth in 0..keys {
        let spec: KeyRecordSpec = serde_json::from_value(record(nth))?;
        changes.apply(&id(nth), &spec)?;
    }
    changes.commit();
    Ok(verifier)
}

/// One decision beside the least that any verifier does: a digest of the key, and a look-up of it.
fn core() -> Result<bool> {
    let before = memory(std::process::id())?;
    let verifier = filled(KEYS)?;
    let keys: Vec<String> = (0..KEYS).map(|nth| format!("Bearer {}", key(nth * 7919 % KEYS).expose())).collect();
    let texts = keys.iter().map(String::len).sum::<usize>();
    let now = Timestamp::now();
    let decide = |key: &str| {
        let mut credentials = Credentials::default();
        credentials.header("authorization", key.as_bytes());
        let route = Route { audience: Some("orders-api"), permission: None, customer: None };
        matches!(
            verifier.decide(&Request { credentials, method: "GET", path: "/orders", route, source: None }, now).0,
            Verdict::Admitted(_)
        )
    };
    // The first call of a key makes room for its rates: that is part of what a key costs.
    ensure!(keys.iter().all(|key| decide(key)), "a good key was refused");
    let resident = memory(std::process::id())? - before;
    #[allow(clippy::cast_precision_loss)]
    let bytes = (resident * 1_048_576.0 - texts as f64 - 24.0 * f64::from(KEYS)) / f64::from(KEYS);
    let plain: HashMap<[u8; 32], u32> = (0..KEYS).map(|nth| (Sha256::digest(key(nth).expose()).into(), nth)).collect();
    let least = |key: &str| {
        let digest: [u8; 32] = Sha256::digest(&key.as_bytes()["Bearer ".len()..]).into();
        plain.contains_key(&digest)
    };
    let time = |what: &dyn Fn(&str) -> bool| {
        let began = Instant::now();
        for key in &keys {
            black_box(what(black_box(key)));
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(KEYS)
    };
    let passes: Vec<[f64; 2]> = (0..PASSES).map(|_| [time(&least), time(&decide)]).collect();
    let [plain, ours] = [0, 1].map(|which| median(passes.iter().map(|pass| pass[which])));
    println!("{KEYS} keys: a decision takes {ours:.0} ns, a digest and a look-up {plain:.0} ns");
    let mut good = figure("core verify against a digest and a look-up", ours / plain, 1.5, "times");
    good &= figure("memory a key, every key used", bytes, 300.0, "bytes");
    Ok(good)
}

/// A million keys from a file, as `rampart verifier --index` reads it, until the process is ready.
fn loading() -> Result<bool> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("records.jsonl");
    println!("{MANY} keys in a file of {} MB", records(&path, MANY)? / 1_000_000);
    let mut took = vec![];
    for _ in 0..3 {
        let began = Instant::now();
        let server = servers::Server::verifier(&path)?;
        server.answers(began + Duration::from_mins(1))?;
        took.push(began.elapsed().as_secs_f64());
    }
    Ok(figure("a million keys, process start to answers", median(took), 3.0, "s"))
}

/// The servers, each on one core, with the load on another, beside ones that answer a constant.
fn served() -> Result<bool> {
    let cores = cores::allowed()?;
    let [server, .., load] = cores.as_slice() else { bail!("one core for the server and one for the load") };
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("records.jsonl");
    records(&path, KEYS)?;
    let verifier = cores::on(*server, || servers::Server::verifier(&path))?;
    verifier.answers(Instant::now() + Duration::from_mins(1))?;
    let null = cores::on(*server, servers::Server::constant)?;
    null.answers(Instant::now() + Duration::from_mins(1))?;
    println!("one core for the server, one for the load, {CONCURRENT} requests under way, {ROUNDS} rounds in turn");
    tell_stalls([*server, *load])?;
    let keys: Vec<String> = (0..KEYS).step_by(100).map(|nth| key(nth).expose().to_owned()).collect();
    let mut good = true;
    for protocol in [load::Protocol::Grpc, load::Protocol::Http] {
        let targets = [&null, &verifier].map(|server| load::Target::new(protocol, server, &keys));
        let rounds: Vec<[Round; 2]> = (0..ROUNDS)
            .map(|_| {
                let [null, ours] = targets.each_ref().map(|target| cores::on(*load, || closed(target, ROUND)));
                Ok([null?, ours?])
            })
            .collect::<Result<_>>()?;
        let of = |which: usize, what: fn(&Round) -> f64| median(rounds.iter().map(|round| what(&round[which])));
        for (which, name) in ["constant", "verifier"].into_iter().enumerate() {
            println!(
                "  {protocol}, {name}: {:.0} requests a second, {:.0} % of its core busy, {:.1} us of it each",
                of(which, |round| round.rate),
                100.0 * of(which, |round| round.busy),
                of(which, Round::cost)
            );
        }
        let ratio = median(rounds.iter().map(|[null, ours]| 100.0 * ours.rate / null.rate));
        let cost = median(rounds.iter().map(|[null, ours]| 100.0 * null.cost() / ours.cost()));
        println!("  by the time of the core: {cost:.0} %");
        good &= at_least(
            &format!("verifier over {protocol} against a constant"),
            ratio,
            85.0,
            "% of its requests a second",
        );
        let rate = of(1, |round| round.rate) / 2.0;
        let p99 = |target| {
            let took = (0..3).map(|seed| cores::on(*load, || open(target, rate, ROUND, seed)));
            let took = took.collect::<Result<Vec<_>>>()?;
            anyhow::Ok(median(took.iter().map(|took| 1000.0 * percentile(took.iter().copied(), 0.99))))
        };
        let [constant, p99] = [p99(&targets[0])?, p99(&targets[1])?];
        println!("  {protocol}, constant, at the same rate: p99 {constant:.2} ms");
        good &= figure(&format!("verifier over {protocol} at half of its top, p99"), p99, 1.0, "ms");
    }
    Ok(good)
}
