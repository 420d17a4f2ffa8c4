//! The scheduler: what is due is asked of pipelines, or skipped, once.
//!
//! A due time is decided on in one transaction, by the replica that holds the schedule's row: its outcome, the next due time
//! and what pipelines is told commit together. No check takes a state's lock; one that is held is only looked at.

use std::time::Duration;

use api::events::v1::event::Payload;
use kit::{
    Result,
    db::Tx,
    failpoint,
    ids::{OrgId, Principal},
    service::Kit,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    model::schedule::{Run, RunId, RunOutcome, Schedule},
    store, wire,
};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// The longest between two looks while the database does not answer.
const LONGEST: Duration = Duration::from_secs(15);
/// The most organizations that are listed at a time.
const BATCH: i32 = 200;
/// The most due times of an organization before it is another's turn.
const TURN: usize = 100;

/// Looks for what is due for as long as the service runs. At most `cap` runs of an organization go on at once.
pub(crate) async fn run(kit: Kit, cap: i64) {
    let mut pause = EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = match sweep(&kit, cap).await {
            Ok(()) => EVERY,
            Err(error) => {
                let next = (pause * 2).min(LONGEST);
                tracing::warn!(?error, retry_in_ms = next.as_millis() as u64, "checks for drift wait");
                next
            }
        };
    }
}

/// One look at all organizations; one with which something is wrong keeps no other waiting.
async fn sweep(kit: &Kit, cap: i64) -> Result<()> {
    let scope = kit.scope();
    let mut after = Uuid::nil();
    loop {
        let due = kit
            .worker
            .look(&scope, async |tx| store::schedule::list_due(tx, after, BATCH).await)
            .await?;
        for org in &due {
            for _ in 0..TURN {
                match decide(kit, *org, cap).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(?error, "a schedule's due time waits");
                        break;
                    }
                }
            }
            failpoint::hit_in("terraform_state.schedules_swept", &org.to_string()).await?;
        }
        let Some(last) = due.last() else { return Ok(()) };
        after = last.0;
    }
}

/// Decides on one due time of an organization; false where none is left that can be decided on now.
async fn decide(kit: &Kit, org: OrgId, cap: i64) -> Result<bool> {
    let me = Principal::Service(kit.worker.slice());
    kit.worker
        .read(&kit.scope(), async |tx| {
            tx.enter(org, me).await?;
            let Some(schedule) = store::schedule::claim(tx).await? else {
                return Ok(false);
            };
            failpoint::hit_in("terraform_state.schedule_claimed", &org.to_string()).await?;
            store::schedule::hold_runs(tx).await?;
            let now = store::now(tx).await?;
            store::schedule::update_unanswered(tx, now).await?;
            let outcome = outcome(tx, &schedule, now, cap).await?;
            failpoint::hit_in("terraform_state.schedule_counted", &org.to_string()).await?;
            match outcome {
                // It waits for another run's end, until its window has passed.
                None => Ok(false),
                Some(outcome) => write(tx, schedule, outcome, now).await.map(|()| true),
            }
        })
        .await
}

/// What becomes of a due time now; `None` where that is to be seen.
async fn outcome(tx: &mut Tx, schedule: &Schedule, now: OffsetDateTime, cap: i64) -> Result<Option<RunOutcome>> {
    let late = schedule.run_before.is_some_and(|before| before <= now);
    let full = store::schedule::count_live(tx).await? >= cap;
    if late {
        return Ok(Some(if full { RunOutcome::OverCap } else { RunOutcome::Late }));
    }
    if store::state::find(tx, schedule.state_id).await?.is_none() {
        return Ok(Some(RunOutcome::StateDeleted));
    }
    if store::lock::find(tx, schedule.state_id).await?.is_some() {
        return Ok(Some(RunOutcome::StateLocked));
    }
    if store::schedule::is_live(tx, schedule.state_id).await? {
        return Ok(Some(RunOutcome::StateBusy));
    }
    Ok((!full).then_some(RunOutcome::Requested))
}

/// Writes the outcome of a claimed schedule's due time, and when it is due next.
async fn write(tx: &mut Tx, mut schedule: Schedule, outcome: RunOutcome, now: OffsetDateTime) -> Result<()> {
    let (Some(due_at), Some(run_before)) = (schedule.due_at, schedule.run_before) else {
        return Err(kit::Error::internal("a schedule is due at no time"));
    };
    let run = Run {
        org_id: tx.org(),
        id: RunId::new(),
        schedule_id: schedule.id,
        state_id: schedule.state_id,
        due_at,
        run_before,
        outcome,
        reason: String::new(),
        execution_id: None,
        changed_at: now,
        finished_at: (!outcome.is_live()).then_some(now),
    };
    store::schedule::insert_run(tx, &run).await?;
    schedule.last_run_id = Some(run.id);
    if outcome == RunOutcome::Requested
        && let Some(state) = store::state::find(tx, schedule.state_id).await?
    {
        tx.tell(Payload::DriftCheckRequested(wire::schedule::requested(
            &schedule, state, &run,
        )));
        tx.acted("RequestDriftCheck", &schedule);
    }
    store::schedule::update(tx, &schedule.due_again(now)).await
}
