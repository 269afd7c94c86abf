//! What `rampart reach` says beforehand of the manifests.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::ListParams};
use rampart_e2e::{
    node::{OUTSIDE_PORTS, network::OUTSIDE},
    operator,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{matrix::Cell, world::World};

#[derive(Deserialize)]
struct Answer {
    cells: Vec<Connection>,
}

#[derive(Deserialize)]
struct Connection {
    from: String,
    to: String,
    port: u16,
    protocol: String,
    allowed: bool,
}

/// Which connections are allowed by these policies: between the pods, with what is outside, and with the API server.
///
/// # Errors
/// When `rampart reach` can't read something.
pub(crate) async fn expected(world: &World, policies: &[Value]) -> Result<BTreeMap<Cell, bool>> {
    let namespaces = Api::<Namespace>::all(world.client()).list(&ListParams::default()).await?.items;
    let typed = |kind: &str, object: Value| {
        let mut object = object;
        object["apiVersion"] = json!("v1");
        object["kind"] = json!(kind);
        object
    };
    let mut items: Vec<Value> = policies.to_vec();
    for namespace in &namespaces {
        items.push(typed("Namespace", serde_json::to_value(namespace)?));
    }
    for pod in &world.pods {
        items.push(typed("Pod", serde_json::to_value(pod)?));
    }
    for service in &world.services {
        items.push(typed("Service", serde_json::to_value(service)?));
    }
    let path = world.node.plane().dir().join("manifests.json");
    std::fs::write(&path, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    let facts = world.facts()?;
    let mut asked: Vec<Vec<String>> = vec![vec![]];
    for address in OUTSIDE {
        asked.push(vec![format!("--from={address}")]);
        asked.extend(OUTSIDE_PORTS.map(|it| to(&address.to_string(), it)));
    }
    let (server, port) = api_server(world)?;
    asked.push(to(&server, (port, "TCP")));
    let answers = asked.iter().map(|flags| answer(&path, &facts, flags));
    let mut cells = BTreeMap::new();
    for connection in answers.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        let Connection { from, to, port, protocol, allowed } = connection;
        cells.insert(Cell { from, to, port, protocol }, allowed);
    }
    Ok(cells)
}

fn to(address: &str, (port, protocol): (u16, &str)) -> Vec<String> {
    vec![format!("--to={address}"), format!("--port={port}/{protocol}")]
}

/// Address and port of the API server.
///
/// # Errors
/// When it has no such address.
pub(crate) fn api_server(world: &World) -> Result<(String, u16)> {
    let address = world.node.plane().server().trim_start_matches("https://");
    let (host, port) = address.split_once(':').context("an address with a port")?;
    Ok((host.to_owned(), port.parse()?))
}

fn answer(manifests: &Path, facts: &[String], flags: &[String]) -> Result<Vec<Connection>> {
    let mut reach = Command::new(operator::binary()?);
    reach.arg("reach").arg(manifests).args(["--ip-block=pods", "--output=json"]).args(facts).args(flags);
    let done = reach.output()?;
    if !done.status.success() {
        bail!("rampart reach {}: {}", flags.join(" "), String::from_utf8_lossy(&done.stderr));
    }
    Ok(serde_json::from_slice::<Answer>(&done.stdout)?.cells)
}
