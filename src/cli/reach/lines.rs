//! Cases that stand in a line each.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Result;
use rampart_reach::{Analysis, Index, IpBlocks, Namespace, Pod, Policy, Protocol};
use serde::{Deserialize, Serialize};

use super::cells::{Asked, Cell};

#[derive(Debug, Deserialize)]
struct Case {
    namespaces: Option<BTreeMap<String, Labelled>>,
    pods: Option<Vec<Addressed>>,
    policies: Option<Vec<Policy>>,
}

#[derive(Debug, Default, Deserialize)]
struct Labelled {
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct Addressed {
    #[serde(flatten)]
    pod: Pod,
    ip: Option<IpAddr>,
}

/// What a line is answered with.
#[derive(Debug, Serialize)]
pub(super) struct Cells {
    cells: Vec<Cell>,
}

/// Analyses the case of a line.
///
/// # Errors
/// When it is none.
pub(super) fn answer(line: &[u8], ip_blocks: IpBlocks, port: Option<(Protocol, u16)>) -> Result<Cells> {
    let case: Case = serde_json::from_slice(line)?;
    let namespace = |(name, it): (String, Labelled)| Namespace { name, labels: it.labels.unwrap_or_default() };
    let namespaces: Vec<Namespace> = case.namespaces.into_iter().flatten().map(namespace).collect();
    let pods = case.pods.into_iter().flatten().map(|Addressed { mut pod, ip }| {
        pod.ips.extend(ip);
        pod
    });
    let index = Index::new(&namespaces, pods.collect(), ip_blocks);
    let policies = case.policies.unwrap_or_default();
    let analysis = Analysis::new(&index, &policies);
    Ok(Cells { cells: Asked::everything(&index, port).cells(&analysis, &policies) })
}
