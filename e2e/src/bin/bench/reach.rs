//! `rampart-reach`: beside cyclonus on its own cases, and on clusters that grow.

use std::{collections::BTreeMap, hint::black_box, process::Command, time::Instant};

use anyhow::{Context as _, Result, ensure};
use rampart_e2e::judges;
use rampart_reach::{Analysis, Change, ContainerPort, End, Index, IpBlocks, Namespace, Pod, Policy, Protocol};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{at_least, figure, median, process};

/// The argument with which the bench analyses one cluster, in a process of its own: its memory is measured.
pub(crate) const SCALE: &str = "reach-scale";

const PASSES: u32 = 7;
const ROUNDS: u32 = 5;

#[derive(Deserialize)]
struct Case {
    namespaces: BTreeMap<String, Labels>,
    pods: Vec<CasePod>,
    policies: Option<Vec<Policy>>,
    cells: Vec<Cell>,
}

#[derive(Deserialize)]
struct Labels {
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct CasePod {
    #[serde(flatten)]
    pod: Pod,
    ip: String,
}

#[derive(Deserialize)]
struct Cell {
    from: String,
    to: String,
    port: u16,
    protocol: Protocol,
    allowed: bool,
}

/// A case, decoded; cyclonus has its decoded, too.
struct Step {
    namespaces: Vec<Namespace>,
    pods: Vec<Pod>,
    policies: Vec<Policy>,
    cells: Vec<(End, End, (Protocol, u16), bool)>,
}

impl TryFrom<Case> for Step {
    type Error = anyhow::Error;

