//! Whether the service can serve: asked again and again, and told both ways that health is told.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::super::{Stack, health::Readiness};
use crate::{
    db::migrate,
    service::{Kit, Service},
};

/// What does not answer in this time is down: a frozen server keeps its connections.
const ANSWER: Duration = Duration::from_secs(2);

/// Looks every half second whether everything that a call needs is there, until the service stops.
pub(super) async fn keep(
    service: Service,
    kit: Kit,
    stack: Arc<Stack>,
    readiness: Readiness,
    reporter: HealthReporter,
    names: Vec<&'static str>,
    shutdown: CancellationToken,
) {
    let mut migrated = false;
    let mut told = None;
    while !shutdown.is_cancelled() {
        let (postgres, redis, nothing_pending) = tokio::join!(
            holds(async { kit.db.ping().await.is_ok() }),
            holds(async { kit.redis.ping().await.is_ok() }),
            holds(async {
                migrated
                    || matches!(
                        migrate::pending(&kit.config.database_url, service.slice).await,
                        Ok(false)
                    )
            }),
        );
        migrated = nothing_pending;
        readiness.set(vec![
            ("postgres", postgres),
            ("redis", redis),
            ("migrations", migrated),
            ("keys", stack.gate.ready()),
        ]);
        let ready = readiness.ready();
        if told != Some(ready) {
            let status = if ready {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            tell(&reporter, &names, status).await;
            told = Some(ready);
        }
        let pause = Duration::from_millis(if ready { 500 } else { 50 });
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => {}
        }
    }
    readiness.set(vec![("serving", false)]);
    tell(&reporter, &names, ServingStatus::NotServing).await;
}

async fn holds(asked: impl Future<Output = bool>) -> bool {
    tokio::time::timeout(ANSWER, asked).await.unwrap_or(false)
}

async fn tell(reporter: &HealthReporter, names: &[&'static str], status: ServingStatus) {
    for name in names.iter().chain(&["readiness"]) {
        reporter.set_service_status(*name, status).await;
    }
}
