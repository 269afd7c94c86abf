//! Every dial between the pods, with what is outside, and with the API server; and whether all go as expected.

use std::{
    cell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;
use rampart_e2e::{
    node::{
        OUTSIDE_PORTS,
        agents::{Agent, Dial},
        network::OUTSIDE,
    },
    wait,
};

use crate::{
    reach,
    world::{World, name_of},
};

/// How long a dial waits: denied means dropped, so that it ends in silence. On a busy machine what is allowed takes
/// longer, and then as long is waited for the rest.
const TIMEOUT: Duration = Duration::from_millis(500);
const TIMEOUT_AT_MOST: Duration = Duration::from_secs(4);
/// In what time the kernel must do what the policies say, from when Rampart says that they are programmed.
const SETTLE: Duration = Duration::from_secs(90);

/// A connection, as `rampart reach` names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    /// `namespace/pod`, or an address.
    pub(crate) from: String,
    /// Likewise.
    pub(crate) to: String,
    pub(crate) port: u16,
    pub(crate) protocol: String,
}

/// What one agent dials; several dials may ask the same, directly and through a Service.
struct Source {
    agent: Agent,
    cells: Vec<Cell>,
    dials: Vec<Dial>,
}

/// A dial that does not go as `rampart reach` says.
#[derive(Debug, Clone)]
struct Difference {
    cell: Cell,
    address: String,
    allowed: bool,
}

impl Source {
    /// Dials all, once each.
    async fn differences(&self, expected: &BTreeMap<Cell, bool>, timeout: Duration) -> Result<Vec<Difference>> {
        let open = self.agent.dial(&self.dials, timeout).await?;
        let mut wrong = vec![];
        for ((cell, dial), open) in self.cells.iter().zip(&self.dials).zip(open) {
            let allowed = is_allowed(expected, cell)?;
            if allowed != open {
                wrong.push(Difference { cell: cell.clone(), address: dial.address.clone(), allowed });
            }
        }
        Ok(wrong)
    }

    fn add(&mut self, cell: Cell, address: String, mute: bool) {
        // What comes from outside says from which address.
        let from = (!cell.from.contains('/')).then(|| cell.from.clone());
        self.dials.push(Dial { protocol: cell.protocol.clone(), address, from, mute });
        self.cells.push(cell);
    }
}

/// A port, with where it is dialed.
struct Target {
    to: String,
    port: u16,
    protocol: String,
    address: String,
    mute: bool,
}

/// How many connections were compared.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Compared {
    pub(crate) dials: usize,
    pub(crate) denied: usize,
}

/// Waits until every dial goes as expected, and dials all once more: what is denied must stay so then.
///
/// # Errors
/// When some still differ at the deadline, or something denied opens again; the text names them.
pub(crate) async fn agrees(world: &World, expected: &BTreeMap<Cell, bool>) -> Result<Compared> {
    let sources = sources(world)?;
    let timeout = cell::Cell::new(TIMEOUT);
    let round = || async {
        let wrong = try_join_all(sources.iter().map(|it| it.differences(expected, timeout.get()))).await?.concat();
        if wrong.iter().any(|it| it.allowed) {
            timeout.set((timeout.get() * 2).min(TIMEOUT_AT_MOST));
        }
        anyhow::Ok(wrong)
    };
    let none = |wrong: &[Difference]| Ok(ensure!(wrong.is_empty(), "{} differ: {}", wrong.len(), some(wrong)));
    wait::until("every dial to agree", SETTLE, || async { none(&round().await?) }).await?;
    let opened = cell::RefCell::new(vec![]);
    // What is allowed may be late on a busy machine; then nothing of that round proves that the rest is denied.
    wait::until("every dial to agree once more", SETTLE, || async {
        let wrong = round().await?;
        opened.borrow_mut().extend(wrong.iter().filter(|it| !it.allowed).cloned());
        none(&wrong)
    })
    .await?;
    none(&opened.into_inner()).context("after all had agreed")?;
    let cells = sources.iter().flat_map(|source| &source.cells);
    let denied = cells.filter(|cell| is_allowed(expected, cell).is_ok_and(|allowed| !allowed)).count();
    Ok(Compared { dials: sources.iter().map(|source| source.dials.len()).sum(), denied })
}

/// A pod always reaches itself, so that `rampart reach` leaves it out.
fn is_allowed(expected: &BTreeMap<Cell, bool>, cell: &Cell) -> Result<bool> {
    let said = if cell.from == cell.to { Some(true) } else { expected.get(cell).copied() };
    said.with_context(|| format!("rampart reach says nothing of {cell:?}"))
}

