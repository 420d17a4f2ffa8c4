//! Measures statements and, in development, logs their text; values are never part of it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use diesel::connection::{Instrumentation, InstrumentationEvent};

static STATEMENTS: AtomicU64 = AtomicU64::new(0);
static MICROSECONDS: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// One connection's instrumentation.
pub(super) struct Queries {
    pub(super) log: bool,
    pub(super) started: Option<Instant>,
}

impl Instrumentation for Queries {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { .. } => self.started = Some(Instant::now()),
            InstrumentationEvent::FinishQuery { query, error, .. } => {
                let took = self.started.take().map(|started| started.elapsed()).unwrap_or_default();
                STATEMENTS.fetch_add(1, Ordering::Relaxed);
                MICROSECONDS.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
                if error.is_some() {
                    FAILED.fetch_add(1, Ordering::Relaxed);
                }
                if self.log {
                    // diesel shows the bound values after `-- binds:`.
                    let text = query.to_string();
                    let statement = text.split("-- binds:").next().unwrap_or_default().trim();
                    tracing::info!(statement, took_us = took.as_micros() as u64, "sql");
                }
            }
            _ => {}
        }
    }
}

/// Statements, their total time in seconds, and how many failed, in this process.
pub(crate) fn readings() -> Vec<(String, f64)> {
    vec![
        ("of=\"count\"".to_owned(), STATEMENTS.load(Ordering::Relaxed) as f64),
        (
            "of=\"seconds\"".to_owned(),
            MICROSECONDS.load(Ordering::Relaxed) as f64 / 1e6,
        ),
        ("of=\"failed\"".to_owned(), FAILED.load(Ordering::Relaxed) as f64),
    ]
}
