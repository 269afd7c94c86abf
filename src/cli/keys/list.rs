//! `rampart keys list`: versions, never material.

use std::{io::Write as _, process::ExitCode};

use anyhow::Result;
use clap::Args;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use serde::Serialize;

use super::{
    super::{
        BAD_INPUT,
        connection::{block_on, shortly},
        lead,
        output::Output,
        terminal::{Paint, Tone},
    },
    place::{KINDS, Key, Place},
};
use crate::{
    api::{ApiKey, ConsumerStatus, TokenRef, VerifierCounts, VersionState, VersionStatus, condition::Type},
    cluster::error::call,
};

/// Lists ApiKeys with their versions: ids and dates, never a key.
///
/// Exits 2 when there is no ApiKey of that name.
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    /// Name of the ApiKey; without it, all.
    name: Option<String>,
    /// Those of all namespaces.
    #[arg(long, short = 'A', conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,
    #[command(flatten)]
    place: Place,
    /// How to tell it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Namespace that Rampart is installed in.
    #[arg(long, env = "RAMPART_NAMESPACE", default_value = "rampart-system")]
    rampart_namespace: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    schema_version: u32,
    keys: Vec<Row>,
}

/// What is told of an ApiKey: field by field, so that nothing that is added to the kind gets here unseen.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    owner: String,
    audiences: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    permissions: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    imported_from: Option<TokenRef>,
    suspended: bool,
    /// The operator leaves it alone.
    suspend: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
    ready: bool,
    reason: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_rotation_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<Time>,
    uses: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verifiers: Option<VerifierCounts>,
    versions: Vec<VersionStatus>,
    consumers: Vec<ConsumerStatus>,
}

