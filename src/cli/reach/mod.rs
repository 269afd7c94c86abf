//! `rampart reach`: who reaches whom, on what port, and why.

mod cells;
mod lines;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, ValueEnum};
use rampart_reach::{Analysis, Index, IpBlocks, Policy, Protocol};
use serde::Deserialize as _;

use self::cells::{Asked, Cell};
use super::{
    BAD_INPUT, cores,
    facts::ClusterFacts,
    fields::refuse_malformed,
    output::{Output, answered},
    render::rendered,
    source::{self, Found},
    terminal::Paint,
};
use crate::network::World;

/// Tells which pod reaches which, on what port, and which policies decide.
///
/// Of manifests with Namespaces, Pods (or workloads, which stand for their pods), NetworkPolicies, and
/// SecurityPolicies as they would be rendered. Each pod is asked on the ports that it declares; one that declares none,
/// on all of them, in ranges that policies tell apart. Exits 2 when something can't be read; the rest is analysed all
/// the same.
#[derive(Debug, Args)]
pub(super) struct ReachCommand {
    /// Files, directories, or `-`.
    #[arg(required_unless_present = "input")]
    paths: Vec<PathBuf>,
    /// Namespace of resources that name none.
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// From this pod alone: NAMESPACE/NAME, or an address outside of the cluster.
    #[arg(long)]
    from: Option<String>,
    /// To this pod alone: NAMESPACE/NAME, or an address outside of the cluster.
    #[arg(long)]
    to: Option<String>,
    /// On this port alone: N or N/PROTOCOL.
    #[arg(long, value_parser = port)]
    port: Option<(Protocol, u16)>,
    /// How to tell it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Whether an ipBlock is about pods, too: network plug-ins differ.
    #[arg(long, default_value = "external")]
    ip_block: IpBlock,
    /// Reads cases from standard input instead, one a line, and answers each with a line.
    #[arg(long, conflicts_with_all = ["paths", "from", "to"])]
    input: Option<Input>,
    #[command(flatten)]
    facts: ClusterFacts,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum IpBlock {
    Pods,
    External,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Input {
    /// `{"namespaces": {"x": {"labels": {...}}}, "pods": [{"namespace", "name", "labels", "ip", "ports"}],
    /// "policies": [...]}`
    Jsonl,
}

impl From<IpBlock> for IpBlocks {
    fn from(read: IpBlock) -> Self {
        match read {
            IpBlock::Pods => Self::Pods,
            IpBlock::External => Self::External,
        }
    }
}

fn port(text: &str) -> Result<(Protocol, u16), String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let number = number.parse().ok().filter(|number| *number > 0);
    Ok((protocol.parse()?, number.ok_or_else(|| format!("{text:?} is no port: write 443 or 53/UDP"))?))
}

impl ReachCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        let ip_blocks = self.ip_block.into();
        if let Some(Input::Jsonl) = self.input {
            return cores::filter(|line| lines::answer(line, ip_blocks, self.port));
        }
        let mut found = source::read_all(&self.paths);
        refuse_malformed(&mut found);
        let Found { objects, mut unreadable } = found;
        let mut world = World::default();
        for object in &objects {
            if let Err(why) = world.add(&object.value, &self.namespace) {
                unreadable.push(object.unreadable(why));
            }
        }
        let (intents, more) = rendered(&objects, &self.namespace, (&world, &self.facts.known()));
        unreadable.extend(more);
        for policy in intents {
            world.policies.push(Policy::deserialize(serde_json::to_value(policy)?)?);
        }
        let index = Index::new(&world.namespaces, world.pods, ip_blocks);
        let analysis = Analysis::new(&index, &world.policies);
        let asked = Asked::of(&index, self.from.as_deref(), self.to.as_deref(), self.port);
        let cells = match asked {
            Ok(asked) => asked.cells(&analysis, &world.policies),
            Err(unknown) => {
                eprintln!("{unknown}");
                return Ok(ExitCode::from(BAD_INPUT));
            }
        };
        let written = self.write(&cells);
        answered(written, source::complain(&unreadable))
    }

    fn write(&self, cells: &[Cell]) -> Result<()> {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        match self.output {
            Output::Json => {
                serde_json::to_writer(&mut out, &serde_json::json!({"schemaVersion": 1, "cells": cells}))?;
                writeln!(out)?;
            }
            Output::Text => cells::table(cells, &mut out, Paint::stdout())?,
        }
        Ok(out.flush()?)
    }
}