fn some(wrong: &[Difference]) -> String {
    let told = wrong.iter().take(8).map(|Difference { cell, address, allowed }| {
        let Cell { from, to, port, protocol } = cell;
        let (said, seen) = if *allowed { ("allowed", "silent") } else { ("denied", "open") };
        format!("\n  {from} to {to} {port}/{protocol} at {address}: reach says {said}, and it is {seen}")
    });
    told.collect()
}

fn sources(world: &World) -> Result<Vec<Source>> {
    let pods = targets(world)?;
    let mut everywhere: Vec<&Target> = pods.iter().collect();
    let rest = outside().into_iter().chain(servers(world)?).chain(services(world)).collect::<Vec<_>>();
    everywhere.extend(&rest);
    let mut sources = vec![];
    for pod in &world.pods {
        let from = name_of(pod).replacen('.', "/", 1);
        let mut source = Source { agent: world.agent(pod), cells: vec![], dials: vec![] };
        for target in &everywhere {
            // A pod that calls itself through a Service comes from the node.
            if target.to == from && !pods.iter().any(|it| it.address == target.address) {
                continue;
            }
            source.add(cell_of(&from, target), target.address.clone(), target.mute);
        }
        sources.push(source);
    }
    let mut source = Source { agent: world.node.outside(), cells: vec![], dials: vec![] };
    for address in OUTSIDE {
        for target in &pods {
            source.add(cell_of(&address.to_string(), target), target.address.clone(), false);
        }
    }
    sources.push(source);
    Ok(sources)
}

fn cell_of(from: &str, target: &Target) -> Cell {
    Cell { from: from.to_owned(), to: target.to.clone(), port: target.port, protocol: target.protocol.clone() }
}

fn ports_of(pod: &Pod) -> BTreeSet<(u16, String, String)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let told = ports.filter_map(|port| {
        let number = u16::try_from(port.container_port).ok()?;
        Some((number, port.protocol.clone().unwrap_or_else(|| "TCP".into()), port.name.clone().unwrap_or_default()))
    });
    told.collect()
}

/// Every port of every pod.
fn targets(world: &World) -> Result<Vec<Target>> {
    let mut targets = vec![];
    for pod in &world.pods {
        let to = name_of(pod).replacen('.', "/", 1);
        let status = pod.status.as_ref();
        let ip = status.and_then(|status| status.pod_ip.clone()).with_context(|| format!("an address of {to}"))?;
        targets.extend(ports_of(pod).into_iter().map(|(port, protocol, _)| Target {
            to: to.clone(),
            port,
            protocol,
            address: format!("{ip}:{port}"),
            mute: false,
        }));
    }
    Ok(targets)
}

fn outside() -> Vec<Target> {
    let each = OUTSIDE.iter().flat_map(|address| OUTSIDE_PORTS.map(|port| (address.to_string(), port)));
    each.map(|(to, (port, protocol))| Target {
        address: format!("{to}:{port}"),
        to,
        port,
        protocol: protocol.into(),
        mute: false,
    })
    .collect()
}

/// The API server at its own address, and behind its Service. It says nothing to a byte.
fn servers(world: &World) -> Result<Vec<Target>> {
    let (to, port) = reach::api_server(world)?;
    let at = |address: String| Target { to: to.clone(), port, protocol: "TCP".into(), address, mute: true };
    Ok(vec![at(format!("{to}:{port}")), at("10.96.0.1:443".into())])
}

/// Services lead to one pod each.
fn services(world: &World) -> Vec<Target> {
    world.services.iter().flat_map(|service| behind(world, service)).collect()
}

fn behind(world: &World, service: &Service) -> Vec<Target> {
    let Some(spec) = service.spec.as_ref() else { return vec![] };
    let (Some(selector), Some(address)) = (&spec.selector, &spec.cluster_ip) else { return vec![] };
    let is_behind = |pod: &&Pod| {
        pod.namespace() == service.namespace()
            && selector.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
    };
    let Some(pod) = world.pods.iter().find(is_behind) else { return vec![] };
    let target = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        let wanted = match &port.target_port {
            Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(name)) => {
                ports_of(pod).into_iter().find(|(_, of, it)| *of == protocol && it == name)?.0
            }
            Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(number)) => {
                u16::try_from(*number).ok()?
            }
            None => u16::try_from(port.port).ok()?,
        };
        let to = name_of(pod).replacen('.', "/", 1);
        Some(Target { to, port: wanted, protocol, address: format!("{address}:{}", port.port), mute: false })
    };
    spec.ports.iter().flatten().filter_map(target).collect()
}
