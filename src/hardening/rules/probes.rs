//! Containers that go on running say how their health is seen.

use super::{About, Complaint, Part, Placed, Pod, Rule};
use crate::api::{self, rules::Probe};
use rampart_pss::ContainerKind;

pub(super) static ABOUT: About = About {
    id: "probes",
    title: "Containers that go on running have probes",
    windows: true,
    depends_on: None,
    values: None,
};

#[derive(Debug)]
struct Probes(Vec<Probe>);

pub(super) fn parse(wire: &api::Rules) -> Option<Box<dyn Rule>> {
    (!wire.probes.is_empty()).then(|| Box::new(Probes(wire.probes.clone())) as Box<dyn Rule>)
}

const fn field(probe: Probe) -> &'static str {
    match probe {
        Probe::Readiness => "readinessProbe",
        Probe::Liveness => "livenessProbe",
        Probe::Startup => "startupProbe",
    }
}

fn has(it: Placed<'_>, probe: Probe) -> bool {
    let set = match probe {
        Probe::Readiness => it.container.readiness_probe,
        Probe::Liveness => it.container.liveness_probe,
        Probe::Startup => it.container.startup_probe,
    };
    set.is_some()
}

/// Whether a container may have probes: a plain init container or an ephemeral one can't.
fn may_have(it: Placed<'_>) -> bool {
    it.kind == ContainerKind::Regular || it.kind == ContainerKind::Init && it.container.is_sidecar()
}

impl Rule for Probes {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let lacking = |probe: Probe| {
            let text = format!("must set {}", field(probe));
            pod.containers()
                .filter(move |it| may_have(*it) && !has(*it, probe))
                .map(move |it| Complaint::container(it, field(probe), &text))
        };
        if pod.restarts() { self.0.iter().copied().flat_map(lacking).collect() } else { vec![] }
    }

    fn form(&self) -> Vec<Part> {
        let part = |probe: &Probe| {
            let bad = format!("object.spec.?restartPolicy.orValue('Always') == 'Always' && !has(c.{})", field(*probe));
            Part::containers("variables.running", bad, format!("'must set {}'", field(*probe)))
        };
        self.0.iter().map(part).collect()
    }
}
