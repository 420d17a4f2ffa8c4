//! Stages of executions, and what is shown of the attempts at them.

use std::collections::HashMap;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, OptionalExtension, QueryDsl,
    SelectableHelper,
};
use diesel_async::RunQueryDsl;
use kit::{Error, Result, db::Tx};

use crate::{
    model::{
        ExecutionId, FailureDetail, FailureReason, RunnerName, StageId, StageStatus,
        attempt::{Attempt, Outcome},
        pipeline::Definition,
        stage::{Shown, Stage, StageRow},
    },
    schema::{clock_timestamp, pipeline_stages, runners, stage_attempts},
};

/// Makes the stages of an execution, those that need nothing ready at once.
pub(crate) async fn insert(tx: &mut Tx, execution: ExecutionId, definition: &Definition) -> Result<()> {
    let rows: Vec<StageRow<'_>> = definition
        .stages()
        .iter()
        .zip(0..)
        .map(|(stage, position)| StageRow {
            org_id: tx.org(),
            id: StageId::new(),
            execution_id: execution,
            position,
            name: &stage.name,
            kind: stage.kind,
            needs: &stage.needs,
            status: if stage.needs.is_empty() {
                StageStatus::Ready
            } else {
                StageStatus::Blocked
            },
        })
        .collect();
    diesel::insert_into(pipeline_stages::table)
        .values(&rows)
        .execute(tx)
        .await?;
    Ok(())
}

/// A stage.
pub(crate) async fn find(tx: &mut Tx, id: StageId) -> Result<Option<Stage>> {
    Ok(pipeline_stages::table
        .find((tx.org(), id))
        .select(Stage::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// The stages of an execution in the pipeline's order, after a position; at most `limit`.
pub(crate) async fn list(tx: &mut Tx, execution: ExecutionId, after: Option<i32>, limit: i64) -> Result<Vec<Stage>> {
    Ok(pipeline_stages::table
        .filter(pipeline_stages::org_id.eq(tx.org()))
        .filter(pipeline_stages::execution_id.eq(execution))
        .filter(pipeline_stages::position.gt(after.unwrap_or(-1)))
        .order(pipeline_stages::position)
        .limit(limit)
        .select(Stage::as_select())
        .load(tx)
        .await?)
}

/// The stages with their attempts, oldest first.
pub(crate) async fn shown(tx: &mut Tx, stages: Vec<Stage>) -> Result<Vec<Shown>> {
    let ids: Vec<StageId> = stages.iter().map(|stage| stage.id).collect();
    let rows: Vec<(Attempt, RunnerName)> = stage_attempts::table
        .inner_join(
            runners::table.on(runners::org_id
                .eq(stage_attempts::org_id)
                .and(runners::id.eq(stage_attempts::runner_id))),
        )
        .filter(stage_attempts::org_id.eq(tx.org()))
        .filter(stage_attempts::stage_id.eq_any(ids))
        .order((stage_attempts::stage_id, stage_attempts::number))
        .select((Attempt::as_select(), runners::name))
        .load(tx)
        .await?;
    let mut attempts: HashMap<StageId, Vec<(Attempt, RunnerName)>> = HashMap::new();
    for row in rows {
        attempts.entry(row.0.stage_id).or_default().push(row);
    }
    let shown = stages.into_iter().map(|stage| Shown {
        attempts: attempts.remove(&stage.id).unwrap_or_default(),
        stage,
    });
    Ok(shown.collect())
}

/// Puts a stage into a runner's hands, as one attempt more; its execution is locked.
///
/// # Errors
/// INTERNAL where the stage was not ready.
pub(crate) async fn update_leased(tx: &mut Tx, stage: &Stage) -> Result<Stage> {
    permit(stage, StageStatus::Leased)?;
    Ok(diesel::update(pipeline_stages::table.find((tx.org(), stage.id)))
        .set((
            pipeline_stages::status.eq(StageStatus::Leased),
            pipeline_stages::attempts.eq(pipeline_stages::attempts + 1),
        ))
        .returning(Stage::as_returning())
        .get_result(tx)
        .await?)
}

/// Notes that a runner has begun a stage; its execution is locked.
///
/// # Errors
/// INTERNAL where the stage was not leased.
pub(crate) async fn update_running(tx: &mut Tx, stage: &Stage) -> Result<Stage> {
    permit(stage, StageStatus::Running)?;
    Ok(diesel::update(pipeline_stages::table.find((tx.org(), stage.id)))
        .set(pipeline_stages::status.eq(StageStatus::Running))
        .returning(Stage::as_returning())
        .get_result(tx)
        .await?)
}

/// Writes what the end of an attempt makes of its stage; its execution is locked, and is to be advanced next.
///
/// # Errors
/// INTERNAL where the stage cannot become that.
pub(crate) async fn update_ended(tx: &mut Tx, stage: &Stage, outcome: &Outcome) -> Result<()> {
    permit(stage, outcome.stage)?;
    put(
        tx,
        stage.id,
        outcome.stage,
        outcome.failure_reason,
        &outcome.failure_detail,
    )
    .await
}

/// Writes where a stage stands that no runner holds; its execution is locked.
pub(crate) async fn update(tx: &mut Tx, stage: &Stage, status: StageStatus) -> Result<()> {
    permit(stage, status)?;
    let reason = (status == StageStatus::Cancelled).then_some(FailureReason::Cancelled);
    put(tx, stage.id, status, reason, &FailureDetail::of("")).await
}

async fn put(
    tx: &mut Tx,
    id: StageId,
    status: StageStatus,
    reason: Option<FailureReason>,
    detail: &FailureDetail,
) -> Result<()> {
    let finished_at = status
        .is_terminal()
        .then(|| pipeline_stages::finished_at.eq(clock_timestamp().nullable()));
    let written = diesel::update(pipeline_stages::table.find((tx.org(), id)))
        .filter(pipeline_stages::finished_at.is_null())
        .set((
            pipeline_stages::status.eq(status),
            pipeline_stages::failure_reason.eq(reason),
            pipeline_stages::failure_detail.eq(detail),
            finished_at,
        ))
        .execute(tx)
        .await?;
    if written == 1 {
        Ok(())
    } else {
        Err(Error::internal("a stage that has ended stays as it is"))
    }
}

fn permit(stage: &Stage, next: StageStatus) -> Result<()> {
    if stage.status.may_become(next) {
        Ok(())
    } else {
        Err(Error::internal(format!(
            "stage {} is {} and cannot become {}",
            stage.id,
            stage.status.as_str(),
            next.as_str()
        )))
    }
}
