//! Schedules of checks for drift: when each is due next, and what became of a due time.
//!
//! Which instant comes next follows from a schedule and the time alone, so that every replica counts the same.

pub mod cron;

use std::io::Write;

use diesel::{
    deserialize::{self, FromSql},
    pg::{Pg, PgValue},
    prelude::{Insertable, Queryable, Selectable},
    serialize::{self, IsNull, Output, ToSql},
};
use kit::{Result, db::About, ids::OrgId};
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use self::cron::{Cron, Zone};
use super::{ExecutionId, PrincipalId, PrincipalKind, StateId, state::Etag, stored_enum};
use crate::schema::{drift_runs, drift_schedules, sql_types::DriftRunOutcomeEnum};

kit::id! {
    /// A schedule; later ones are greater.
    ScheduleId
}
kit::id! {
    /// One due time of a schedule.
    RunId
}
kit::id! {
    /// A pipeline.
    PipelineId
}

/// The most schedules of an organization.
pub(crate) const MOST_SCHEDULES: i64 = 10_000;
/// How late a run may begin where nothing is said.
pub(crate) const WINDOW_SECONDS: i32 = 3_600;

stored_enum! {
    /// What became of a due time.
    RunOutcome as DriftRunOutcomeEnum {
        /// Pipelines is asked.
        Requested = "requested",
        /// The execution is queued or at work.
        Running = "running",
        /// The execution succeeded.
        Succeeded = "succeeded",
        /// The execution failed.
        Failed = "failed",
        /// The execution was cancelled.
        Cancelled = "cancelled",
        /// Skipped: the state was locked.
        StateLocked = "state_locked",
        /// Skipped: another execution of the state went on.
        StateBusy = "state_busy",
        /// Skipped: too many runs of the organization went on.
        OverCap = "over_cap",
        /// Skipped: the window had passed.
        Late = "late",
        /// Skipped: the state was deleted.
        StateDeleted = "state_deleted",
        /// Pipelines refused it.
        Refused = "refused",
        /// Pipelines did not answer.
        Unanswered = "unanswered",
    }
}

impl RunOutcome {
    /// Whether it may become another one.
    pub const fn is_live(self) -> bool {
        match self {
            RunOutcome::Requested | RunOutcome::Running => true,
            RunOutcome::Succeeded
            | RunOutcome::Failed
            | RunOutcome::Cancelled
            | RunOutcome::StateLocked
            | RunOutcome::StateBusy
            | RunOutcome::OverCap
            | RunOutcome::Late
            | RunOutcome::StateDeleted
            | RunOutcome::Refused
            | RunOutcome::Unanswered => false,
        }
    }
}

/// What a caller says of a schedule.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The pipeline whose design and rights its runs have.
    pub pipeline_id: PipelineId,
    /// When it is due.
    pub cron: Cron,
    /// In which time zone.
    pub time_zone: Zone,
    /// How late a run may begin.
    pub window_seconds: i32,
    /// How much later than due a run is at most.
    pub jitter_seconds: i32,
    /// Whether it is left alone.
    pub paused: bool,
}

/// The same, where each may be left as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The pipeline.
    pub pipeline_id: Option<PipelineId>,
    /// When it is due.
    pub cron: Option<Cron>,
    /// In which time zone.
    pub time_zone: Option<Zone>,
    /// How late a run may begin.
    pub window_seconds: Option<i32>,
    /// How much later than due a run is at most.
    pub jitter_seconds: Option<i32>,
    /// Whether it is left alone.
    pub paused: Option<bool>,
}

