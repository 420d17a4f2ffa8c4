//! Health over HTTP, beside grpc.health.v1: `/health`, `/health/live`, `/health/ready`, `/health/metrics`.

use std::sync::{Arc, RwLock};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};

use crate::telemetry::Metrics;

/// What was last found out about what the service needs.
#[derive(Clone, Default)]
pub(super) struct Readiness(Arc<RwLock<Vec<(&'static str, bool)>>>);

impl Readiness {
    pub(super) fn set(&self, checks: Vec<(&'static str, bool)>) {
        *self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = checks;
    }

    pub(super) fn ready(&self) -> bool {
        all_hold(&self.checks())
    }

    fn checks(&self) -> Vec<(&'static str, bool)> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

fn all_hold(checks: &[(&'static str, bool)]) -> bool {
    !checks.is_empty() && checks.iter().all(|(_, holds)| *holds)
}

#[derive(Clone)]
struct Shown {
    slice: &'static str,
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

pub(super) fn router(slice: &'static str, readiness: Readiness, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/health", get(report))
        .route("/health/ready", get(report))
        .route("/health/live", get(async || (JSON, "{\"live\":true}")))
        .route("/health/metrics", get(metrics_text))
        .with_state(Shown {
            slice,
            readiness,
            metrics,
        })
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

/// Status and text are of the same moment.
async fn report(State(shown): State<Shown>) -> impl IntoResponse {
    let checks = shown.readiness.checks();
    let ready = all_hold(&checks);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let checks: serde_json::Map<String, serde_json::Value> = checks
        .iter()
        .map(|(name, holds)| ((*name).to_owned(), if *holds { "up" } else { "down" }.into()))
        .collect();
    let text = serde_json::json!({ "service": shown.slice, "ready": ready, "checks": checks });
    (status, JSON, text.to_string())
}

async fn metrics_text(State(shown): State<Shown>) -> impl IntoResponse {
    (
        [(
            "content-type",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        shown.metrics.render(),
    )
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[test]
    fn probes_and_checks_at_the_same_moment_do_not_wait_for_each_other() {
        let shown = Shown {
            slice: "designs",
            readiness: Readiness::default(),
            metrics: Arc::new(Metrics::new()),
        };
        let (done, ended) = mpsc::channel();
        for probes in [false, true, true] {
            let (shown, done) = (shown.clone(), done.clone());
            std::thread::spawn(move || {
                for round in 0..100_000 {
                    if probes {
                        futures_util::FutureExt::now_or_never(report(State(shown.clone())))
                            .expect("nothing is waited for");
                    } else {
                        shown.readiness.set(vec![("postgres", round % 2 == 0)]);
                    }
                }
                done.send(()).expect("the test listens");
            });
        }
        for _ in 0..3 {
            ended.recv_timeout(Duration::from_secs(60)).expect("nobody is stuck");
        }
    }
}
