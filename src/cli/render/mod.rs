//! `rampart render`: what the operator would apply for given resources.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use serde::{Deserialize as _, Serialize};
use serde_json::{Value, json};

use super::{
    check::policies,
    facts::ClusterFacts,
    source::{self, Found, Object, Unreadable},
};
use crate::{
    api::{Finding, SecurityPolicy},
    hardening::compile,
    network::{Cluster, Facts, Intent, World, render},
    policy,
    runtime::clock,
};

/// Prints what the operator would apply for SecurityPolicies, ClusterSecurityPolicies and PolicyExceptions: admission
/// policies with their bindings, and NetworkPolicies.
///
/// Pods, workloads, Services and NetworkPolicies among the files are what a cluster would know: names of ports and
/// Services are resolved by them. What to know of a rendered NetworkPolicy goes to standard error.
///
/// Names of NetworkPolicies end in the UID of their policy in a cluster, which files do not know. Exits 2
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
        let Found { objects: resources, mut unreadable } = source::read_all(&self.paths);
        let mut world = World::default();
        let mut asked = vec![];
        for resource in &resources {
            let is_namespace = resource.value.get("kind").is_some_and(|kind| kind == "Namespace");
            match world.add(&resource.value, &self.namespace) {
                Ok(true) if !is_namespace => {}
                Ok(_) => asked.push(resource),
                Err(why) => unreadable.push(resource.unreadable(why)),
            }
        }
        let (known, more) = policies::of(asked, &self.namespace);
        unreadable.extend(more);
        let mut objects = vec![];
        for floor in compile(&known.demand(clock::now())) {
            let (mut policy, mut binding) = (wire(&floor.policy)?, wire(&floor.binding)?);
            if self.as_static {
                let name = format!("{}{STATIC}", floor.policy.name_any());
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
        let mut out = std::io::stdout().lock();
        for object in objects {
            write!(out, "---\n{}", serde_saphyr::to_string(&object)?)?;
        }
        Ok(source::complain(&unreadable))
    }
}

/// The NetworkPolicies of SecurityPolicies, and what can't be rendered.
///
/// Findings go to standard error. As in the cluster, the other NetworkPolicies of a namespace decide whether the other side of a connection is
/// isolated, and so opened.
pub(super) fn rendered(
    resources: &[Object],
    namespace: &str,
    (world, facts): (&World, &Facts),
) -> (Vec<NetworkPolicy>, Vec<Unreadable>) {
    let World { namespaces, pods, services, .. } = world;
    let cluster = Cluster { facts, namespaces, pods, services };
    let of_kind =
        |kind: &'static str| resources.iter().filter(move |it| it.value.get("kind").is_some_and(|it| it == kind));
    let (mut intents, mut unreadable) = (vec![], vec![]);
    for object in of_kind("SecurityPolicy") {
        match intent(object, namespace) {
            Ok(intent) => intents.extend(intent.map(|intent| (object, intent))),
            Err(why) => unreadable.push(object.unreadable(why)),
        }
    }
    // Those that are refused are named by who reads them.
    let foreign = of_kind("NetworkPolicy").filter_map(|it| NetworkPolicy::deserialize(&it.value).ok());
    let mut others: Vec<NetworkPolicy> = foreign.collect();
    for (_, (namespace, base, intent)) in &intents {
        let alone = render(intent, (namespace, base), &cluster, &[]);
        others.extend(alone.ok().and_then(|it| it.policies.into_iter().next()));
    }
    let mut policies = vec![];
    for (object, (own, base, intent)) in &intents {
        let here = |it: &&NetworkPolicy| {
            it.namespace().as_deref().unwrap_or(namespace) == own && it.metadata.name.as_ref() != Some(base)
        };
        let others: Vec<&NetworkPolicy> = others.iter().filter(here).collect();
        match render(intent, (own, base), &cluster, &others) {
            Ok(rendered) => {
                for Finding { id, message } in rendered.findings {
                    eprintln!("{}:{}: {id}: {message}", object.file, object.line);
                }
                policies.extend(rendered.policies);
            }
            Err(why) => unreadable.push(object.unreadable(why.to_string())),
        }
    }
    (policies, unreadable)
}

/// The intent of a SecurityPolicy, with its namespace and what the names of its NetworkPolicies begin with; `None`
/// where nothing is to be rendered.
fn intent(object: &Object, namespace: &str) -> std::result::Result<Option<(String, String, Intent)>, String> {
    let policy = SecurityPolicy::deserialize(&object.value).map_err(|error| error.to_string())?;
    let namespace = policy.namespace().unwrap_or_else(|| namespace.to_owned());
    let intent = policy::intent(&policy, &namespace).map_err(|refused| refused.to_string())?;
    let intent = intent.filter(|_| policy.spec.suspend != Some(true));
    Ok(intent.map(|intent| (namespace, format!("rampart-{}", policy.name_any()), intent)))
}

fn wire(object: &impl Serialize) -> Result<Value> {
    Ok(serde_json::to_value(object)?)
}
