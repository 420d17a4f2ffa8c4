//! Schedules of checks for drift, and what became of their due times.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, OptionalExtension, QueryDsl,
    QueryableByName, SelectableHelper, dsl::exists, sql_query,
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, failpoint, ids::OrgId};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    model::{
        ExecutionId, StateId,
        schedule::{Run, RunId, RunOutcome, Schedule, ScheduleFilter, ScheduleId, Shown},
    },
    schema::{clock_timestamp, drift_runs, drift_schedules},
};

/// How long what became of a due time is kept.
const KEPT: Duration = Duration::days(30);
/// How long pipelines is waited for once it can only refuse.
const UNANSWERED: Duration = Duration::hours(1);

/// Makes a schedule.
pub(crate) async fn insert(tx: &mut Tx, schedule: &Schedule) -> Result<()> {
    diesel::insert_into(drift_schedules::table)
        .values(schedule.clone())
        .execute(tx)
        .await?;
    Ok(())
}

/// How many schedules there are.
pub(crate) async fn count(tx: &mut Tx) -> Result<i64> {
    Ok(drift_schedules::table
        .filter(drift_schedules::org_id.eq(tx.org()))
        .count()
        .get_result(tx)
        .await?)
}

/// A schedule with its newest run.
pub(crate) async fn find(tx: &mut Tx, id: ScheduleId) -> Result<Option<Shown>> {
    Ok(drift_schedules::table
        .left_join(drift_runs::table.on(newest()))
        .filter(drift_schedules::org_id.eq(tx.org()).and(drift_schedules::id.eq(id)))
        .select((Schedule::as_select(), Option::<Run>::as_select()))
        .first(tx)
        .await
        .optional()?)
}

/// Schedules with their newest runs, newest first, older than `after`; at most `limit`.
pub(crate) async fn list(
    tx: &mut Tx,
    filter: &ScheduleFilter,
    after: Option<ScheduleId>,
    limit: i64,
) -> Result<Vec<Shown>> {
    let mut query = drift_schedules::table
        .left_join(drift_runs::table.on(newest()))
        .filter(drift_schedules::org_id.eq(tx.org()))
        .order(drift_schedules::id.desc())
        .limit(limit)
        .select((Schedule::as_select(), Option::<Run>::as_select()))
        .into_boxed();
    if let Some(state) = filter.state {
        query = query.filter(drift_schedules::state_id.eq(state));
    }
    if let Some(after) = after {
        query = query.filter(drift_schedules::id.lt(after));
    }
    Ok(query.load(tx).await?)
}

/// Joins a schedule's newest run to it.
#[diesel::dsl::auto_type(no_type_alias)]
fn newest() -> _ {
    drift_runs::org_id
        .eq(drift_schedules::org_id)
        .and(drift_schedules::last_run_id.eq(drift_runs::id.nullable()))
}

/// A schedule, held until the transaction ends.
pub(crate) async fn lock(tx: &mut Tx, id: ScheduleId) -> Result<Option<Schedule>> {
    Ok(drift_schedules::table
        .find((tx.org(), id))
        .select(Schedule::as_select())
        .for_update()
        .first(tx)
        .await
        .optional()?)
}

