//! `rampart report`: the posture of a cluster, and the controls that it supports.
//!
//! [`read`] asks the cluster, with the rights of who asks, and [`files`] reads what somebody else asked;
//! [`crate::report`] makes one value of it, which is the JSON; [`sheets`] lays it out in tables, and [`text`] and [`html`] print those.

mod files;
mod html;
mod read;
mod sheets;
#[cfg(test)]
mod tests;
mod text;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use super::{
    BAD_INPUT,
    connection::{Connection, block_on},
    output::answered,
    reader::Reader,
    source,
    terminal::Paint,
};
use crate::{
    report::{World, report},
    runtime::clock,
};

/// Tells the posture of a cluster: policies by namespace, violations by rule, exceptions and keys with their end dates,
/// retention and legal holds, network exposure, and the controls with the requirements that each supports.
///
/// It reads Rampart's own kinds and the names of namespaces, with your rights: what you may not read is named, and
/// everything else is told all the same. Pods are told as the operator last counted them. Exits 0 whatever it tells, 2 when
/// a file can't be read or there is no such namespace, and 3 when nothing of a cluster can be read.
#[derive(Debug, Args)]
pub(super) struct ReportCommand {
    /// Files or directories with objects, as `kubectl get -o yaml` prints them, or `-`; without any, the cluster is asked.
    paths: Vec<PathBuf>,
    /// Tell of one namespace alone.
    #[arg(long, short)]
    namespace: Option<String>,
    /// Tell of all namespaces, as without `--namespace`.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
    #[command(flatten)]
    connection: Connection,
    /// How to tell it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Namespace that Rampart is installed in.
    #[arg(long, env = "RAMPART_NAMESPACE", default_value = "rampart-system")]
    rampart_namespace: String,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Output {
    /// For people; lists are cut.
    #[default]
    Text,
    /// Everything. The shape has `schemaVersion` 1.
    Json,
    /// The text as one page, which needs nothing else: no script, no picture, no network.
    Html,
}

impl ReportCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        let (world, code) =
            if self.paths.is_empty() { (block_on(self.of_cluster())?, ExitCode::SUCCESS) } else { self.of_files() };
        let told = report(&world, clock::now());
        // Where namespaces may not be listed, the one that is asked for is taken for there.
        let is_empty = told.posture.items.is_empty() && told.exceptions.items.is_empty() && told.holds.items.is_empty();
        if let Some(only) = self.only().filter(|_| is_empty) {
            eprintln!("rampart: there is no namespace {only}");
            return Ok(ExitCode::from(BAD_INPUT));
        }
        let printed = match self.output {
            Output::Json => serde_json::to_string_pretty(&told)? + "\n",
            Output::Text => text::text(&told, Paint::stdout()),
            Output::Html => html::html(&told),
        };
        let mut out = std::io::stdout().lock();
        let written = out.write_all(printed.as_bytes()).and_then(|()| out.flush());
        answered(written.map_err(Into::into), code)
    }

    /// The one namespace that is told of; without it, all.
    fn only(&self) -> Option<String> {
        self.namespace.clone().filter(|_| !self.all_namespaces)
    }

    async fn of_cluster(&self) -> Result<World> {
        let (client, namespace) = self.connection.client(self.only().as_deref()).await?;
        let (world, seen) = read::world(Reader::new(client, namespace), self.only(), &self.rampart_namespace).await;
        if seen == read::Seen::Nothing {
            bail!("nothing could be read: {}", report(&world, clock::now()).unread.join("; "));
        }
        Ok(world)
    }

    fn of_files(&self) -> (World, ExitCode) {
        let (world, unreadable, others) = files::world(&self.paths, self.only());
        if others > 0 {
            let they = if others == 1 { "object is of a kind" } else { "objects are of kinds" };
            eprintln!("rampart: {others} {they} that a report does not tell of");
        }
        (world, source::complain(&unreadable))
    }
}