    fn try_from(case: Case) -> Result<Self> {
        let pods: Vec<Pod> =
            case.pods.into_iter().map(|it| Ok(Pod { ips: vec![it.ip.parse()?], ..it.pod })).collect::<Result<_>>()?;
        let place = |name: &str| {
            let at = pods.iter().position(|pod| format!("{}/{}", pod.namespace, pod.name) == name);
            at.map(End::Pod).with_context(|| name.to_owned())
        };
        let cell = |it: &Cell| Ok((place(&it.from)?, place(&it.to)?, (it.protocol, it.port), it.allowed));
        let cells = case.cells.iter().map(cell).collect::<Result<_>>()?;
        let namespaces = case.namespaces.into_iter().map(|(name, it)| Namespace { name, labels: it.labels }).collect();
        Ok(Self { namespaces, cells, pods, policies: case.policies.unwrap_or_default() })
    }
}

impl Step {
    /// All of its cells; says whether they are as cyclonus says.
    fn evaluate(&self) -> bool {
        let index = Index::new(&self.namespaces, self.pods.clone(), IpBlocks::Pods);
        let analysis = Analysis::new(&index, &self.policies);
        let agrees = |(from, to, port, allowed): &(End, End, (Protocol, u16), bool)| {
            // A pod always reaches itself, which cyclonus leaves to policies.
            analysis.verdict(*from, *to, *port).allowed == *allowed || from == to
        };
        self.cells.iter().filter(|cell| agrees(cell)).count() == self.cells.len()
    }
}

pub(super) fn bench() -> Result<bool> {
    let mut good = beside_cyclonus()?;
    println!("clusters of pods of 10 in each namespace with 3 policies, each pod a class of its own:");
    let alone = [1_000, 3_000, 10_000].map(|pods| scale(pods, 1));
    println!("the same 1,000 workloads with more replicas: as many classes, more pods and pairs:");
    let replicas = [1_000, 3_000, 10_000].map(|pods| scale(pods, pods / 1_000));
    let [.., largest] = alone;
    let largest = largest?;
    good &= figure("10,000 pods, 1,000 namespaces, 3,000 policies: full analysis", largest.seconds, 2.0, "s");
    good &= figure("its memory at the most", largest.mebibytes, 200.0, "MB");
    good &= figure("preview after one change", largest.preview_milliseconds, 50.0, "ms");
    let [few, _, many] = replicas;
    good &= figure("ten times the pods in as many classes against once", many?.seconds / few?.seconds, 3.0, "times");
    Ok(good)
}

fn beside_cyclonus() -> Result<bool> {
    let judge = judges::network()?;
    let lines = judges::ask(&judge, &["cases"], vec![])?;
    let case = |line: &String| Step::try_from(serde_json::from_str::<Case>(line)?);
    let steps: Vec<Step> = lines.iter().map(case).collect::<Result<_>>()?;
    let mut pairs = vec![];
    for _ in 0..PASSES {
        let theirs = judges::ask(&judge, &["time", &ROUNDS.to_string()], vec![])?.concat();
        let began = Instant::now();
        for _ in 0..ROUNDS {
            for step in &steps {
                ensure!(black_box(step.evaluate()), "a cell that cyclonus decides otherwise");
            }
        }
        pairs.push((began.elapsed().as_secs_f64() / f64::from(ROUNDS), theirs.trim().parse::<f64>()?));
    }
    let cells: usize = steps.iter().map(|step| step.cells.len()).sum();
    println!(
        "{} steps of cyclonus, {cells} cells, {PASSES} passes in turn: {:.1} ms, cyclonus {:.1} ms",
        steps.len(),
        median(pairs.iter().map(|(ours, _)| *ours)) * 1e3,
        median(pairs.iter().map(|(_, theirs)| *theirs)) * 1e3
    );
    let ratio = median(pairs.iter().map(|(ours, theirs)| theirs / ours));
    Ok(at_least("rampart-reach against cyclonus", ratio, 10.0, "times as fast"))
}

#[derive(serde::Serialize, Deserialize)]
struct Scaled {
    seconds: f64,
    mebibytes: f64,
    preview_milliseconds: f64,
    classes: usize,
    reachable: u64,
}

fn scale(pods: usize, replicas: usize) -> Result<Scaled> {
    let program = std::env::current_exe()?;
    let output = Command::new(program).args([SCALE, &pods.to_string(), &replicas.to_string()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let scaled: Scaled = serde_json::from_slice(&output.stdout)?;
    println!(
        "  {pods} pods, {} classes: {:.0} ms, {:.0} MB, a preview {:.1} ms ({} pairs reachable)",
        scaled.classes,
        scaled.seconds * 1e3,
        scaled.mebibytes,
        scaled.preview_milliseconds,
        scaled.reachable
    );
    Ok(scaled)
}

/// Analyses one cluster and prints what it took.
pub(crate) fn one(arguments: &[&str]) -> Result<bool> {
    let [pods, replicas] = arguments else { anyhow::bail!("{SCALE} PODS REPLICAS") };
    let (pods, replicas): (usize, usize) = (pods.parse()?, replicas.parse()?);
    let (namespaces, made, policies) = cluster(pods, replicas)?;
    let began = Instant::now();
    let index = Index::new(&namespaces, made, IpBlocks::External);
    let analysis = Analysis::new(&index, &policies);
    let totals = black_box(analysis.totals());
    let seconds = began.elapsed().as_secs_f64();
    let mebibytes = process::peak_memory(std::process::id())?;
    let previews = (0..PASSES).map(|nth| preview(&index, &policies, usize::try_from(nth)?));
    let previews: Vec<f64> = previews.collect::<Result<_>>()?;
    let scaled = Scaled {
        seconds,
        mebibytes,
        preview_milliseconds: median(previews),
        classes: index.classes().len(),
        reachable: totals.reachable,
    };
    println!("{}", serde_json::to_string(&scaled)?);
    Ok(true)
}

/// What would change if one policy were another; milliseconds.
fn preview(index: &Index, policies: &[Policy], nth: usize) -> Result<f64> {
    let place = nth * 3 + 1;
    let old = policies.get(place).context("a policy")?;
    let mut changed: Policy = serde_json::from_value(allow(&old.namespace, "changed", &format!("app-{nth}"), 9090))?;
    changed.name.clone_from(&old.name);
    let began = Instant::now();
    let kept: Vec<&Policy> = policies.iter().filter(|policy| *policy != old).collect();
    let difference = Change::new(index, &kept, &[old], &[&changed]).difference();
    let milliseconds = began.elapsed().as_secs_f64() * 1e3;
    ensure!(difference.newly_allowed.pairs > 0, "the change changes nothing");
    Ok(milliseconds)
}

/// A policy that lets some pods of its namespace in from others of it.
fn allow(namespace: &str, name: &str, app: &str, port: u16) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "spec": {
        "podSelector": {"matchLabels": {"tier": "web"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": app}}}], "ports": [{"port": port}]}]}})
}

/// A tenth as many namespaces as pods, each with a default deny, what its pods may do to each other and who may call
/// them, and what they may call.
fn cluster(pods: usize, replicas: usize) -> Result<(Vec<Namespace>, Vec<Pod>, Vec<Policy>)> {
    let spaces = pods / replicas / 10;
    let (mut namespaces, mut made, mut policies) = (vec![], vec![], vec![]);
    for nth in 0..spaces {
        let name = format!("team-{nth}");
        let labels =
            [("team".to_owned(), (nth % 50).to_string()), ("stage".to_owned(), ["dev", "prod"][nth % 2].to_owned())];
        namespaces.push(Namespace { name: name.clone(), labels: labels.into() });
        for workload in 0..10 {
            let label = |key: &str, value: String| (key.to_owned(), value);
            let labels = [
                label("app", format!("app-{workload}")),
                label("tier", ["web", "db"][workload % 2].to_owned()),
                label("pod-template-hash", format!("{:x}", nth * 10 + workload)),
            ];
            for replica in 0..replicas {
                made.push(Pod {
                    namespace: name.clone(),
                    name: format!("app-{workload}-{replica}"),
                    labels: labels.clone().into(),
                    ports: vec![ContainerPort { name: "http".into(), port: 8080, protocol: Protocol::TCP }],
                    ..Pod::default()
                });
            }
        }
        let deny = json!({"metadata": {"namespace": name, "name": "deny"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}});
        let call = json!({"metadata": {"namespace": name, "name": "calls"}, "spec": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": (nth % 50).to_string()}}}],
                         "ports": [{"port": "http"}]}],
            "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"team": (nth % 50).to_string()}}}]},
                       {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "app-1"}}}],
                        "ports": [{"port": 8080}, {"port": 53, "protocol": "UDP"}]},
                       {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "169.254.169.254/32"]}}],
                        "ports": [{"port": 443}]}]}});
        for policy in [deny, allow(&name, "within", &format!("app-{}", nth % 10), 8080), call] {
            policies.push(serde_json::from_value(policy)?);
        }
    }
    Ok((namespaces, made, policies))
}