/// Writes a held schedule as it is to be.
pub(crate) async fn update(tx: &mut Tx, schedule: &Schedule) -> Result<()> {
    diesel::update(drift_schedules::table.find((tx.org(), schedule.id)))
        .set((
            drift_schedules::pipeline_id.eq(schedule.pipeline_id),
            drift_schedules::cron.eq(&schedule.cron),
            drift_schedules::time_zone.eq(&schedule.time_zone),
            drift_schedules::window_seconds.eq(schedule.window_seconds),
            drift_schedules::jitter_seconds.eq(schedule.jitter_seconds),
            drift_schedules::paused.eq(schedule.paused),
            drift_schedules::due_at.eq(schedule.due_at),
            drift_schedules::run_at.eq(schedule.run_at),
            drift_schedules::run_before.eq(schedule.run_before),
            drift_schedules::last_run_id.eq(schedule.last_run_id),
            drift_schedules::author_kind.eq(schedule.author_kind),
            drift_schedules::author_id.eq(schedule.author_id),
            drift_schedules::revision.eq(schedule.revision),
            drift_schedules::updated_at.eq(schedule.updated_at),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// Ends a schedule; `None` where there is none.
pub(crate) async fn delete(tx: &mut Tx, id: ScheduleId) -> Result<Option<Schedule>> {
    Ok(diesel::delete(drift_schedules::table.find((tx.org(), id)))
        .returning(Schedule::as_returning())
        .get_result(tx)
        .await
        .optional()?)
}

#[derive(QueryableByName)]
struct Organization {
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    org_id: Uuid,
}

/// Organizations with a schedule that is due, after one of them; at most `most`. For the worker role.
pub(crate) async fn list_due(tx: &mut Tx, after: Uuid, most: i32) -> Result<Vec<OrgId>> {
    let due: Vec<Organization> = sql_query("select org_id from due_drift_schedules($1, $2)")
        .bind::<diesel::sql_types::Uuid, _>(after)
        .bind::<diesel::sql_types::Integer, _>(most)
        .load(tx)
        .await?;
    Ok(due.into_iter().map(|organization| OrgId(organization.org_id)).collect())
}

/// The due schedule that is late soonest, held until the transaction ends; none that another replica holds.
pub(crate) async fn claim(tx: &mut Tx) -> Result<Option<Schedule>> {
    let due = drift_schedules::table
        .filter(drift_schedules::org_id.eq(tx.org()))
        .filter(drift_schedules::run_at.le(clock_timestamp().nullable()))
        .order((drift_schedules::run_before, drift_schedules::id))
        .limit(1)
        .select(Schedule::as_select());
    let claimed = if failpoint::without(&format!("terraform_state.schedule_claim/{}", tx.org())) {
        due.first(tx).await
    } else {
        due.for_update().skip_locked().first(tx).await
    };
    Ok(claimed.optional()?)
}

/// Holds the organization's runs until the transaction ends, so that of two replicas the second counts the first one's.
pub(crate) async fn hold_runs(tx: &mut Tx) -> Result<()> {
    if failpoint::without(&format!("terraform_state.schedule_cap/{}", tx.org())) {
        return Ok(());
    }
    sql_query("select pg_advisory_xact_lock(hashtextextended('drift_runs.' || $1::text, 0))")
        .bind::<diesel::sql_types::Uuid, _>(tx.org().0)
        .execute(tx)
        .await?;
    Ok(())
}

/// How many runs go on.
pub(crate) async fn count_live(tx: &mut Tx) -> Result<i64> {
    Ok(drift_runs::table
        .filter(drift_runs::org_id.eq(tx.org()))
        .filter(drift_runs::finished_at.is_null())
        .count()
        .get_result(tx)
        .await?)
}

/// Whether a run of a state goes on.
pub(crate) async fn is_live(tx: &mut Tx, state: StateId) -> Result<bool> {
    let live = drift_runs::table
        .filter(drift_runs::org_id.eq(tx.org()).and(drift_runs::state_id.eq(state)))
        .filter(drift_runs::finished_at.is_null());
    Ok(diesel::select(exists(live)).get_result(tx).await?)
}

/// Writes what became of a due time; it has one outcome. What became of those of long ago is forgotten.
pub(crate) async fn insert_run(tx: &mut Tx, run: &Run) -> Result<()> {
    diesel::insert_into(drift_runs::table)
        .values(run.clone())
        .execute(tx)
        .await?;
    diesel::delete(
        drift_runs::table
            .filter(drift_runs::org_id.eq(tx.org()))
            .filter(drift_runs::schedule_id.eq(run.schedule_id))
            .filter(drift_runs::due_at.lt(run.changed_at - KEPT))
            .filter(drift_runs::finished_at.is_not_null().and(drift_runs::id.ne(run.id))),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends the runs that pipelines has not answered long after it could only refuse them.
pub(crate) async fn update_unanswered(tx: &mut Tx, now: OffsetDateTime) -> Result<()> {
    diesel::update(
        drift_runs::table
            .filter(drift_runs::org_id.eq(tx.org()))
            .filter(
                drift_runs::finished_at
                    .is_null()
                    .and(drift_runs::execution_id.is_null()),
            )
            .filter(drift_runs::run_before.lt(now - UNANSWERED)),
    )
    .set((
        drift_runs::outcome.eq(RunOutcome::Unanswered),
        drift_runs::changed_at.eq(now),
        drift_runs::finished_at.eq(now),
    ))
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes what pipelines has answered; nothing where the schedule is gone. An answer that came too late counts still.
pub(crate) async fn update_answered(
    tx: &mut Tx,
    id: RunId,
    outcome: RunOutcome,
    reason: &str,
    execution: Option<ExecutionId>,
) -> Result<()> {
    let now = crate::store::now(tx).await?;
    diesel::update(drift_runs::table.find((tx.org(), id)))
        .filter(drift_runs::execution_id.is_null())
        .set((
            drift_runs::outcome.eq(outcome),
            drift_runs::reason.eq(reason),
            drift_runs::execution_id.eq(execution),
            drift_runs::changed_at.eq(now),
            drift_runs::finished_at.eq((!outcome.is_live()).then_some(now)),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// Notes how the execution of a run ended; nothing for other executions.
pub(crate) async fn update_ended(tx: &mut Tx, execution: ExecutionId, outcome: RunOutcome) -> Result<()> {
    let now = crate::store::now(tx).await?;
    diesel::update(
        drift_runs::table.filter(drift_runs::org_id.eq(tx.org())).filter(
            drift_runs::execution_id
                .eq(execution)
                .and(drift_runs::finished_at.is_null()),
        ),
    )
    .set((
        drift_runs::outcome.eq(outcome),
        drift_runs::changed_at.eq(now),
        drift_runs::finished_at.eq(now),
    ))
    .execute(tx)
    .await?;
    Ok(())
}
