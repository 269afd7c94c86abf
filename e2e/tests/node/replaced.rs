//! What clients see that dial all the time while a policy is replaced: by Rampart, and by hand.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::Pod,
    networking::v1::{NetworkPolicy, NetworkPolicySpec},
};
use kube::{Api, ResourceExt as _, api::PostParams};
use rampart_e2e::{
    fixtures,
    node::agents::{Agent, Dial, Dialing},
    stories, wait,
};
use serde_json::{Value, json};

use crate::{
    Env, Tests, programmed,
    world::{World, name_of},
};

/// How often each flow is dialed, which is how exactly a gap is known.
const EVERY: Duration = Duration::from_millis(5);
/// Shorter than the second after which a connection is tried again by itself.
const TIMEOUT: Duration = Duration::from_millis(900);
/// Replacements that are measured, there and back; and how many are tried, where the machine is too busy for some.
const MEASURED: usize = 12;
const TRIED: usize = 60;
/// Rounds that must all tell of a fault: what a busy machine does once, it hardly does again.
const ROUNDS: usize = 2;

pub(crate) fn tests(tests: &mut Tests) {
    tests.add("replaced::by_rampart_as_smoothly_as_by_hand", by_rampart_as_smoothly_as_by_hand);
}

/// How a flow fares when form A becomes form B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fares {
    /// Allowed by both.
    Kept,
    /// Denied by both.
    Closed,
    OnlyBefore,
    OnlyAfter,
    /// No policy is about it: when it fails, the machine was too busy to measure anything.
    Untouched,
}

/// From, to, port, protocol, and how it fares from A to B.
const FLOWS: [(&str, &str, u16, &str, Fares); 12] = [
    ("x.p0", "x.p0", 80, "TCP", Fares::Untouched),
    ("x.p0", "x.p0", 53, "UDP", Fares::Untouched),
    ("x.p1", "y.p2", 80, "TCP", Fares::Untouched),
    ("x.p1", "y.p2", 53, "UDP", Fares::Untouched),
    ("x.p1", "x.p0", 80, "TCP", Fares::Kept),
    ("x.p1", "x.p0", 53, "UDP", Fares::Kept),
    ("x.p0", "198.18.0.10", 80, "TCP", Fares::Kept),
    ("y.p1", "x.p0", 80, "TCP", Fares::Closed),
    ("z.p1", "x.p0", 53, "UDP", Fares::Closed),
    ("x.p0", "198.18.0.10", 443, "TCP", Fares::Closed),
    ("y.p0", "x.p0", 443, "TCP", Fares::OnlyBefore),
    ("z.p0", "x.p0", 443, "TCP", Fares::OnlyAfter),
];

