//! Logs: one line an event, JSON or text, redacted in the formatter so that no call can forget it.

use std::fmt::{self, Write as _};

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

/// Sends logs to standard error from now on. `filter` is in the form of `RUST_LOG`.
///
/// # Errors
/// When the filter is not one, or logs go somewhere already.
pub fn init(format: Format, filter: &str) -> anyhow::Result<()> {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .fmt_fields(JsonFields)
        .event_format(Line { format });
    tracing_subscriber::registry().with(filter.parse::<EnvFilter>()?).with(layer).try_init()?;
    Ok(())
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
                write!(writer, "{now:.3} {level:>5} {message}")?;
                for (name, value) in &fields {
                    match value {
                        Value::String(text) => write!(writer, " {name}={text}")?,
                        other => write!(writer, " {name}={other}")?,
                    }
                }
                writeln!(writer)
            }
        }
    }
}
