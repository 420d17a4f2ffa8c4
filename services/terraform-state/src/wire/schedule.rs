//! Schedules of checks for drift, in messages.

use api::{
    events::v1::{Actor, ActorKind, DriftCheckRequested},
    terraform_state::v1,
};
use kit::{Error, Result, Violations, ids, mask::Mask, page::PageSize};

use super::{list::Asked, timestamp};
use crate::model::{
    PrincipalKind,
    schedule::{
        Change, Run, RunOutcome, Schedule, ScheduleFilter, ScheduleId, Shown, Terms, WINDOW_SECONDS,
        cron::{Cron, Zone},
    },
    state::{Etag, State},
};

/// The fields of a schedule that an update writes.
const WRITABLE: [&str; 6] = ["pipeline_id", "cron", "time_zone", "window", "jitter", "paused"];

/// A schedule to make.
pub(crate) struct New {
    pub(crate) state: crate::model::StateId,
    pub(crate) terms: Terms,
}

impl TryFrom<v1::CreateDriftScheduleRequest> for New {
    type Error = Error;

    fn try_from(request: v1::CreateDriftScheduleRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let Some(schedule) = request.drift_schedule else {
            violations.add("drift_schedule", "is required");
            return violations.finish(None);
        };
        let state = ids::required("drift_schedule.state_id", &schedule.state_id, &mut violations);
        let pipeline = ids::required("drift_schedule.pipeline_id", &schedule.pipeline_id, &mut violations);
        let cron = cron(&schedule.cron, &mut violations);
        let zone = zone(&schedule.time_zone, &mut violations);
        let window_seconds = window(schedule.window, &mut violations);
        let jitter_seconds = jitter(schedule.jitter, &mut violations);
        let given = state.zip(pipeline).zip(cron.zip(zone));
        let ((state, pipeline_id), (cron, time_zone)) = violations.finish(given)?;
        Ok(New {
            state,
            terms: Terms {
                pipeline_id,
                cron,
                time_zone,
                window_seconds,
                jitter_seconds,
                paused: schedule.paused,
            },
        })
    }
}

fn cron(text: &str, violations: &mut Violations) -> Option<Cron> {
    let cron = Cron::parse(text);
    let rule = if text.is_empty() { "is required" } else { Cron::RULE };
    violations.check(cron.is_some(), "drift_schedule.cron", rule);
    cron
}

fn zone(name: &str, violations: &mut Violations) -> Option<Zone> {
    let zone = Zone::parse(name);
    violations.check(zone.is_some(), "drift_schedule.time_zone", Zone::RULE);
    zone
}

fn window(asked: Option<prost_types::Duration>, violations: &mut Violations) -> i32 {
    let seconds = asked.map_or(Some(WINDOW_SECONDS), |asked| seconds(&asked, 60, 86_400));
    violations.check(
        seconds.is_some(),
        "drift_schedule.window",
        "must be whole seconds from 1 minute to 1 day",
    );
    seconds.unwrap_or_default()
}

fn jitter(asked: Option<prost_types::Duration>, violations: &mut Violations) -> i32 {
    let seconds = asked.map_or(Some(0), |asked| seconds(&asked, 0, 3_600));
    violations.check(
        seconds.is_some(),
        "drift_schedule.jitter",
        "must be whole seconds up to 1 hour",
    );
    seconds.unwrap_or_default()
}

fn seconds(asked: &prost_types::Duration, least: i32, most: i32) -> Option<i32> {
    let seconds = i32::try_from(asked.seconds).ok().filter(|_| asked.nanos == 0)?;
    (least..=most).contains(&seconds).then_some(seconds)
}

/// A schedule that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct One(pub(crate) ScheduleId);

impl One {
    fn parse(id: &str) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("drift_schedule_id", id, &mut violations);
        violations.finish(id).map(One)
    }
}

impl TryFrom<v1::GetDriftScheduleRequest> for One {
    type Error = Error;

    fn try_from(request: v1::GetDriftScheduleRequest) -> Result<Self> {
        One::parse(&request.drift_schedule_id)
    }
}

impl TryFrom<v1::DeleteDriftScheduleRequest> for One {
    type Error = Error;

    fn try_from(request: v1::DeleteDriftScheduleRequest) -> Result<Self> {
        One::parse(&request.drift_schedule_id)
    }
}

impl TryFrom<v1::ListDriftSchedulesRequest> for Asked<ScheduleFilter> {
    type Error = Error;

    fn try_from(request: v1::ListDriftSchedulesRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let state = ids::optional("state_id", &request.state_id, &mut violations);
        let size = PageSize::parse(request.page_size, &mut violations);
        Ok(Asked {
            filter: ScheduleFilter { state },
            size: violations.finish(size)?,
            token: request.page_token,
        })
    }
}

/// A change to a schedule that was seen at an etag.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) id: ScheduleId,
    pub(crate) etag: Etag,
    pub(crate) change: Change,
}

impl TryFrom<v1::UpdateDriftScheduleRequest> for Update {
    type Error = Error;

