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
        let checks = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        !checks.is_empty() && checks.iter().all(|(_, holds)| *holds)
    }

    fn report(&self, slice: &str) -> String {
        let checks = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let checks: serde_json::Map<String, serde_json::Value> = checks
            .iter()
            .map(|(name, holds)| ((*name).to_owned(), if *holds { "up" } else { "down" }.into()))
            .collect();
        serde_json::json!({ "service": slice, "ready": self.ready(), "checks": checks }).to_string()
    }
}

#[derive(Clone)]
struct Shown {
    slice: &'static str,
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

pub(super) fn router(slice: &'static str, readiness: Readiness, metrics: Arc<Metrics>) -> Router {
    let json = [("content-type", "application/json")];
    Router::new()
        .route(
            "/health",
            get(move |State(shown): State<Shown>| async move {
                (status(&shown), json, shown.readiness.report(shown.slice))
            }),
        )
        .route(
            "/health/ready",
            get(move |State(shown): State<Shown>| async move {
                (status(&shown), json, shown.readiness.report(shown.slice))
            }),
        )
        .route("/health/live", get(move || async move { (json, "{\"live\":true}") }))
        .route("/health/metrics", get(metrics_text))
        .with_state(Shown {
            slice,
            readiness,
            metrics,
        })
}

fn status(shown: &Shown) -> StatusCode {
    if shown.readiness.ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
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
