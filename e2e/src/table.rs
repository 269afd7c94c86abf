//! What `kubectl get` shows: the API server's own table, printed as kubectl prints it.

use anyhow::Result;
use kube::Client;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    column_definitions: Vec<Column>,
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    priority: i32,
}

#[derive(Deserialize)]
struct Row {
    cells: Vec<Value>,
    object: Value,
}

/// The table of every object of a resource in all namespaces, with its namespace first; empty when
/// there are none.
///
/// # Errors
/// When the API server does not answer with a table.
pub async fn of(client: &Client, group_version: &str, plural: &str) -> Result<String> {
    let request = http::Request::get(format!("/apis/{group_version}/{plural}"))
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(vec![])?;
    let table: Table = serde_json::from_str(&client.request_text(request).await?)?;
    if table.rows.is_empty() {
        return Ok(String::new());
    }
    let shown: Vec<usize> =
        (0..table.column_definitions.len()).filter(|at| table.column_definitions[*at].priority == 0).collect();
    let mut lines = vec![vec!["NAMESPACE".to_owned()]];
    lines[0].extend(shown.iter().map(|at| table.column_definitions[*at].name.to_uppercase()));
    for row in &table.rows {
        let mut line = vec![row.object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned()];
        line.extend(shown.iter().map(|at| cell(&row.cells[*at])));
        lines.push(line);
    }
    Ok(aligned(&lines))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn aligned(lines: &[Vec<String>]) -> String {
    let width = |at: usize| lines.iter().map(|line| line[at].len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let line = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}
