//! `rampart explain KIND/NAME`: which policies touch an object of a cluster, what each decides, and what would change.
//!
//! [`read`] asks the cluster, with the rights of who asks; [`decide`] makes of it what is told, with the engines of the
//! webhook, the operator and `rampart reach`; [`text`] tells it.

mod api_key;
mod asking;
mod crowd;
mod decide;
mod hardening;
mod holds;
mod kinds;
mod known;
mod namespace;
mod network;
mod network_policy;
mod other;
mod pending;
mod policy;
mod ranges;
mod read;
mod retention;
mod terrain;
#[cfg(test)]
mod tests;
mod text;

use std::{borrow::Cow, io::Write as _, process::ExitCode};

use anyhow::Result;
use clap::Args;

use self::{
    decide::{Explanation, explain},
    kinds::Asked,
};
use super::{
    BAD_INPUT,
    connection::{Connection, block_on, shortly},
    facts::ClusterFacts,
    output::Output,
    reader::Reader,
    terminal::Paint,
};
use crate::runtime::clock;

/// Tells which policies touch an object of a cluster, what each decides, and what would change.
///
/// Of a pod or of what makes pods: whether policies of hardening would admit it, who reaches it and whom it reaches,
/// what network intents that are not in force would change for it, and when it goes. Of a policy: whom it is about, what
/// it does, and what is wrong with it. Of an ApiKey: what it may do, and by whose caps. Of a legal hold: what it holds,
/// since when, and until when. Of a namespace: what covers it. Of an object of any kind of a namespace, such as
/// workflows.argoproj.io/build: when it goes, or who holds it; of a ConfigMap, PersistentVolumeClaim or Secret the content is
/// not read.
///
/// It reads with your rights: what you may not read is named, and everything else is told all the same. Exits 2 when
/// there is no such object, 3 when it can't be read.
#[derive(Debug, Args)]
pub(super) struct ExplainCommand {
    /// The object, such as pod/web, deploy/web, netpol/web, rsp/web, rkey/orders, rhold/case-17 or ns/shop.
    #[arg(value_name = "KIND/NAME", value_parser = kinds::parse)]
    object: Asked,
    /// Its namespace; without it, that of the kubeconfig's context.
    #[arg(long, short)]
    namespace: Option<String>,
    #[command(flatten)]
    connection: Connection,
    /// How to tell it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Namespace that Rampart is installed in.
    #[arg(long, env = "RAMPART_NAMESPACE", default_value = "rampart-system")]
    rampart_namespace: String,
    #[command(flatten)]
    facts: ClusterFacts,
}

impl ExplainCommand {
    pub(super) fn run(self) -> Result<ExitCode> {
        let Some(told) = block_on(self.told())? else { return Ok(ExitCode::from(BAD_INPUT)) };
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        match self.output {
            Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?,
            Output::Text => out.write_all(text::text(&told, Paint::stdout()).as_bytes())?,
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }

    /// `None` where there is no such object or kind, which has been said.
    async fn told(&self) -> Result<Option<Explanation>> {
        let (client, namespace) = self.connection.client(self.namespace.as_deref()).await?;
        let Asked { kind, name } = &self.object;
        let kind = match kind.listed() {
            Some(kind) => Cow::Borrowed(kind),
            None => match other::find(&client, kind).await? {
                Ok(kind) => Cow::Owned(kind),
                Err(why) => {
                    eprintln!("rampart: {why}");
                    return Ok(None);
                }
            },
        };
        let namespace = if kind.what == kinds::What::Namespace { name.clone() } else { namespace };
        let reader = Reader::new(client, namespace);
        let Some(object) = reader.object(&kind, name).await.map_err(|error| shortly(error, &kind.resource().plural))?
        else {
            let place =
                if kind.is_namespaced() { format!(" in namespace {}", reader.namespace) } else { String::new() };
            eprintln!("rampart: there is no {} {name}{place}", kind.name);
            return Ok(None);
        };
        let known = reader.known(kind.what, &self.facts.known(), &self.rampart_namespace).await;
        Ok(Some(explain(&kind, &object, &known, clock::now())))
    }
}
