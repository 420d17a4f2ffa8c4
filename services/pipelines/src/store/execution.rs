//! Executions, and the one place where they move on.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper, dsl::sql, sql_types::Bool,
};
use diesel_async::RunQueryDsl;
use kit::{Error, Reason, Result, db::Tx};
use time::OffsetDateTime;

use api::events::v1::{Event, ExecutionChanged, event::Payload};

use crate::{
    model::{
        ExecutionId, ExecutionStatus, PipelineId, PipelineName, StateName, Trigger,
        execution::{self, Execution, ExecutionFilter, ExecutionRow, Shown},
        pipeline::{Definition, Origin, Pipeline},
    },
    schema::{clock_timestamp, pipeline_executions, pipelines},
    store,
};

/// More than a pipeline has stages.
const ALL_STAGES: i64 = 1_000;

/// Queues an execution of a pipeline with its stages and tells of it; `None` where drift started one that has not ended.
pub(crate) async fn insert(
    tx: &mut Tx,
    pipeline: &Pipeline,
    design_version: i32,
    origin: Origin,
) -> Result<Option<Execution>> {
    let (trigger, author, cause, chain_depth) = match origin {
        Origin::Caller(author) => (Trigger::Manual, Some(author), None, 0),
        Origin::Drift { event, depth } => (Trigger::Drift, None, Some(event), depth),
        Origin::Schedule { event, depth } => (Trigger::Schedule, None, Some(event), depth),
    };
    let row = ExecutionRow {
        org_id: tx.org(),
        id: ExecutionId::new(),
        pipeline_id: pipeline.id,
        design_id: pipeline.design_id,
        design_version,
        state_name: &pipeline.state_name,
        trigger,
        starter_kind: author.map(|author| author.kind),
        starter_id: author.map(|author| author.id),
        cause_event_id: cause,
        chain_depth,
        status_detail: "waiting for a runner",
    };
    let inserted: Option<Execution> = diesel::insert_into(pipeline_executions::table)
        .values(row)
        .on_conflict_do_nothing()
        .returning(Execution::as_returning())
        .get_result(tx)
        .await
        .optional()?;
    let Some(execution) = inserted else { return Ok(None) };
    let check = Definition::drift_check();
    let stages = if trigger == Trigger::Schedule {
        &check
    } else {
        &pipeline.stages
    };
    store::stage::insert(tx, execution.id, stages).await?;
    tell(tx, &execution, &pipeline.name);
    Ok(Some(execution))
}

