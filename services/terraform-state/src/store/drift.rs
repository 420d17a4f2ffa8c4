//! Drift logs: written once with their check, never changed.

use diesel::{ExpressionMethods, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::{
    model::drift::{DriftFilter, DriftLog, DriftLogId, NewDriftLog},
    schema::drift_logs,
};

/// Rows of one statement: PostgreSQL takes 65,535 values.
const ROWS_AT_ONCE: usize = 1_000;

/// Writes the logs of a check.
pub(crate) async fn insert(tx: &mut Tx, logs: &[NewDriftLog]) -> Result<()> {
    for logs in logs.chunks(ROWS_AT_ONCE) {
        diesel::insert_into(drift_logs::table).values(logs).execute(tx).await?;
    }
    Ok(())
}

/// Drift logs, newest first, older than `after`; at most `limit`.
pub(crate) async fn list(
    tx: &mut Tx,
    filter: &DriftFilter,
    after: Option<DriftLogId>,
    limit: usize,
) -> Result<Vec<DriftLog>> {
    let mut query = drift_logs::table
        .filter(drift_logs::org_id.eq(tx.org()))
        .select(DriftLog::as_select())
        .order(drift_logs::id.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .into_boxed();
    if let Some(state) = filter.state {
        query = query.filter(drift_logs::state_id.eq(state));
    }
    if let Some(check) = filter.check {
        query = query.filter(drift_logs::check_id.eq(check));
    }
    if let Some(after) = after {
        query = query.filter(drift_logs::id.lt(after));
    }
    Ok(query.load(tx).await?)
}