/// Forms that say what both allow in different words, so that every rule of the kernel changes.
fn forms() -> [Value; 2] {
    let policy = |ingress: Value, egress: Value| {
        json!({
            "apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
            "metadata": {"name": "replaced", "namespace": "x"},
            "spec": {"network": {
                "mode": "Enforce", "podSelector": {"matchLabels": {"a": "one"}}, "isolate": ["Ingress", "Egress"],
                "allowNoDns": true, "ingress": ingress, "egress": egress,
            }},
        })
    };
    let all_of = |namespace: &str| json!({"pods": {"selector": {}, "namespaces": [namespace]}});
    let near = json!({"pods": {"selector": {"matchLabels": {"a": "two", "b": "one"}}}});
    [
        policy(
            json!([
                {"name": "near", "peers": [near], "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]},
                {"name": "far", "peers": [all_of("y")], "ports": [{"port": 443}]},
            ]),
            json!([{"name": "out", "peers": [{"external": {"cidrs": ["198.18.0.0/15"]}}], "ports": [{"port": 80}]}]),
        ),
        policy(
            json!([
                {"name": "near", "peers": [{"entity": "SameNamespace"}],
                 "ports": [{"port": 80, "endPort": 90}, {"port": 50, "endPort": 60, "protocol": "UDP"}]},
                {"name": "far", "peers": [all_of("z")], "ports": [{"port": 443}]},
            ]),
            json!([{"name": "out", "peers": [{"external": {"cidrs": ["198.18.0.10/32"]}}],
                    "ports": [{"port": 79, "endPort": 81}]}]),
        ),
    ]
}

async fn by_rampart_as_smoothly_as_by_hand(env: Env) -> Result<()> {
    let world = env.world().await?;
    let [before, after] = forms();
    programmed::apply(&world.client(), std::slice::from_ref(&before)).await?;
    let mut longer = vec![];
    while longer.len() < ROUNDS {
        let (by_rampart, contents) = by_rampart(world, &before, &after).await?;
        let ports = world.operator.lock().await.take().context("an operator")?.kill()?;
        let by_hand = by_hand(world, &contents).await;
        world.restart(ports).await?;
        let by_hand = by_hand?;
        println!("by Rampart: {by_rampart}");
        println!("by hand:    {by_hand}");
        // No busy machine opens what is denied.
        ensure!(by_rampart.opened == 0, "what is denied before and after was open {} times", by_rampart.opened);
        // What is shorter than the time between two dials can't be told apart.
        let resolution = 2 * i64::try_from(EVERY.as_micros())?;
        if by_rampart.longest <= by_hand.longest.max(resolution) {
            return Ok(());
        }
        longer.push((by_rampart.longest, by_hand.longest));
    }
    bail!(
        "a flow that is allowed before and after failed for longer than by hand, each time; in microseconds: {longer:?}"
    )
}

/// What clients saw, and the contents that took turns.
async fn by_rampart(world: &World, before: &Value, after: &Value) -> Result<(Seen, [NetworkPolicySpec; 2])> {
    let client = world.client();
    let mut seen = Seen::default();
    loop {
        let mut contents = vec![];
        for (form, is_back) in [(after, false), (before, true)] {
            let written = async { fixtures::apply(&client, form).await.map(drop) };
            seen.add(&watched(world, is_back, written).await?);
            contents.push(stories::rendered(&client, "x", "replaced").await?.spec.context("a spec")?);
        }
        if !seen.wants_more()? {
            let two = contents.try_into();
            return Ok((seen, two.map_err(|_| anyhow!("not two contents"))?));
        }
    }
}

/// The same contents on the same object, put there while Rampart is away.
async fn by_hand(world: &World, contents: &[NetworkPolicySpec]) -> Result<Seen> {
    let api: Api<NetworkPolicy> = Api::namespaced(world.client(), "x");
    let name = stories::rendered(&world.client(), "x", "replaced").await?.name_any();
    let mut seen = Seen::default();
    while seen.wants_more()? {
        for (content, is_back) in contents.iter().zip([false, true]) {
            let mut object = api.get(&name).await?;
            object.spec = Some(content.clone());
            let written = async { Ok(api.replace(&name, &PostParams::default(), &object).await.map(drop)?) };
            seen.add(&watched(world, is_back, written).await?);
        }
    }
    Ok(seen)
}

/// What clients saw, over several replacements; times in microseconds.
#[derive(Debug, Default)]
struct Seen {
    tried: usize,
    attempts: usize,
    failed: usize,
    longest: i64,
    opened: usize,
    /// From the write to the first dial that only the new form allows.
    until_open: Vec<i64>,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut times = self.until_open.clone();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        write!(
            f,
            "{} replacements, {} dials of what is allowed before and after, {} failed, for {} ms at the longest; \
             {} opened that are denied before and after; in force after {} ms (median), {} ms (longest)",
            times.len(),
            self.attempts,
            self.failed,
            self.longest / 1000,
            self.opened,
            median / 1000,
            times.last().copied().unwrap_or_default() / 1000
        )
    }
}

impl Seen {
    fn wants_more(&self) -> Result<bool> {
        ensure!(self.tried < TRIED, "the machine is too busy to measure: {} of {TRIED}", self.until_open.len());
        Ok(self.until_open.len() < MEASURED)
    }

    fn add(&mut self, watched: &Watched) {
        self.tried += 1;
        if watched.disturbed {
            return;
        }
        self.attempts += watched.attempts;
        self.failed += watched.failed;
        self.longest = self.longest.max(watched.longest);
        self.opened += watched.opened;
        self.until_open.push(watched.until_open);
    }
}

#[derive(Debug, Default)]
struct Watched {
    disturbed: bool,
    attempts: usize,
    failed: usize,
    longest: i64,
    opened: usize,
    until_open: i64,
}

