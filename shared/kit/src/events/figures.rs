//! What the event stream counts. Kept per process and read by the metrics page; nothing decides by it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use crate::telemetry::Metrics;

/// One value for the metrics page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The metric's name without its prefix, for example `events`.
    pub name: &'static str,
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, &'static str)>,
    /// The value.
    pub value: u64,
}

const METRICS: [(&str, &str); 9] = [
    ("events", "Events taken, by the path that brought them"),
    ("event_gaps", "Times that something was missing"),
    ("event_silences", "Times that a channel fell silent"),
    (
        "event_epoch_changes",
        "Times that a source was found restored from a backup",
    ),
    ("event_dead_letters", "Events set aside for good"),
    ("event_lag", "Events of the source that are not applied yet"),
    ("relay_events", "Events given a position"),
    ("relay_announcements", "Announcements and heartbeats sent"),
    ("relay_failures", "Announcements that could not be sent"),
];

/// What one follower has met.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Events that an announcement brought.
    pub(super) announced: AtomicU64,
    /// Events that had to be fetched.
    pub(super) fetched: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) silences: AtomicU64,
    pub(super) epoch_changes: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    pub(super) head: AtomicI64,
    pub(super) position: AtomicI64,
}

/// What one relay has done.
#[derive(Debug, Default)]
pub(super) struct Relayed {
    pub(super) positioned: AtomicU64,
    pub(super) announcements: AtomicU64,
    pub(super) failures: AtomicU64,
}

type Table<K, V> = Mutex<BTreeMap<K, Arc<V>>>;
static FOLLOWED: Table<(&str, &str), Followed> = Mutex::new(BTreeMap::new());
static RELAYED: Table<&str, Relayed> = Mutex::new(BTreeMap::new());

/// The figures of a consumer over a source.
pub(super) fn followed(consumer: &'static str, source: &'static str) -> Arc<Followed> {
    FOLLOWED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry((consumer, source))
        .or_default()
        .clone()
}

/// The figures of a slice's relay.
pub(super) fn relayed(slice: &'static str) -> Arc<Relayed> {
    RELAYED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(slice)
        .or_default()
        .clone()
}

pub(super) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Relaxed);
}

/// All figures of this process's relays, followers and consumers.
pub fn stats() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (&(consumer, source), met) in &*FOLLOWED.lock().unwrap_or_else(PoisonError::into_inner) {
        let labels = vec![("consumer", consumer), ("source", source)];
        let with_path = |path| [labels.clone(), vec![("path", path)]].concat();
        let lag = met
            .head
            .load(Relaxed)
            .saturating_sub(met.position.load(Relaxed))
            .max(0)
            .unsigned_abs();
        samples.extend([
            Sample {
                name: "events",
                labels: with_path("pubsub"),
                value: met.announced.load(Relaxed),
            },
            Sample {
                name: "events",
                labels: with_path("replay"),
                value: met.fetched.load(Relaxed),
            },
            Sample {
                name: "event_gaps",
                labels: labels.clone(),
                value: met.gaps.load(Relaxed),
            },
            Sample {
                name: "event_silences",
                labels: labels.clone(),
                value: met.silences.load(Relaxed),
            },
            Sample {
                name: "event_epoch_changes",
                labels: labels.clone(),
                value: met.epoch_changes.load(Relaxed),
            },
            Sample {
                name: "event_dead_letters",
                labels: labels.clone(),
                value: met.dead_letters.load(Relaxed),
            },
            Sample {
                name: "event_lag",
                labels,
                value: lag,
            },
        ]);
    }
    for (&slice, done) in &*RELAYED.lock().unwrap_or_else(PoisonError::into_inner) {
        let labels = vec![("slice", slice)];
        samples.extend([
            Sample {
                name: "relay_events",
                labels: labels.clone(),
                value: done.positioned.load(Relaxed),
            },
            Sample {
                name: "relay_announcements",
                labels: labels.clone(),
                value: done.announcements.load(Relaxed),
            },
            Sample {
                name: "relay_failures",
                labels,
                value: done.failures.load(Relaxed),
            },
        ]);
    }
    samples
}

/// Puts all figures on the metrics page.
pub(crate) fn expose(metrics: &Metrics) {
    for (name, help) in METRICS {
        metrics.reading(name, help, move || {
            let labelled = |sample: Sample| {
                let labels: Vec<_> = sample
                    .labels
                    .iter()
                    .map(|(label, value)| format!("{label}=\"{value}\""))
                    .collect();
                (labels.join(","), sample.value as f64)
            };
            stats()
                .into_iter()
                .filter(|sample| sample.name == name)
                .map(labelled)
                .collect()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_its_place_on_the_metrics_page() {
        add(&followed("figures_test", "designs").announced, 3);
        relayed("designs");
        let metrics = Arc::new(Metrics::new());
        expose(&metrics);
        let page = metrics.render();
        assert!(
            stats()
                .iter()
                .all(|sample| page.contains(&format!("board3_{}{{", sample.name)))
        );
        assert!(
            page.contains("board3_events{consumer=\"figures_test\",source=\"designs\",path=\"pubsub\"} 3\n"),
            "{page}"
        );
    }
}
