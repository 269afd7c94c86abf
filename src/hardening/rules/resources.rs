//! Containers say how much of a resource they need, and how much they may use: by themselves, or through
//! their pod (KEP-2837).

use super::{
    About, Complaint, LASTING, Part, Pod, Rule,
    pod::{
        POSITIVE,
        Resource::{self, Limits, Requests},
    },
};
use crate::{api, hardening::cel::string};

const LIMIT_RANGE: &str = "a LimitRange of the namespace sets what containers leave out";

pub(super) static REQUESTS: About = About {
    id: "resourceRequests",
    title: "Containers request the resources that they need",
    windows: true,
    depends_on: Some(LIMIT_RANGE),
    values: None,
};
pub(super) static LIMITS: About = About {
    id: "resourceLimits",
    title: "Containers limit the resources that they use",
    windows: true,
    depends_on: Some(LIMIT_RANGE),
    values: None,
};

#[derive(Debug)]
struct Wanted {
    what: Resource,
    names: Vec<String>,
}

pub(super) fn parse(wire: &api::Rules) -> impl Iterator<Item = Box<dyn Rule>> {
    [(Requests, &wire.resource_requests), (Limits, &wire.resource_limits)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| Box::new(Wanted { what, names: names.clone() }) as Box<dyn Rule>)
}

impl Wanted {
    fn text(&self, name: &str) -> String {
        format!("must set resources.{}.{name}", self.what.as_str())
    }
}

impl Rule for Wanted {
    fn about(&self) -> &'static About {
        match self.what {
            Requests => &REQUESTS,
            Limits => &LIMITS,
        }
    }

    fn complaints(&self, pod: &Pod) -> Vec<Complaint> {
        let missing = self.names.iter().filter(|name| !pod.has(self.what, name));
        let lacking = |name: &'_ String| {
            let text = self.text(name);
            let field = format!("resources.{}", self.what.as_str());
            let without: Vec<_> = pod.lasting().filter(|it| !it.container.has(self.what, name)).collect();
            without.into_iter().map(move |it| Complaint::container(it, field.clone(), &text))
        };
        missing.flat_map(lacking).collect()
    }

    fn form(&self) -> Vec<Part> {
        let part = |name: &String| {
            let has = |of: &str, what: Resource| {
                let value = format!("{of}.?resources.?{}[?{}].orValue('0')", what.as_str(), string(name));
                format!("string({value}).matches({})", string(POSITIVE.text))
            };
            // The type that the API server has for the resources of a Pod knows no limits (seen on 1.37).
            let pod = "dyn(object.spec)";
            let mut sources = vec![has("dyn(c)", Limits), has(pod, Limits)];
            if self.what == Requests {
                sources.extend([has("dyn(c)", Requests), has(pod, Requests)]);
            }
            Part::containers(LASTING, format!("!({})", sources.join(" || ")), string(&self.text(name)))
        };
        self.names.iter().map(part).collect()
    }
}