/// A schedule's row.
#[derive(Clone, Debug, Insertable, Queryable, Selectable)]
#[diesel(table_name = drift_schedules, check_for_backend(Pg))]
pub struct Schedule {
    /// Whose it is.
    pub org_id: OrgId,
    /// Its id.
    pub id: ScheduleId,
    /// The state that is checked.
    pub state_id: StateId,
    /// The pipeline whose design and rights its runs have.
    pub pipeline_id: PipelineId,
    /// When it is due.
    pub cron: Cron,
    /// In which time zone.
    pub time_zone: Zone,
    /// How late a run may begin.
    pub window_seconds: i32,
    /// How much later than due a run is at most.
    pub jitter_seconds: i32,
    /// Whether it is left alone.
    pub paused: bool,
    /// When it is due next.
    pub due_at: Option<OffsetDateTime>,
    /// The same with its jitter.
    pub run_at: Option<OffsetDateTime>,
    /// From when on that is too late.
    pub run_before: Option<OffsetDateTime>,
    /// Its newest run.
    pub last_run_id: Option<RunId>,
    /// What kind of caller made it, or changed it last.
    pub author_kind: PrincipalKind,
    /// Who that was.
    pub author_id: PrincipalId,
    /// Grows with each change.
    pub revision: i64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// A run's row.
#[derive(Clone, Debug, Insertable, Queryable, Selectable)]
#[diesel(table_name = drift_runs, check_for_backend(Pg))]
pub struct Run {
    /// Whose it is.
    pub org_id: OrgId,
    /// Its id.
    pub id: RunId,
    /// The schedule.
    pub schedule_id: ScheduleId,
    /// The schedule's state.
    pub state_id: StateId,
    /// The due time.
    pub due_at: OffsetDateTime,
    /// From when on it is too late to begin.
    pub run_before: OffsetDateTime,
    /// What became of it.
    pub outcome: RunOutcome,
    /// Why it was refused.
    pub reason: String,
    /// The execution.
    pub execution_id: Option<ExecutionId>,
    /// When its outcome was last another one.
    pub changed_at: OffsetDateTime,
    /// When it came to its end.
    pub finished_at: Option<OffsetDateTime>,
}

/// A schedule with its newest run.
pub type Shown = (Schedule, Option<Run>);

/// Which schedules are asked for.
#[derive(Clone, Debug, Serialize)]
pub struct ScheduleFilter {
    /// Only those of this state.
    pub state: Option<StateId>,
}

/// A due time that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// By the expression.
    pub at: OffsetDateTime,
    /// With its jitter.
    pub run: OffsetDateTime,
    /// From when on it is too late.
    pub before: OffsetDateTime,
}

impl About for Schedule {
    const TYPE: &'static str = "drift_schedule";

    fn id(&self) -> String {
        self.id.to_string()
    }
}

impl Schedule {
    /// The current etag.
    pub fn etag(&self) -> Etag {
        Etag::of(self.revision)
    }

    /// Refuses a caller who has seen another revision than the current one.
    ///
    /// # Errors
    /// ETAG_MISMATCH with the current etag.
    pub fn expect(&self, etag: &Etag) -> Result<()> {
        self.etag().expect(etag, "schedule")
    }

    /// The schedule with a change.
    #[must_use]
    pub fn changed(mut self, change: Change) -> Self {
        self.pipeline_id = change.pipeline_id.unwrap_or(self.pipeline_id);
        self.cron = change.cron.unwrap_or(self.cron);
        self.time_zone = change.time_zone.unwrap_or(self.time_zone);
        self.window_seconds = change.window_seconds.unwrap_or(self.window_seconds);
        self.jitter_seconds = change.jitter_seconds.unwrap_or(self.jitter_seconds);
        self.paused = change.paused.unwrap_or(self.paused);
        self
    }

    /// Sets when it is due next, counted from a time on.
    #[must_use]
    pub fn due_after(mut self, time: OffsetDateTime) -> Self {
        let due = if self.paused { None } else { self.next(time) };
        (self.due_at, self.run_at) = (due.map(|due| due.at), due.map(|due| due.run));
        self.run_before = due.map(|due| due.before);
        self
    }

    /// Sets when it is due after the time that it was due at. Times whose window has passed are passed over.
    #[must_use]
    pub fn due_again(mut self, now: OffsetDateTime) -> Self {
        // Whatever was due before this has passed.
        let passed = now - Duration::seconds(i64::from(self.window_seconds) + i64::from(self.jitter_seconds));
        let mut after = self.due_at.unwrap_or(now).max(passed);
        loop {
            self = self.due_after(after);
            match (self.due_at, self.run_before) {
                (Some(at), Some(before)) if before <= now => after = at,
                _ => return self,
            }
        }
    }

