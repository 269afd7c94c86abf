//! Containers take no port of their node.

use crate::{
    Level, Violation,
    check::{Check, Values},
    text::{containers, plural, set},
    view::{Fixes, Placed, View},
};

pub(crate) static CHECK: Check = Check {
    id: "hostPorts",
    level: Level::Baseline,
    overrides: &[],
    since: &[(0, decide)],
    exempt: None,
    values: Some(Values::HostPort),
};

fn decide<'p, 'a>(check: &'static Check, pod: &View<'p, 'a>, fixes: &mut Fixes) -> Option<Violation> {
    let taken = |it: Placed<'p, 'a>| it.container.host_ports().iter().filter(move |(_, port)| !it.excepts(port));
    let bad = pod.containers().filter(|it| taken(*it).next().is_some());
    let mut detail = containers(bad.clone())?;
    let ports = || bad.clone().flat_map(|it| taken(it).map(move |port| (it, *port)));
    fixes.extend(ports().map(|(it, (place, _))| it.field(format!("ports[{place}].hostPort")).remove()));
    // The reference sorts them as strings: 10, 443, 9.
    let numbers = set(ports().map(|(_, (_, port))| port.to_string()));
    detail.push_str(if bad.clone().nth(1).is_none() { " uses " } else { " use " });
    detail.push_str(plural(numbers.len(), "hostPort ", "hostPorts "));
    detail.push_str(&numbers.join(", "));
    Some(check.violation("hostPort", detail))
}
