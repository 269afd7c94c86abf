//! Logs: one line an event, JSON or text, redacted in the formatter so that no call can forget it.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span::Record,
};
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use super::redact::redacted;

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// What is never logged, whatever the filter: the client logs the whole body of an answer that it can't read, which may
/// be Secrets. The error that it returns says the same without it.
const NEVER: &str = "kube_client::client=off";

/// Sends logs to standard error from now on. `filter` is in the form of `RUST_LOG`.
///
/// # Errors
/// When the filter is not one, or logs go somewhere already.
pub fn init(format: Format, filter: &str) -> anyhow::Result<()> {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .fmt_fields(JsonFields)
        .event_format(Line { format });
    tracing_subscriber::registry().with(filter_of(filter)?).with(layer).try_init()?;
    Ok(())
}

fn filter_of(filter: &str) -> anyhow::Result<EnvFilter> {
    Ok(filter.parse::<EnvFilter>()?.add_directive(NEVER.parse()?))
}

/// Span fields are kept as a JSON object, so that an event can carry those of all its spans.
struct JsonFields;

/// One event.
struct Line {
    format: Format,
}

#[derive(Default)]
struct Collected(Map<String, Value>);

impl Collected {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        self.0.insert(name.into(), redacted(name, value));
    }
}

impl Visit for Collected {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

impl<'w> FormatFields<'w> for JsonFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut collected = Collected::default();
        fields.record(&mut collected);
        write!(writer, "{}", Value::Object(collected.0))
    }

    fn add_fields(&self, current: &'w mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let mut collected = Collected(parse(&current.fields));
        fields.record(&mut collected);
        current.fields.clear();
        write!(current.fields, "{}", Value::Object(collected.0))
    }
}

/// A client's words may hold what would look like another line, or what a terminal obeys.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) { text.escape_debug().to_string().into() } else { text.into() }
}

fn parse(fields: &str) -> Map<String, Value> {
    serde_json::from_str(fields).unwrap_or_default()
}

impl<S> FormatEvent<S, JsonFields> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Map::new();
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            if let Some(formatted) = span.extensions().get::<FormattedFields<JsonFields>>() {
                fields.extend(parse(&formatted.fields));
            }
        }
        let mut own = Collected::default();
        event.record(&mut own);
        fields.extend(own.0);
        let message = fields.remove("message").unwrap_or_default();
        let message = message.as_str().unwrap_or_default();
        let (now, level, target) = (super::clock::now(), event.metadata().level(), event.metadata().target());
        match self.format {
            Format::Json => {
                let mut line = Map::new();
                line.insert("timestamp".into(), now.to_string().into());
                line.insert("level".into(), level.as_str().into());
                line.insert("target".into(), target.into());
                line.insert("message".into(), message.into());
                line.extend(fields);
                writeln!(writer, "{}", Value::Object(line))
            }
            Format::Text => {
                write!(writer, "{now:.3} {level:>5} {}", one_line(message))?;
                for (name, value) in &fields {
                    match value {
                        Value::String(text) => write!(writer, " {name}={}", one_line(text))?,
                        other => write!(writer, " {name}={other}")?,
                    }
                }
                writeln!(writer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// What is written of `events` under a filter.
    fn written(format: Format, filter: &str, events: impl FnOnce()) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(Arc::new(file.reopen().unwrap()))
            .fmt_fields(JsonFields)
            .event_format(Line { format });
        let subscriber = tracing_subscriber::registry().with(filter_of(filter).unwrap()).with(layer);
        tracing::subscriber::with_default(subscriber, events);
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn bodies_that_the_client_can_not_read_are_not_logged() {
        for filter in ["info", "trace", "info,kube_client=trace", "kube_client::client=trace"] {
            let text = written(Format::Json, filter, || {
                tracing::warn!(target: "kube_client::client", "{{\"kind\": \"SecretList\"}}");
                tracing::error!(target: "kube_client::client", "likewise");
            });
            assert_eq!(text, "", "{filter}");
        }
        assert!(written(Format::Json, "info", || tracing::info!("hello")).contains("hello"));
    }

    #[test]
    fn a_line_of_text_is_one_line() {
        let text = written(Format::Text, "info", || {
            tracing::info!(method = "GET\nINFO admitted\u{1b}[2J", "asked");
        });
        assert!(text.lines().count() == 1 && !text.trim_end().contains(char::is_control), "{text:?}");
    }
}