    fn try_from(request: v1::UpdateDriftScheduleRequest) -> Result<Self> {
        let mut violations = Violations::new();
        let id = ids::required("drift_schedule_id", &request.drift_schedule_id, &mut violations);
        violations.check(!request.etag.is_empty(), "etag", "is required");
        let etag = Etag::parse(request.etag);
        violations.check(etag.is_some(), "etag", "must have at most 64 characters");
        let mask = Mask::parse(request.update_mask.as_ref(), &WRITABLE, &mut violations);
        violations.check(request.drift_schedule.is_some(), "drift_schedule", "is required");
        let mut change = Change::default();
        if let (Some(mask), Some(schedule)) = (mask, request.drift_schedule) {
            if mask.has("pipeline_id") {
                change.pipeline_id =
                    ids::required("drift_schedule.pipeline_id", &schedule.pipeline_id, &mut violations);
            }
            if mask.has("cron") {
                change.cron = cron(&schedule.cron, &mut violations);
            }
            if mask.has("time_zone") {
                change.time_zone = zone(&schedule.time_zone, &mut violations);
            }
            if mask.has("window") {
                change.window_seconds = Some(window(schedule.window, &mut violations));
            }
            if mask.has("jitter") {
                change.jitter_seconds = Some(jitter(schedule.jitter, &mut violations));
            }
            if mask.has("paused") {
                change.paused = Some(schedule.paused);
            }
        }
        let (id, etag) = violations.finish(id.zip(etag))?;
        Ok(Update { id, etag, change })
    }
}

/// A schedule with its newest run, as it is shown.
pub(crate) fn shown((schedule, run): Shown) -> v1::DriftSchedule {
    let length = |seconds: i32| prost_types::Duration {
        seconds: seconds.into(),
        nanos: 0,
    };
    v1::DriftSchedule {
        id: schedule.id.to_string(),
        state_id: schedule.state_id.to_string(),
        pipeline_id: schedule.pipeline_id.to_string(),
        etag: schedule.etag().into(),
        cron: schedule.cron.into(),
        time_zone: schedule.time_zone.into(),
        window: Some(length(schedule.window_seconds)),
        jitter: Some(length(schedule.jitter_seconds)),
        paused: schedule.paused,
        next_run_time: schedule.run_at.map(timestamp),
        last_run: run.map(Into::into),
        author_id: schedule.author_id.to_string(),
        created_at: Some(timestamp(schedule.created_at)),
        updated_at: Some(timestamp(schedule.updated_at)),
    }
}

impl From<Run> for v1::DriftRun {
    fn from(run: Run) -> Self {
        v1::DriftRun {
            id: run.id.to_string(),
            due_at: Some(timestamp(run.due_at)),
            outcome: v1::DriftRunOutcome::from(run.outcome).into(),
            reason: run.reason,
            execution_id: run.execution_id.map(|id| id.to_string()).unwrap_or_default(),
            changed_at: Some(timestamp(run.changed_at)),
        }
    }
}

impl From<RunOutcome> for v1::DriftRunOutcome {
    fn from(outcome: RunOutcome) -> Self {
        match outcome {
            RunOutcome::Requested => v1::DriftRunOutcome::Requested,
            RunOutcome::Running => v1::DriftRunOutcome::Running,
            RunOutcome::Succeeded => v1::DriftRunOutcome::Succeeded,
            RunOutcome::Failed => v1::DriftRunOutcome::Failed,
            RunOutcome::Cancelled => v1::DriftRunOutcome::Cancelled,
            RunOutcome::StateLocked => v1::DriftRunOutcome::StateLocked,
            RunOutcome::StateBusy => v1::DriftRunOutcome::StateBusy,
            RunOutcome::OverCap => v1::DriftRunOutcome::OverCap,
            RunOutcome::Late => v1::DriftRunOutcome::Late,
            RunOutcome::StateDeleted => v1::DriftRunOutcome::StateDeleted,
            RunOutcome::Refused => v1::DriftRunOutcome::Refused,
            RunOutcome::Unanswered => v1::DriftRunOutcome::Unanswered,
        }
    }
}

/// What pipelines is asked for by a run of a state's schedule.
pub(crate) fn requested(schedule: &Schedule, state: State, run: &Run) -> DriftCheckRequested {
    let kind = match schedule.author_kind {
        PrincipalKind::User => ActorKind::User,
        PrincipalKind::ApiKey => ActorKind::ApiKey,
        PrincipalKind::Job => ActorKind::Job,
    };
    DriftCheckRequested {
        drift_run_id: run.id.to_string(),
        drift_schedule_id: schedule.id.to_string(),
        pipeline_id: schedule.pipeline_id.to_string(),
        state_name: state.name.into(),
        begin_before: Some(timestamp(run.run_before)),
        author: Some(Actor {
            kind: kind.into(),
            id: schedule.author_id.to_string(),
        }),
    }
}

/// What an answer of pipelines means, and the reason that is shown beside it.
pub(crate) fn answered(refusal: &str) -> (RunOutcome, &str) {
    match refusal {
        "" => (RunOutcome::Running, ""),
        "LATE" => (RunOutcome::Late, ""),
        "STATE_BUSY" => (RunOutcome::StateBusy, ""),
        other => (RunOutcome::Refused, other.get(..100).unwrap_or(other)),
    }
}
