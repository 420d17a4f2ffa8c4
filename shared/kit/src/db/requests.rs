//! How long a call's request id is remembered, and its end: nothing is kept longer than a day and an hour or so.

use std::time::Duration;

use diesel_async::RunQueryDsl;

use super::Db;
use crate::{auth::scope::WorkerScope, error::Result};

/// How long an answer is kept for repeats; the policies of `requests` let the worker see what is older.
pub(super) const KEPT_HOURS: i32 = 24;
/// Most rows of one transaction.
const BATCH: usize = 1000;
const FIRST: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Deletes what is kept for too long and answers how much that was. `worker` is the worker role's pool.
pub async fn prune(worker: &Db) -> Result<usize> {
    let scope = WorkerScope { slice: worker.slice() };
    let prune = format!(
        "with old as ( \
           select org_id, principal, method, request_id from requests \
           where created_at < now() - interval '{KEPT_HOURS} hours' order by created_at limit {BATCH} \
         ) \
         delete from requests using old \
         where (requests.org_id, requests.principal, requests.method, requests.request_id) \
           = (old.org_id, old.principal, old.method, old.request_id) \
           and requests.created_at < now() - interval '{KEPT_HOURS} hours'"
    );
    let mut pruned = 0;
    loop {
        let batch = worker
            .read(&scope, async |tx| Ok(diesel::sql_query(&prune).execute(tx).await?))
            .await?;
        pruned += batch;
        if batch < BATCH {
            return Ok(pruned);
        }
    }
}

/// Prunes every hour until it is dropped.
pub(crate) async fn keep_pruned(worker: Db) {
    tokio::time::sleep(FIRST).await;
    loop {
        match prune(&worker).await {
            Ok(0) => {}
            Ok(pruned) => tracing::info!(pruned, "old request ids are forgotten"),
            Err(error) => tracing::warn!(error = ?error, "old request ids are kept until the next turn"),
        }
        tokio::time::sleep(EVERY).await;
    }
}
