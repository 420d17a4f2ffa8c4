//! How jobs stand: attempts, as the other services see them.

use diesel::{BoolExpressionMethods, ExpressionMethods, JoinOnDsl, QueryDsl};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};
use time::OffsetDateTime;

use crate::{
    model::{AttemptId, AttemptStatus, ExecutionId},
    schema::{clock_timestamp, pipeline_stages, stage_attempts},
};

/// A job with what tells how it stands.
pub(crate) struct Job {
    pub(crate) id: AttemptId,
    pub(crate) execution: ExecutionId,
    pub(crate) status: AttemptStatus,
    /// Whether its lease has run out.
    pub(crate) overdue: bool,
}

/// Those of the organization's jobs that have these ids.
pub(crate) async fn list(tx: &mut Tx, jobs: &[AttemptId]) -> Result<Vec<Job>> {
    type Row = (AttemptId, ExecutionId, AttemptStatus, OffsetDateTime, OffsetDateTime);
    let rows: Vec<Row> = stage_attempts::table
        .inner_join(
            pipeline_stages::table.on(pipeline_stages::org_id
                .eq(stage_attempts::org_id)
                .and(pipeline_stages::id.eq(stage_attempts::stage_id))),
        )
        .filter(stage_attempts::org_id.eq(tx.org()))
        .filter(stage_attempts::id.eq_any(jobs))
        .select((
            stage_attempts::id,
            pipeline_stages::execution_id,
            stage_attempts::status,
            stage_attempts::expires_at,
            clock_timestamp(),
        ))
        .load(tx)
        .await?;
    let jobs = rows.into_iter().map(|(id, execution, status, expires_at, now)| Job {
        id,
        execution,
        status,
        overdue: expires_at <= now,
    });
    Ok(jobs.collect())
}