/// An execution.
pub(crate) async fn find(tx: &mut Tx, id: ExecutionId) -> Result<Option<Execution>> {
    Ok(pipeline_executions::table
        .find((tx.org(), id))
        .select(Execution::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// Whether an execution of a state has not come to its end.
pub(crate) async fn is_live(tx: &mut Tx, state: &StateName) -> Result<bool> {
    let live = pipeline_executions::table
        .filter(pipeline_executions::org_id.eq(tx.org()))
        .filter(pipeline_executions::state_name.eq(state))
        .filter(pipeline_executions::finished_at.is_null());
    Ok(diesel::select(diesel::dsl::exists(live)).get_result(tx).await?)
}

/// An execution, held until the transaction ends: whoever changes its stages or their attempts holds it first.
pub(crate) async fn lock(tx: &mut Tx, id: ExecutionId) -> Result<Option<Execution>> {
    Ok(pipeline_executions::table
        .find((tx.org(), id))
        .select(Execution::as_select())
        .for_update()
        .first(tx)
        .await
        .optional()?)
}

/// Executions, newest first, after those up to `after`; at most `limit`.
pub(crate) async fn list(
    tx: &mut Tx,
    filter: &ExecutionFilter,
    after: Option<(OffsetDateTime, ExecutionId)>,
    limit: i64,
) -> Result<Vec<Execution>> {
    let mut query = pipeline_executions::table
        .filter(pipeline_executions::org_id.eq(tx.org()))
        .select(Execution::as_select())
        .order((pipeline_executions::created_at.desc(), pipeline_executions::id.desc()))
        .limit(limit)
        .into_boxed();
    if let Some(pipeline) = filter.pipeline {
        query = query.filter(pipeline_executions::pipeline_id.eq(pipeline));
    }
    if let Some(status) = filter.status {
        query = query.filter(stands(status));
    }
    if let Some((time, id)) = after {
        query = query.filter(
            pipeline_executions::created_at.le(time).and(
                pipeline_executions::created_at
                    .lt(time)
                    .or(pipeline_executions::id.lt(id)),
            ),
        );
    }
    Ok(query.load(tx).await?)
}

/// The status as a literal, which the planner proves a partial index from.
fn stands(status: ExecutionStatus) -> diesel::expression::SqlLiteral<Bool> {
    sql(match status {
        ExecutionStatus::Queued => "pipeline_executions.status = 'queued'",
        ExecutionStatus::Running => "pipeline_executions.status = 'running'",
        ExecutionStatus::Cancelling => "pipeline_executions.status = 'cancelling'",
        ExecutionStatus::Succeeded => "pipeline_executions.status = 'succeeded'",
        ExecutionStatus::Failed => "pipeline_executions.status = 'failed'",
        ExecutionStatus::Cancelled => "pipeline_executions.status = 'cancelled'",
        ExecutionStatus::OutcomeUnknown => "pipeline_executions.status = 'outcome_unknown'",
    })
}

/// The execution with its stages and their attempts.
pub(crate) async fn shown(tx: &mut Tx, execution: Execution) -> Result<Shown> {
    let stages = store::stage::list(tx, execution.id, None, ALL_STAGES).await?;
    let stages = store::stage::shown(tx, stages).await?;
    Ok(Shown { execution, stages })
}

/// Writes what follows from where the stages of an execution stand, and tells peers where it stands elsewhere.
///
/// Whatever changes a stage calls this in the same transaction, after it has locked the execution and written the stage.
///
/// # Errors
/// INTERNAL where there is no such execution.
pub(crate) async fn advance(tx: &mut Tx, id: ExecutionId) -> Result<Execution> {
    let before = lock(tx, id).await?;
    let before = before.ok_or_else(|| Error::internal(format!("there is no execution {id}")))?;
    let status = before.status;
    move_on(tx, before, status).await
}

/// Cancels an execution that is locked: what is not handed out at once, the rest when its runner reports.
///
/// # Errors
/// EXECUTION_FINISHED where it has ended otherwise.
pub(crate) async fn cancel(tx: &mut Tx, before: Execution) -> Result<Execution> {
    match before.status {
        ExecutionStatus::Cancelling | ExecutionStatus::Cancelled => Ok(before),
        ExecutionStatus::Queued | ExecutionStatus::Running => move_on(tx, before, ExecutionStatus::Cancelling).await,
        ended @ (ExecutionStatus::Succeeded | ExecutionStatus::Failed | ExecutionStatus::OutcomeUnknown) => {
            Err(Error::new(
                Reason::ExecutionFinished,
                format!("the execution has ended: {}", ended.as_str()),
            )
            .with("status", ended.as_str()))
        }
    }
}

/// Moves a locked execution on, as if it stood at `status`.
async fn move_on(tx: &mut Tx, before: Execution, status: ExecutionStatus) -> Result<Execution> {
    let stages = store::stage::list(tx, before.id, None, ALL_STAGES).await?;
    let Some(next) = execution::advance(status, &stages) else {
        return Ok(before);
    };
    for (id, status) in next.changes {
        let stage = stages.iter().find(|stage| stage.id == id);
        let stage = stage.ok_or_else(|| Error::internal("a stage of another execution"))?;
        store::stage::update(tx, stage, status).await?;
    }
    if (next.status, &next.detail) == (before.status, &before.status_detail) {
        return Ok(before);
    }
    let now: OffsetDateTime = diesel::select(clock_timestamp()).get_result(tx).await?;
    let handed_out = stages.iter().any(|stage| stage.attempts > 0);
    let started_at = before.started_at.or(handed_out.then_some(now));
    let finished_at = next.status.is_terminal().then_some(now);
    let after: Execution = diesel::update(pipeline_executions::table.find((tx.org(), before.id)))
        .filter(pipeline_executions::finished_at.is_null())
        .set((
            pipeline_executions::status.eq(next.status),
            pipeline_executions::status_detail.eq(&next.detail),
            pipeline_executions::revision.eq(pipeline_executions::revision + 1),
            pipeline_executions::started_at.eq(started_at),
            pipeline_executions::finished_at.eq(finished_at),
        ))
        .returning(Execution::as_returning())
        .get_result(tx)
        .await?;
    if after.status != before.status {
        // What an event started stays in that event's chain, whoever moves it on.
        if let Some(cause) = after.cause_event_id {
            tx.caused_by(&Event {
                event_id: cause.to_string(),
                chain_depth: u32::try_from(after.chain_depth).unwrap_or_default().saturating_sub(1),
                ..Event::default()
            });
        }
        let name = pipeline_name(tx, after.pipeline_id).await?;
        tell(tx, &after, &name);
    }
    Ok(after)
}

async fn pipeline_name(tx: &mut Tx, id: PipelineId) -> Result<PipelineName> {
    Ok(pipelines::table
        .find((tx.org(), id))
        .select(pipelines::name)
        .first(tx)
        .await?)
}

/// Tells peers where an execution stands.
fn tell(tx: &mut Tx, execution: &Execution, pipeline: &PipelineName) {
    tx.tell(Payload::ExecutionChanged(ExecutionChanged {
        execution_id: execution.id.to_string(),
        pipeline_id: execution.pipeline_id.to_string(),
        pipeline_name: pipeline.to_string(),
        design_id: execution.design_id.to_string(),
        state_name: execution.state_name.to_string(),
        status: execution.status.as_str().to_owned(),
        trigger: execution.trigger.as_str().to_owned(),
        revision: execution.revision,
    }));
}
