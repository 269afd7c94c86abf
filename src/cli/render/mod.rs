//! `rampart render`: what the operator would apply for given resources.

mod holds;
mod network;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use kube::ResourceExt as _;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    check::policies,
    facts::ClusterFacts,
    fields::refuse_malformed,
    output::answered,
    source::{self, Found, group_kind},
    terminal::fit,
};
use crate::{
    hardening::{Demand, compile},
    network::World,
    retention::refusals,
    runtime::clock,
};

pub(super) use self::network::rendered;

/// Prints what the operator would apply for SecurityPolicies, ClusterSecurityPolicies, PolicyExceptions, LegalHolds and
/// ClusterLegalHolds: admission policies with their bindings, and NetworkPolicies.
///
/// Namespaces, Pods, workloads, Services and NetworkPolicies among the files are what a cluster would know: names of
/// ports and Services are resolved by them, and ClusterSecurityPolicies rendered in the Namespaces that they select. What
/// to know of a rendered NetworkPolicy goes to standard error, and with --static when exceptions end.
///
/// Names of NetworkPolicies and of what is refused for holds end in a UID in a cluster, which files do not know. Exits 2
/// when something can't be read or rendered; everything else is printed all the same.
#[derive(Debug, Args)]
pub(super) struct RenderCommand {
    /// Files, directories, or `-`.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Namespace of resources that name none.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// Admission policies alone, named for the directory that an API server loads at its start
    /// (`staticManifestsDir`, Kubernetes 1.37): nobody can change those through the API.
    #[arg(long = "static")]
    as_static: bool,
    #[command(flatten)]
    facts: ClusterFacts,
}

/// What the names of all objects end in that an API server loads from files
/// (`k8s.io/apiserver`, `StaticConfigSuffix`).
const STATIC: &str = ".static.k8s.io";

impl RenderCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut found = source::read_all(&self.paths);
        refuse_malformed(&mut found);
        let Found { objects: resources, mut unreadable } = found;
        let mut world = World::default();
        let (mut asked, mut kept) = (vec![], vec![]);
        for resource in &resources {
            match holds::of(&resource.value, &self.namespace) {
                None => {}
                Some(Ok(hold)) => {
                    kept.extend(refusals(&hold));
                    continue;
                }
                Some(Err(why)) => {
                    unreadable.push(resource.unreadable(why));
                    continue;
                }
            }
            let is_namespace = group_kind(&resource.value) == ("", "Namespace");
            match world.add(&resource.value, &self.namespace) {
                Ok(true) if !is_namespace => {}
                Ok(_) => asked.push(resource),
                Err(why) => unreadable.push(resource.unreadable(why)),
            }
        }
        let (known, more) = policies::of(asked, &self.namespace);
        unreadable.extend(more);
        let mut objects = vec![];
        let demand = known.demand(clock::now());
        if self.as_static {
            tell_ends(&demand);
        }
        let floors = compile(&demand).into_iter().map(|it| (it.policy, it.binding));
        for (policy, binding) in floors.chain(kept.into_iter().map(|it| (it.policy, it.binding))) {
            let name = format!("{}{STATIC}", policy.name_any());
            let (mut policy, mut binding) = (wire(&policy)?, wire(&binding)?);
            if self.as_static {
                for place in ["/metadata/name", "/spec/policyName"] {
                    for object in [&mut policy, &mut binding] {
                        object.pointer_mut(place).into_iter().for_each(|it| *it = json!(name));
                    }
                }
            }
            objects.extend([policy, binding]);
        }
        if !self.as_static {
            let (policies, more) = rendered(&resources, &self.namespace, (&world, &self.facts.known()));
            // One that is wrong has been named already.
            let known: Vec<_> = unreadable.iter().map(|it| (it.file.clone(), it.line)).collect();
            unreadable.extend(more.into_iter().filter(|it| !known.contains(&(it.file.clone(), it.line))));
            for policy in &policies {
                objects.push(wire(policy)?);
            }
        }
        let mut text = String::new();
        for object in objects {
            text.push_str("---\n");
            text.push_str(&serde_saphyr::to_string(&object)?);
        }
        let written = std::io::stdout().lock().write_all(text.as_bytes());
        answered(written.map_err(Into::into), source::complain(&unreadable))
    }
}

/// The operator compiles admission policies anew when an exception ends, and for updates they know no time. A file stays
/// as it is.
fn tell_ends(demand: &Demand) {
    for (namespace, name, end) in demand.exceptions() {
        let said = format!(
            "PolicyException {namespace}/{name} ends at {end} for new pods; for updates of pods (a debug container) it lasts until the file is rendered anew"
        );
        eprintln!("{}", fit(&said));
    }
}

fn wire(object: &impl Serialize) -> Result<Value> {
    Ok(serde_json::to_value(object)?)
}
