//! Containers take ports of their node from listed ranges only.

use super::{About, CONTAINERS, Complaint, Part, Placed, Pod, Rule, told_or_none};
use crate::{
    api::{self, rules::PortRange},
    hardening::cel::string,
};

pub(super) static ABOUT: About = About {
    id: "hostPorts",
    title: "Containers take ports of their node from listed ranges only",
    windows: true,
    depends_on: None,
};

#[derive(Debug)]
struct HostPorts(Vec<PortRange>);

pub(super) fn parse(wire: &api::Rules) -> Option<Box<dyn Rule>> {
    let rule = wire.host_ports.as_ref()?;
    Some(Box::new(HostPorts(rule.allow.clone())))
}

impl HostPorts {
    fn wanted(&self) -> String {
        let told = told_or_none(self.0.iter().map(|range| format!("{}-{}", range.min, range.max)));
        format!(", allowed: {told}")
    }
}

impl Rule for HostPorts {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let complaint = |it: Placed<'_>| {
            let is_free = |port: i32| self.0.iter().any(|range| (range.min..=range.max).contains(&port));
            let bad: Vec<(usize, i32)> = it.container.host_ports().filter(|(_, port)| !is_free(*port)).collect();
            let (place, _) = bad.first()?;
            let text =
                format!("must not take hostPort {}{}", super::told(bad.iter().map(|(_, port)| port)), self.wanted());
            Some(Complaint::container(it, format!("ports[{place}].hostPort"), &text))
        };
        pod.containers().filter_map(complaint).collect()
    }

    fn form(&self) -> Vec<Part> {
        let range = |range: &PortRange| format!(" && !(p.hostPort >= {} && p.hostPort <= {})", range.min, range.max);
        let ranges = self.0.iter().map(range).collect::<Vec<_>>().concat();
        let (ports, bad) = ("c.?ports.orValue([])", format!("p.?hostPort.orValue(0) != 0{ranges}"));
        let text = format!(
            "'must not take hostPort ' + {ports}.filter(p, {bad}).map(p, string(p.hostPort)).join(', ') + {}",
            string(&self.wanted())
        );
        vec![Part::containers(CONTAINERS, format!("{ports}.exists(p, {bad})"), text)]
    }
}