/// Dials every flow all the time, from before a write until the kernel does what it says.
async fn watched(world: &World, is_back: bool, write: impl Future<Output = Result<()>>) -> Result<Watched> {
    let clients = clients(world, is_back)?;
    settled(&clients, false).await?;
    let dialing = clients.iter().map(|client| client.agent.keep_dialing(&client.dials, EVERY, TIMEOUT));
    let dialing = try_join_all(dialing).await?;
    let began = Timestamp::now().as_microsecond();
    write.await?;
    settled(&clients, true).await?;
    let stopped = try_join_all(dialing.into_iter().map(Dialing::stop)).await?;
    let mut watched = Watched::default();
    let flows = clients.iter().zip(stopped).flat_map(|(client, tried)| client.fares.iter().zip(tried));
    for (fares, tried) in flows {
        let open = tried.iter().map(|it| Ok((it.at, it.is_open()?))).collect::<Result<Vec<_>>>()?;
        match fares {
            Fares::Kept => {
                watched.attempts += open.len();
                watched.failed += open.iter().filter(|(_, open)| !open).count();
                watched.longest = watched.longest.max(longest_failure(&open));
            }
            Fares::Closed => watched.opened += open.iter().filter(|(_, open)| *open).count(),
            Fares::OnlyAfter => {
                let first = open.iter().find(|(at, open)| *open && *at >= began);
                watched.until_open = first.map(|(at, _)| at - began).context("it never opened")?;
            }
            Fares::Untouched => watched.disturbed |= open.iter().any(|(_, open)| !open),
            Fares::OnlyBefore => {}
        }
    }
    ensure!(watched.attempts > 0, "nobody dialed");
    Ok(watched)
}

/// From the first of some dials that fail to the next that succeeds.
fn longest_failure(attempts: &[(i64, bool)]) -> i64 {
    let (mut longest, mut since) = (0, None);
    for (at, open) in attempts {
        match (open, since) {
            (false, None) => since = Some(*at),
            (true, Some(first)) => {
                longest = longest.max(at - first);
                since = None;
            }
            _ => {}
        }
    }
    // One that fails to the end.
    let last = attempts.last().map_or(0, |(at, _)| *at);
    since.map_or(longest, |first| longest.max(last - first + 1))
}

/// An agent, with its flows.
struct Client {
    agent: Agent,
    dials: Vec<Dial>,
    fares: Vec<Fares>,
}

fn clients(world: &World, is_back: bool) -> Result<Vec<Client>> {
    let pod = |name: &str| world.pods.iter().find(|pod| name_of(pod) == name);
    let address = |name: &str| pod(name).and_then(|pod: &Pod| pod.status.clone()?.pod_ip);
    let mut clients: BTreeMap<&str, Client> = BTreeMap::new();
    for (from, to, port, protocol, fares) in FLOWS {
        let agent = world.agent(pod(from).with_context(|| format!("no pod {from}"))?);
        let client = clients.entry(from).or_insert_with(|| Client { agent, dials: vec![], fares: vec![] });
        let to = address(to).unwrap_or_else(|| to.to_owned());
        client.dials.push(Dial { protocol: protocol.into(), address: format!("{to}:{port}"), from: None, mute: false });
        client.fares.push(match fares {
            Fares::OnlyBefore if is_back => Fares::OnlyAfter,
            Fares::OnlyAfter if is_back => Fares::OnlyBefore,
            other => other,
        });
    }
    Ok(clients.into_values().collect())
}

/// Waits until every flow is as it shall be, before or after.
async fn settled(clients: &[Client], after: bool) -> Result<()> {
    wait::until("the flows to be as told", wait::SOON, || async {
        let answers = clients.iter().map(|client| async {
            let open = client.agent.dial(&client.dials, TIMEOUT).await?;
            let wanted = client.fares.iter().map(|fares| match fares {
                Fares::Kept | Fares::Untouched => true,
                Fares::Closed => false,
                Fares::OnlyBefore => !after,
                Fares::OnlyAfter => after,
            });
            let wanted: Vec<bool> = wanted.collect();
            Ok(ensure!(open == wanted, "{:?} answer {open:?} instead of {wanted:?}", client.dials))
        });
        try_join_all(answers).await.map(drop)
    })
    .await
}