impl List {
    pub(super) fn run(self) -> Result<ExitCode> {
        let Some(keys) = block_on(self.keys())? else { return Ok(ExitCode::from(BAD_INPUT)) };
        let rows: Vec<Row> = keys.into_iter().map(row).collect();
        let mut out = std::io::stdout().lock();
        match self.output {
            Output::Json => {
                writeln!(out, "{}", serde_json::to_string_pretty(&Answer { schema_version: 1, keys: rows })?)?;
            }
            Output::Text => out.write_all(
                rows.iter().map(|row| text(row, Paint::stdout())).collect::<Vec<_>>().join("\n").as_bytes(),
            )?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn keys(&self) -> Result<Option<Vec<ApiKey>>> {
        let (client, namespace) = self.place.client().await?;
        let keys = match &self.name {
            Some(name) => Key::of(client.clone(), namespace, name).read().await?.map(|key| vec![key]),
            None => Some(self.listed(client.clone(), &namespace).await?),
        };
        if keys.is_some()
            && let Some(since) = lead::away_since(&client, &self.rampart_namespace).await
        {
            eprintln!("rampart: {}", lead::note(since));
        }
        Ok(keys)
    }

    async fn listed(&self, client: Client, namespace: &str) -> Result<Vec<ApiKey>> {
        let api: Api<ApiKey> = if self.all_namespaces { Api::all(client) } else { Api::namespaced(client, namespace) };
        let listed = call(|| "listing ApiKeys".into(), api.list(&ListParams::default())).await;
        let all = listed.map_err(|error| shortly(error, KINDS))?.items;
        if all.is_empty() {
            eprintln!("there are no ApiKeys{}", if self.all_namespaces { "" } else { " in this namespace" });
        }
        Ok(all)
    }
}

fn row(key: ApiKey) -> Row {
    let (namespace, name) = (key.namespace().unwrap_or_default(), key.name_any());
    let (spec, status) = (key.spec, key.status.unwrap_or_default());
    let ready = status.conditions.into_iter().find(|condition| condition.type_ == Type::Ready.as_str());
    let usage = status.usage.unwrap_or_default();
    Row {
        namespace,
        name,
        imported_from: spec.imported().map(|it| it.secret_ref.clone()),
        owner: spec.owner.customer_id,
        audiences: spec.audiences,
        role: spec.role,
        permissions: spec.permissions,
        prefix: spec.prefix,
        suspended: spec.suspended == Some(true),
        suspend: spec.suspend == Some(true),
        revoked: spec.revocation.map(|revocation| revocation.reason),
        ready: ready.as_ref().is_some_and(|it| it.status == "True"),
        reason: ready.as_ref().map_or_else(|| "Unseen".into(), |it| it.reason.clone()),
        message: ready.map(|it| it.message).unwrap_or_default(),
        next_rotation_time: status.next_rotation_time,
        last_used: usage.last_used,
        uses: usage.count,
        verifiers: status.verifiers,
        versions: status.versions,
        consumers: status.consumers,
    }
}

fn text(row: &Row, paint: Paint) -> String {
    let mut lines = vec![];
    let may = match (&row.imported_from, &row.role) {
        (Some(from), _) => format!("imported from Secret {}", from.name),
        (None, Some(role)) => role.clone(),
        (None, None) => row.permissions.join(", "),
    };
    let time = |time: Option<&Time>| time.map_or_else(|| "-".into(), |time| time.0.to_string());
    let title = format!("{}/{}: {may} of {} at {}", row.namespace, row.name, row.owner, row.audiences.join(", "));
    lines.push(paint.head(plain(&title)));
    let mut line = |tone: Tone, text: &str| lines.push(paint.tone(tone, plain(text)));
    let why = if row.message.is_empty() { String::new() } else { format!(": {}", row.message) };
    let (tone, ready) = if row.ready { (Tone::Good, "ready") } else { (Tone::Bad, "not ready") };
    line(tone, &format!("  {ready} ({}){why}", row.reason));
    if let Some(reason) = &row.revoked {
        line(Tone::Bad, &format!("  revoked: {reason}"));
    }
    if row.suspended {
        line(Tone::Warn, "  suspended: verifiers refuse every version");
    }
    if row.suspend {
        line(Tone::Warn, "  left alone by the operator (spec.suspend): nothing is rotated");
    }
    let used = format!("last used {}, {} times", time(row.last_used.as_ref()), row.uses);
    let verifiers = row.verifiers.as_ref().map(|it| format!("; {} of {} verifiers have it", it.up_to_date, it.desired));
    let next = time(row.next_rotation_time.as_ref());
    line(Tone::Plain, &format!("  next rotation {next}; {used}{}", verifiers.unwrap_or_default()));
    let head = ["N", "ID", "STATE", "CREATED", "EXPIRES", "DESTROYED-AT", "REPLACED-BY"].map(ToOwned::to_owned);
    let version = |it: &VersionStatus| {
        let cells = [
            it.n.to_string(),
            it.id.clone(),
            format!("{:?}", it.state),
            it.created_at.0.to_string(),
            it.expires_at.0.to_string(),
            time(it.destroy_at.as_ref()),
            it.replaced_by.clone().unwrap_or_else(|| "-".into()),
        ];
        (tone_of(it.state), cells)
    };
    let table: Vec<(Tone, [String; 7])> =
        std::iter::once((Tone::Plain, head)).chain(row.versions.iter().map(version)).collect();
    let cells = |column: usize| table.iter().filter_map(move |(_, cells)| cells.get(column));
    let width = |column: usize| cells(column).map(String::len).max().unwrap_or(0);
    for (tone, cells) in table.iter().filter(|_| !row.versions.is_empty()) {
        let padded = cells.iter().enumerate().map(|(column, cell)| format!("{cell:width$}", width = width(column)));
        line(*tone, &format!("  {}", padded.collect::<Vec<_>>().join("  ").trim_end()));
    }
    for consumer in &row.consumers {
        let version = consumer.version.map_or_else(|| "no version".into(), |n| format!("version {n}"));
        let (tone, ready) = if consumer.ready { (Tone::Plain, "") } else { (Tone::Warn, ", not all of its pods") };
        let why = consumer.message.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        line(tone, &format!("  {} runs {version}{ready}{why}", consumer.workload));
    }
    lines.join("\n") + "\n"
}

const fn tone_of(state: VersionState) -> Tone {
    match state {
        VersionState::Current => Tone::Good,
        VersionState::Pending | VersionState::Deprecated => Tone::Warn,
        VersionState::Revoked => Tone::Bad,
        VersionState::Destroyed => Tone::Plain,
    }
}

/// A text without what would steer a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_apikey_is_told_with_its_versions() {
        let key: ApiKey = serde_json::from_value(json!({
            "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {"owner": {"customerId": "acme"}, "audiences": ["orders-api"], "role": "Viewer", "prefix": "shop",
                     "secret": {"name": "s"}, "revocation": {"reason": "Leaked \u{1b}[31m"}},
            "status": {
                "versions": [
                    {"n": 9, "id": "0123abcd", "state": "Deprecated", "createdAt": "2026-01-01T00:00:00Z",
                     "expiresAt": "2027-01-01T00:00:00Z", "destroyAt": "2026-02-01T00:00:00Z", "replacedBy": "4567efgh"},
                    {"n": 10, "id": "4567efgh", "state": "Current", "createdAt": "2026-01-02T00:00:00Z",
                     "expiresAt": "2027-01-02T00:00:00Z"}],
                "usage": {"lastUsed": "2026-01-03T00:00:00Z", "count": 7}, "verifiers": {"desired": 2, "upToDate": 1},
                "consumers": [{"workload": "Deployment/web", "version": 9, "ready": false, "message": "1 of 2 pods"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "",
                                "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap();
        let row = row(key);
        let (told, painted) = (text(&row, Paint::default()), text(&row, Paint::colors()));
        assert_eq!(anstream::adapter::strip_str(&painted).to_string(), told);
        assert!(painted.contains("\u{1b}[32m  10  4567efgh  Current"), "{painted}");
        assert_eq!(
            told,
            "shop/orders: Viewer of acme at orders-api\n  ready (Ready)\n  revoked: Leaked [31m\n  \
             next rotation -; last used 2026-01-03T00:00:00Z, 7 times; 1 of 2 verifiers have it\n  \
             N   ID        STATE       CREATED               EXPIRES               DESTROYED-AT          REPLACED-BY\n  \
             9   0123abcd  Deprecated  2026-01-01T00:00:00Z  2027-01-01T00:00:00Z  2026-02-01T00:00:00Z  4567efgh\n  \
             10  4567efgh  Current     2026-01-02T00:00:00Z  2027-01-02T00:00:00Z  -                     -\n  \
             Deployment/web runs version 9, not all of its pods: 1 of 2 pods\n"
        );
        let told = text(&Row { suspend: true, ..row }, Paint::default());
        assert!(told.contains("\n  left alone by the operator (spec.suspend): nothing is rotated\n"), "{told}");
    }
}
