//! Logs, traces and metrics.
//!
//! Logs are JSON lines on standard error; traces go to an OTLP endpoint where one is configured;
//! metrics are scraped from `/health/metrics`.

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::policy::Method;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tonic::Code;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, fmt::format::JsonFields, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use crate::config::Config;

mod line;

/// Starts logs and traces for the process; call once, from `main`, within a runtime.
pub(crate) fn start(config: &Config, slice: &'static str) -> Option<SdkTracerProvider> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let provider = config.otlp_endpoint.as_deref().and_then(|endpoint| {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(Duration::from_secs(3))
            .build()
            .inspect_err(|error| eprintln!("traces are off: {error}"))
            .ok()?;
        let resource = Resource::builder().with_service_name(format!("board3-{slice}")).build();
        Some(
            SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource)
                .build(),
        )
    });
    let traces = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("board3")));
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry()
        .with(filter(&config.log))
        .with(traces)
        .with(lines())
        .try_init();
    provider
}

/// Starts logs alone, for a program that serves no slice; call once, from `main`.
pub fn start_logs(log: &str) {
    let _ = tracing_subscriber::registry()
        .with(filter(log))
        .with(lines())
        .try_init();
}

fn filter(log: &str) -> EnvFilter {
    EnvFilter::try_new(log).unwrap_or_else(|_| EnvFilter::new("info"))
}

fn lines<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .event_format(line::Line)
        .fmt_fields(JsonFields::new())
        .with_writer(std::io::stderr)
}

/// Logs panics like everything else: where, never what, for a panic's message may hold anything.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(|place| format!("{}:{}", place.file(), place.line()))
            .unwrap_or_default();
        tracing::error!(place, "panicked");
    }));
}

/// The service's metrics.
pub struct Metrics {
    registry: Registry,
    calls: Family<[(&'static str, String); 2], Counter>,
    durations: Family<[(&'static str, String); 1], Histogram>,
    readings: Mutex<Vec<Reading>>,
}

type Values = Vec<(String, f64)>;

/// A figure that is read when it is asked for.
struct Reading {
    name: &'static str,
    help: &'static str,
    read: Box<dyn Fn() -> Values + Send>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("board3");
        let calls = Family::<[(&'static str, String); 2], Counter>::default();
        registry.register("rpc_calls", "Calls by RPC and gRPC code", calls.clone());
        let durations = Family::<[(&'static str, String); 1], Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
        });
        registry.register(
            "rpc_duration_seconds",
            "Time from a call's arrival to its answer",
            durations.clone(),
        );
        Metrics {
            registry,
            calls,
            durations,
            readings: Mutex::default(),
        }
    }

    /// Counts a finished call.
    pub(crate) fn rpc(&self, method: &Method, code: Code, took: Duration) {
        self.calls
            .get_or_create(&[("method", method.action.to_owned()), ("code", format!("{code:?}"))])
            .inc();
        self.durations
            .get_or_create(&[("method", method.action.to_owned())])
            .observe(took.as_secs_f64());
    }

    /// A figure that is read at each scrape: pairs of labels (`pool="app"`, or empty) and value.
    pub fn reading(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> Vec<(String, f64)> + Send + 'static,
    ) {
        self.readings
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .push(Reading {
                name,
                help,
                read: Box::new(read),
            });
    }

    /// Everything in the OpenMetrics text format.
    pub fn render(self: &Arc<Self>) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            return String::new();
        }
        let end = text.strip_suffix("# EOF\n").map_or(text.len(), str::len);
        text.truncate(end);
        for reading in self
            .readings
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .iter()
        {
            let Reading { name, help, read } = reading;
            let _ = writeln!(text, "# HELP board3_{name} {help}.\n# TYPE board3_{name} gauge");
            for (labels, value) in read() {
                let braces = if labels.is_empty() {
                    String::new()
                } else {
                    format!("{{{labels}}}")
                };
                let _ = writeln!(text, "board3_{name}{braces} {value}");
            }
        }
        text.push_str("# EOF\n");
        text
    }
}
