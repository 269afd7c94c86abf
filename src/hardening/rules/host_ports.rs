//! Containers take ports of their node from listed ranges only.

use rampart_pss::Values;

use super::{About, Complaint, Part, Pod, Rule, told_or_none};
use crate::{
    api::{self, rules::PortRange},
    hardening::cel::string,
};

pub(super) static ABOUT: About = About {
    id: "hostPorts",
    title: "Containers take ports of their node from listed ranges only",
    windows: true,
    depends_on: None,
    values: Some(Values::HostPort),
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
        let is_free = |port: i32| self.0.iter().any(|range| (range.min..=range.max).contains(&port));
        let taken = pod.containers().flat_map(|it| it.container.host_ports().map(move |taken| (it, taken)));
        taken
            .filter(|(_, (_, port))| !is_free(*port))
            .map(|(it, (place, port))| {
                let text = format!("must not take hostPort {port}{}", self.wanted());
                Complaint::container(it, format!("ports[{place}].hostPort"), &text).of_value(port.to_string())
            })
            .collect()
    }

    fn form(&self) -> Vec<Part> {
        let range = |range: &PortRange| format!(" && !(n.hostPort >= {} && n.hostPort <= {})", range.min, range.max);
        let ranges = self.0.iter().map(range).collect::<Vec<_>>().concat();
        vec![Part::Values {
            list: "c.?ports.orValue([])",
            value: "string(n.hostPort)",
            bad: format!("n.?hostPort.orValue(0) != 0{ranges}"),
            text: format!("'must not take hostPort ' + string(n.hostPort) + {}", string(&self.wanted())),
        }]
    }
}
