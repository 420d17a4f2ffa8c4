//! What pipelines is told of a lease: its log as it grows, and its end.

use std::{sync::Arc, time::Duration};

use api::pipelines::v1::{AppendLogRequest, CompleteRequest, Lease};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    client::{Backoff, Client, Trace},
    lease::Keeper,
    log::Log,
};

/// How long a piece of the log waits for more to come.
const PATIENCE: Duration = Duration::from_millis(800);
/// How long a report is tried for while the lease is kept.
const LIMIT: Duration = Duration::from_secs(300);

/// Stores a log until it has ended and all of it is stored, or the lease is lost.
pub(crate) async fn ship(client: Client, trace: Trace, lease: Lease, log: Arc<Log>, keeper: Arc<Keeper>) {
    let mut backoff = Backoff::up_to(Duration::from_secs(2));
    loop {
        let (offset, content) = match log.next(sleep(PATIENCE)).await {
            Ok(Some(piece)) => piece,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "the log cannot be read");
                return;
            }
        };
        let request = AppendLogRequest {
            lease_id: lease.id.clone(),
            generation: lease.generation,
            offset: i64::try_from(offset).unwrap_or(i64::MAX),
            content,
        };
        match client.append_log(trace, request).await {
            Ok(answer) => {
                log.stored(u64::try_from(answer.log_offset).unwrap_or_default());
                backoff = Backoff::up_to(Duration::from_secs(2));
            }
            Err(refusal) => {
                if let Some(expected) = refusal.expected_offset() {
                    log.stored(expected);
                } else if refusal.lease_lost() {
                    tracing::warn!(refusal = refusal.told(), "the lease is lost");
                    keeper.lose();
                    return;
                } else if refusal.definite() {
                    tracing::error!(refusal = refusal.told(), "the log is refused");
                    return;
                }
                sleep(backoff.after(&refusal)).await;
            }
        }
    }
}

/// Ends a lease, with all of its log stored; false where that could not be reported.
pub(crate) async fn complete(
    client: &Client,
    trace: Trace,
    lease: &Lease,
    log: Option<&Arc<Log>>,
    keeper: &Arc<Keeper>,
    mut request: CompleteRequest,
) -> bool {
    let deadline = Instant::now() + LIMIT;
    let mut backoff = Backoff::up_to(Duration::from_secs(2));
    while Instant::now() < deadline && !keeper.standing().lost {
        if let Some(log) = log {
            let ship = ship(client.clone(), trace, lease.clone(), log.clone(), keeper.clone());
            if timeout_at(deadline, ship).await.is_err() {
                tracing::error!("the log could not be stored in time");
                return false;
            }
            request.log_bytes = i64::try_from(log.written()).unwrap_or(i64::MAX);
        }
        let refusal = match client.complete(trace, request.clone()).await {
            Ok(_) => return true,
            Err(refusal) => refusal,
        };
        match (refusal.expected_offset(), log) {
            (Some(expected), Some(log)) => log.stored(expected),
            _ if refusal.lease_lost() => keeper.lose(),
            _ if refusal.definite() => {
                tracing::error!(refusal = refusal.told(), "the report is refused");
                return false;
            }
            _ => tracing::warn!(refusal = refusal.told(), "the report is not taken yet"),
        }
        sleep(backoff.after(&refusal)).await;
    }
    false
}