    /// The first due time after another time.
    fn next(&self, after: OffsetDateTime) -> Option<Due> {
        let at = cron::next(&self.cron, &self.time_zone, after)?;
        let run = at + self.jitter(at);
        Some(Due {
            at,
            run,
            before: run + Duration::seconds(self.window_seconds.into()),
        })
    }

    /// The same for every replica, another one for each schedule and due time.
    fn jitter(&self, at: OffsetDateTime) -> Duration {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.id.0.as_bytes());
        hasher.update(&at.unix_timestamp().to_le_bytes());
        let mut number = [0; 8];
        number.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        let choices = u64::try_from(self.jitter_seconds).unwrap_or_default() + 1;
        Duration::seconds(i64::try_from(u64::from_le_bytes(number) % choices).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hourly(jitter_seconds: i32, window_seconds: i32) -> Schedule {
        let made = OffsetDateTime::UNIX_EPOCH;
        Schedule {
            org_id: OrgId::new(),
            id: ScheduleId::new(),
            state_id: StateId::new(),
            pipeline_id: PipelineId::new(),
            cron: Cron::parse("0 * * * *").unwrap(),
            time_zone: Zone::parse("").unwrap(),
            window_seconds,
            jitter_seconds,
            paused: false,
            due_at: None,
            run_at: None,
            run_before: None,
            last_run_id: None,
            author_kind: PrincipalKind::User,
            author_id: PrincipalId::new(),
            revision: 1,
            created_at: made,
            updated_at: made,
        }
        .due_after(made)
    }

    #[test]
    fn jitter_keeps_within_its_bound_and_differs_and_does_not_add_up() {
        let mut schedule = hourly(600, 60);
        let mut offsets = std::collections::BTreeSet::new();
        for hour in 1..=50 {
            let due = OffsetDateTime::UNIX_EPOCH + Duration::hours(hour);
            let run = schedule.run_at.unwrap();
            assert_eq!(schedule.due_at, Some(due));
            assert!(run >= due && run <= due + Duration::seconds(600));
            offsets.insert(run - due);
            schedule = schedule.due_again(run);
        }
        assert!(offsets.len() > 20, "{offsets:?}");
        assert_eq!(hourly(0, 60).run_at, hourly(0, 60).due_at);
    }

    #[test]
    fn a_time_that_can_still_be_kept_is_kept_and_others_are_passed_over() {
        let at = |minutes| OffsetDateTime::UNIX_EPOCH + Duration::minutes(minutes);
        // Due at 1:00, looked at at 2:30: 2:00 is within an hour's window, and not within a minute's.
        assert_eq!(hourly(0, 3_600).due_again(at(150)).due_at, Some(at(120)));
        // However many have passed before it.
        assert_eq!(hourly(0, 3_600).due_again(at(630)).due_at, Some(at(600)));
        let next = hourly(3_600, 3_600).due_again(at(630));
        let passed = next.clone().due_after(next.due_at.unwrap() - Duration::minutes(61));
        assert_eq!(passed.due_at.unwrap() + Duration::hours(1), next.due_at.unwrap());
        assert!(
            passed.run_before <= Some(at(630)) && Some(at(630)) < next.run_before,
            "{next:?}"
        );
        assert_eq!(hourly(0, 60).due_again(at(150)).due_at, Some(at(180)));
        assert_eq!(
            hourly(0, 60).due_again(at(60 * 24 * 30 + 1)).due_at,
            Some(at(60 * 24 * 30 + 60))
        );
    }

    #[test]
    fn what_is_paused_is_never_due() {
        let schedule = Schedule {
            paused: true,
            ..hourly(0, 60)
        };
        let idle = schedule.due_after(OffsetDateTime::UNIX_EPOCH);
        assert_eq!((idle.due_at, idle.run_at, idle.run_before), (None, None, None));
    }
}
