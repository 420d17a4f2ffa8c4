//! One event as one line of JSON: its fields, and those of the span that it happened in.
//!
//! tracing-subscriber's own JSON reads the span's fields again for each event, which costs more than the call that the line
//! is of; here they are taken as they were written.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Spans' fields must be formatted as JSON objects ([`JsonFields`](tracing_subscriber::fmt::format::JsonFields)).
pub(super) struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let about = event.metadata();
        line.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut line)?;
        write!(line, "\",\"level\":\"{}\"", about.level())?;
        let mut fields = Fields {
            line: &mut line,
            written: Ok(()),
        };
        event.record(&mut fields);
        fields.written?;
        line.write_str(",\"target\":")?;
        write_text(&mut line, about.target())?;
        if let Some(span) = context.lookup_current() {
            line.write_str(",\"span\":{\"name\":")?;
            write_text(&mut line, span.name())?;
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            match fields.and_then(|fields| fields.fields.strip_prefix('{')) {
                Some(fields) if fields.len() > 1 => write!(line, ",{fields}")?,
                _ => line.write_str("}")?,
            }
        }
        line.write_str("}\n")
    }
}

/// Writes `,"field":value` for each field.
struct Fields<'a, 'w> {
    line: &'a mut Writer<'w>,
    written: fmt::Result,
}

impl Fields<'_, '_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.written.is_ok() {
            let name = field.name();
            self.written =
                write!(self.line, ",\"{}\":", name.strip_prefix("r#").unwrap_or(name)).and_then(|()| value(self.line));
        }
    }
}

impl Visit for Fields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, |line| write_text(line, &format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, |line| write_text(line, value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, |line| write!(line, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |line| write!(line, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, |line| write!(line, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, |line| match value.is_finite() {
            true => write!(line, "{value}"),
            false => line.write_str("null"),
        });
    }
}

fn write_text(line: &mut Writer<'_>, text: &str) -> fmt::Result {
    line.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing_subscriber::{fmt::format::JsonFields, layer::SubscriberExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `happens` runs, without timestamps.
    fn lines(happens: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Line)
            .fmt_fields(JsonFields::new())
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), happens);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let parse = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let time = line.as_object_mut().unwrap().remove("timestamp").unwrap();
            assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
            line
        };
        text.lines().map(parse).collect()
    }

    #[test]
    fn an_event_is_a_line_with_its_fields_and_its_span() {
        let written = lines(|| {
            let span = tracing::info_span!("rpc", name_of = "a \"b\"\n", n = 3, late = tracing::field::Empty);
            span.record("late", true);
            span.in_scope(|| tracing::warn!(code = ?Some(1), took_ms = 1.5, r#type = "x\u{1}", "it \\ happened"));
            tracing::info_span!("bare").in_scope(|| tracing::info!(n = -1, none = f64::NAN));
            tracing::error!("alone");
        });
        let target = "kit::telemetry::line::tests";
        assert_eq!(
            written,
            [
                json!({"level": "WARN", "message": "it \\ happened", "code": "Some(1)", "took_ms": 1.5, "type": "x\u{1}",
                    "target": target, "span": {"name": "rpc", "name_of": "a \"b\"\n", "n": 3, "late": true}}),
                json!({"level": "INFO", "n": -1, "none": null, "target": target, "span": {"name": "bare"}}),
                json!({"level": "ERROR", "message": "alone", "target": target}),
            ]
        );
    }
}
