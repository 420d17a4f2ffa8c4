//! Whether the runner lives and is ready, over HTTP and as gRPC health on the same port.
//!
//! It is ready while it is registered and pipelines has answered its last question for work.

use std::{net::TcpListener, sync::Arc};

use axum::{http::StatusCode, routing::get};
use tokio::{sync::watch, task::JoinHandle};
use tonic::service::Routes;
use tonic_health::ServingStatus;

/// Says what is served.
pub(crate) struct Health(Arc<watch::Sender<bool>>);

impl Health {
    /// Serves, not ready yet.
    pub(crate) async fn serve(listener: &TcpListener) -> (Health, JoinHandle<()>) {
        let ready = Arc::new(watch::Sender::new(false));
        let (reporter, grpc) = tonic_health::server::health_reporter();
        reporter.set_service_status("liveness", ServingStatus::Serving).await;
        reporter
            .set_service_status("readiness", ServingStatus::NotServing)
            .await;
        let told = ready.clone();
        let router = Routes::new(grpc)
            .prepare()
            .into_axum_router()
            .route("/health/live", get(async || "live\n"))
            .route(
                "/health/ready",
                get(async move || match *told.borrow() {
                    true => (StatusCode::OK, "ready\n"),
                    false => (StatusCode::SERVICE_UNAVAILABLE, "pipelines has not answered\n"),
                }),
            );
        let listener = listener.try_clone().and_then(tokio::net::TcpListener::from_std);
        let mut changes = ready.subscribe();
        let serving = tokio::spawn(async move {
            let follow = async {
                while changes.changed().await.is_ok() {
                    let status = match *changes.borrow_and_update() {
                        true => ServingStatus::Serving,
                        false => ServingStatus::NotServing,
                    };
                    reporter.set_service_status("readiness", status).await;
                }
            };
            let serve = async {
                match listener {
                    Ok(listener) => axum::serve(listener, router).await,
                    Err(error) => Err(error),
                }
            };
            let (served, ()) = tokio::join!(serve, follow);
            if let Err(error) = served {
                tracing::error!(%error, "health is not served");
            }
        });
        (Health(ready), serving)
    }

    /// From now on it is, or it is not.
    pub(crate) fn ready(&self, ready: bool) {
        self.0
            .send_if_modified(|before| std::mem::replace(before, ready) != ready);
    }
}
