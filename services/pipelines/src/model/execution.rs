//! Executions: where one stands follows from its stages alone, by one pure function.
//!
//! What has come to an end stays as it is, and an execution whose stages have all ended has ended.

use diesel::prelude::{Insertable, Queryable, Selectable};
use kit::{db::About, ids::OrgId};
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    DesignId, EventId, ExecutionId, ExecutionStatus, PipelineId, PrincipalId, PrincipalKind, StageId, StageStatus,
    StateName, Trigger,
    stage::{self, Stage},
};
use crate::schema::pipeline_executions;

/// Which executions to list.
#[derive(Clone, Debug, Serialize)]
pub struct ExecutionFilter {
    /// Only those of this pipeline.
    pub pipeline: Option<PipelineId>,
    /// Only those that stand so.
    pub status: Option<ExecutionStatus>,
}

/// An execution's row.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = pipeline_executions, check_for_backend(diesel::pg::Pg))]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// Its pipeline.
    pub pipeline_id: PipelineId,
    /// The design.
    pub design_id: DesignId,
    /// The design's version that it takes.
    pub design_version: i32,
    /// The state that it works on.
    pub state_name: StateName,
    /// What started it.
    pub trigger: Trigger,
    /// Who started it, where a caller did.
    pub starter_id: Option<PrincipalId>,
    /// What started it, where an event did.
    pub cause_event_id: Option<EventId>,
    /// How many events stand between its own events and a caller.
    pub chain_depth: i32,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// Why, in words.
    pub status_detail: String,
    /// Grows by one with each change.
    pub revision: i64,
    /// When it was queued.
    pub created_at: OffsetDateTime,
    /// When its first stage was handed out.
    pub started_at: Option<OffsetDateTime>,
    /// When it came to an end.
    pub finished_at: Option<OffsetDateTime>,
}

/// An execution's row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = pipeline_executions, check_for_backend(diesel::pg::Pg))]
pub struct ExecutionRow<'a> {
    /// Whose it is.
    pub org_id: OrgId,
    /// Its id.
    pub id: ExecutionId,
    /// Its pipeline.
    pub pipeline_id: PipelineId,
    /// The design.
    pub design_id: DesignId,
    /// The design's version that it takes.
    pub design_version: i32,
    /// The state that it works on.
    pub state_name: &'a StateName,
    /// What starts it.
    pub trigger: Trigger,
    /// What kind of caller starts it.
    pub starter_kind: Option<PrincipalKind>,
    /// Who starts it.
    pub starter_id: Option<PrincipalId>,
    /// The event that starts it.
    pub cause_event_id: Option<EventId>,
    /// How many events stand between its own events and a caller.
    pub chain_depth: i32,
    /// Why it stands where it stands.
    pub status_detail: &'a str,
}

/// An execution with its stages.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The execution.
    pub execution: Execution,
    /// Its stages in the pipeline's order; left out in lists.
    pub stages: Vec<stage::Shown>,
}

impl About for Execution {
    const TYPE: &'static str = "execution";

    fn id(&self) -> String {
        self.id.to_string()
    }
}

impl ExecutionStatus {
    /// Whether it has come to its end, and stays as it is.
    pub const fn is_terminal(self) -> bool {
        match self {
            ExecutionStatus::Queued | ExecutionStatus::Running | ExecutionStatus::Cancelling => false,
            ExecutionStatus::Succeeded
            | ExecutionStatus::Failed
            | ExecutionStatus::Cancelled
            | ExecutionStatus::OutcomeUnknown => true,
        }
    }
}

/// What follows from where the stages of an execution stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Stages that stand elsewhere now, with where.
    pub changes: Vec<(StageId, StageStatus)>,
    /// Where the execution stands.
    pub status: ExecutionStatus,
    /// Why, in words.
    pub detail: String,
}

/// What follows from where the stages stand, with `status` as the execution stood before: what is unblocked becomes
/// ready, what can never be is skipped, what a cancelled execution has not handed out is cancelled.
///
/// An execution that has ended is left as it is: `None`.
pub fn advance(status: ExecutionStatus, stages: &[Stage]) -> Option<Advance> {
    if status.is_terminal() {
        return None;
    }
    let cancelling = status == ExecutionStatus::Cancelling;
    let mut now: Vec<StageStatus> = stages.iter().map(|stage| stage.status).collect();
    // A stage may stand before one that it needs: until nothing changes, and each changes twice at most.
    loop {
        let next: Vec<StageStatus> = (0..now.len()).map(|at| next(stages, &now, at, cancelling)).collect();
        if next == now {
            break;
        }
        now = next;
    }
    let changes = stages
        .iter()
        .zip(&now)
        .filter(|(stage, now)| stage.status != **now)
        .map(|(stage, now)| (stage.id, *now))
        .collect();
    let status = standing(cancelling, stages, &now);
    Some(Advance {
        changes,
        status,
        detail: detail(status, stages, &now),
    })
}

fn next(stages: &[Stage], now: &[StageStatus], at: usize, cancelling: bool) -> StageStatus {
    match now[at] {
        StageStatus::Blocked | StageStatus::Ready if cancelling => StageStatus::Cancelled,
        StageStatus::Blocked => {
            let needed = || {
                let needs = stages[at].needs.iter();
                needs.filter_map(|need| stages.iter().position(|stage| stage.name == *need))
            };
            if needed().all(|need| now[need] == StageStatus::Succeeded) {
                StageStatus::Ready
            } else if needed().any(|need| now[need].is_terminal() && now[need] != StageStatus::Succeeded) {
                StageStatus::Skipped
            } else {
                StageStatus::Blocked
            }
        }
        stays @ (StageStatus::Ready
        | StageStatus::Leased
        | StageStatus::Running
        | StageStatus::Succeeded
        | StageStatus::Failed
        | StageStatus::Skipped
        | StageStatus::Cancelled
        | StageStatus::OutcomeUnknown) => stays,
    }
}

/// Where an execution stands; of ends, the one that somebody must look at first.
fn standing(cancelling: bool, stages: &[Stage], now: &[StageStatus]) -> ExecutionStatus {
    let some = |wanted: StageStatus| now.contains(&wanted);
    if !now.iter().all(|status| status.is_terminal()) {
        if cancelling {
            ExecutionStatus::Cancelling
        } else if stages.iter().any(|stage| stage.attempts > 0) {
            ExecutionStatus::Running
        } else {
            ExecutionStatus::Queued
        }
    } else if some(StageStatus::OutcomeUnknown) {
        ExecutionStatus::OutcomeUnknown
    } else if some(StageStatus::Failed) {
        ExecutionStatus::Failed
    } else if some(StageStatus::Cancelled) {
        ExecutionStatus::Cancelled
    } else {
        ExecutionStatus::Succeeded
    }
}

/// Why an execution stands where it stands, where that is not plain.
fn detail(status: ExecutionStatus, stages: &[Stage], now: &[StageStatus]) -> String {
    let first = |wanted: &[StageStatus]| {
        let mut all = stages.iter().zip(now);
        all.find(|(_, now)| wanted.contains(now)).map(|(stage, _)| stage)
    };
    let held = first(&[StageStatus::Leased, StageStatus::Running]);
    let trouble = first(&[StageStatus::OutcomeUnknown])
        .map(|stage| format!("stage {}: {}", stage.name, stage.failure_detail))
        .or_else(|| {
            let stage = first(&[StageStatus::Failed])?;
            let reason = stage.failure_reason.map(|reason| reason.wire()).unwrap_or_default();
            Some(format!("stage {} failed: {reason}", stage.name))
        });
    match status {
        ExecutionStatus::Queued => "waiting for a runner".to_owned(),
        ExecutionStatus::Running => trouble
            .or_else(|| match (held, first(&[StageStatus::Ready])) {
                (None, Some(ready)) => Some(format!("stage {} waits for a runner", ready.name)),
                _ => None,
            })
            .unwrap_or_default(),
        ExecutionStatus::Cancelling => held.map_or_else(String::new, |stage| {
            format!("cancelled; stage {} waits for its runner to stop", stage.name)
        }),
        ExecutionStatus::Succeeded => String::new(),
        ExecutionStatus::Failed | ExecutionStatus::OutcomeUnknown => trouble.unwrap_or_default(),
        ExecutionStatus::Cancelled => first(&[StageStatus::Cancelled]).map_or_else(String::new, |stage| {
            format!("cancelled before stage {} was done", stage.name)
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::model::{
        AttemptStatus, FailureDetail, FailureReason, StageKind, StageName,
        attempt::{self, End},
        pipeline::Definition,
    };

    fn stage(at: usize, needs: &[usize], kind: StageKind) -> Stage {
        let name = |at: usize| StageName(format!("s{at}"));
        Stage {
            id: StageId::new(),
            execution_id: ExecutionId::new(),
            position: i32::try_from(at).unwrap(),
            name: name(at),
            kind,
            needs: needs.iter().copied().map(name).collect(),
            status: StageStatus::Blocked,
            attempts: 0,
            failure_reason: None,
            failure_detail: FailureDetail::of(""),
        }
    }

    fn standard() -> Vec<Stage> {
        let definition = Definition::standard();
        let stages = definition.stages().iter().enumerate();
        stages
            .map(|(at, defined)| Stage {
                name: defined.name.clone(),
                needs: defined.needs.clone(),
                ..stage(at, &[], defined.kind)
            })
            .collect()
    }

    /// Puts what follows on the stages, each step one that is allowed.
    fn settle(status: ExecutionStatus, stages: &mut [Stage]) -> (ExecutionStatus, String) {
        let Some(advance) = advance(status, stages) else {
            return (status, String::new());
        };
        for (id, next) in advance.changes {
            let stage = stages.iter_mut().find(|stage| stage.id == id).unwrap();
            assert!(stage.status.may_become(next), "{:?} to {next:?}", stage.status);
            stage.status = next;
        }
        (advance.status, advance.detail)
    }

    fn hold(stage: &mut Stage, status: StageStatus) {
        assert!(stage.status.may_become(status));
        stage.attempts += i32::from(status == StageStatus::Leased);
        stage.status = status;
    }

    fn close(stage: &mut Stage, cancelling: bool, end: End) {
        let status = match stage.status {
            StageStatus::Leased => AttemptStatus::Leased,
            StageStatus::Running => AttemptStatus::Running,
            other => panic!("{other:?} is held by nobody"),
        };
        let tries = attempt::Tries {
            leased: stage.attempts,
            begun: stage.attempts,
        };
        let outcome = attempt::end(stage.kind, status, tries, cancelling, end);
        assert!(stage.status.may_become(outcome.stage));
        stage.status = outcome.stage;
        stage.failure_reason = outcome.failure_reason;
        stage.failure_detail = outcome.failure_detail;
    }

    #[test]
    fn stages_follow_one_another_to_success() {
        let mut stages = standard();
        let (mut status, detail) = settle(ExecutionStatus::Queued, &mut stages);
        assert_eq!(
            (status, detail.as_str()),
            (ExecutionStatus::Queued, "waiting for a runner")
        );
        for at in 0..3 {
            assert_eq!(stages[at].status, StageStatus::Ready);
            hold(&mut stages[at], StageStatus::Leased);
            hold(&mut stages[at], StageStatus::Running);
            assert_eq!(settle(status, &mut stages), (ExecutionStatus::Running, String::new()));
            close(&mut stages[at], false, End::Succeeded);
            status = settle(status, &mut stages).0;
        }
        assert_eq!(status, ExecutionStatus::Succeeded);
    }

    #[test]
    fn a_failure_skips_what_needs_it_and_says_which_stage_it_was() {
        let mut stages = standard();
        settle(ExecutionStatus::Queued, &mut stages);
        hold(&mut stages[0], StageStatus::Leased);
        let failed = End::Failed(FailureReason::TerraformFailed, FailureDetail::of("exit 1"));
        close(&mut stages[0], false, failed);
        let (status, detail) = settle(ExecutionStatus::Running, &mut stages);
        assert_eq!(status, ExecutionStatus::Failed);
        assert_eq!(detail, "stage validate failed: TERRAFORM_FAILED");
        assert_eq!(stages[1].status, StageStatus::Skipped);
        assert_eq!(stages[2].status, StageStatus::Skipped);
    }

    #[test]
    fn what_does_not_need_the_failed_stage_goes_on_and_then_the_execution_has_failed() {
        let mut stages = vec![
            stage(0, &[1], StageKind::Plan),
            stage(1, &[], StageKind::Validate),
            stage(2, &[], StageKind::Plan),
        ];
        settle(ExecutionStatus::Queued, &mut stages);
        hold(&mut stages[1], StageStatus::Leased);
        close(
            &mut stages[1],
            false,
            End::Failed(FailureReason::ToolMissing, FailureDetail::of("")),
        );
        let (status, detail) = settle(ExecutionStatus::Running, &mut stages);
        assert_eq!(status, ExecutionStatus::Running);
        assert_eq!(detail, "stage s1 failed: TOOL_MISSING");
        assert_eq!(stages[0].status, StageStatus::Skipped);
        hold(&mut stages[2], StageStatus::Leased);
        close(&mut stages[2], false, End::Succeeded);
        assert_eq!(settle(status, &mut stages).0, ExecutionStatus::Failed);
    }

    #[test]
    fn a_lost_apply_ends_the_execution_with_its_outcome_unknown() {
        let mut stages = standard();
        let mut status = ExecutionStatus::Queued;
        for at in 0..3 {
            status = settle(status, &mut stages).0;
            hold(&mut stages[at], StageStatus::Leased);
            hold(&mut stages[at], StageStatus::Running);
            if at < 2 {
                close(&mut stages[at], false, End::Succeeded);
            }
        }
        let lost = End::Lost(FailureDetail::of("contact with runner r1 was lost"));
        close(&mut stages[2], false, lost);
        let (status, detail) = settle(status, &mut stages);
        assert_eq!(status, ExecutionStatus::OutcomeUnknown);
        assert_eq!(detail, "stage apply: contact with runner r1 was lost");
    }

    #[test]
    fn cancelling_waits_for_the_runner_that_works_and_for_nobody_else() {
        let mut stages = standard();
        settle(ExecutionStatus::Queued, &mut stages);
        let mut untouched = stages.clone();
        assert_eq!(
            settle(ExecutionStatus::Cancelling, &mut untouched).0,
            ExecutionStatus::Cancelled
        );
        hold(&mut stages[0], StageStatus::Leased);
        let (status, detail) = settle(ExecutionStatus::Cancelling, &mut stages);
        assert_eq!(status, ExecutionStatus::Cancelling);
        assert_eq!(detail, "cancelled; stage validate waits for its runner to stop");
        assert_eq!(stages[1].status, StageStatus::Cancelled);
        close(&mut stages[0], true, End::Cancelled(FailureDetail::of("")));
        assert_eq!(settle(status, &mut stages).0, ExecutionStatus::Cancelled);
    }

    /// Deterministic numbers (Knuth's MMIX), so that a failure comes again.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % bound
        }
    }

    #[test]
    fn no_sequence_leaves_an_execution_open_whose_stages_have_ended_or_changes_an_end() {
        for seed in 0..2_000 {
            let mut dice = Dice(seed);
            let count = 1 + dice.below(6);
            let mut stages: Vec<Stage> = (0..count)
                .map(|at| {
                    let needs: Vec<usize> = (0..at).filter(|_| dice.below(3) == 0).collect();
                    stage(at, &needs, StageKind::ALL[dice.below(3)])
                })
                .collect();
            // Stages need not stand behind those that they need.
            let turn = dice.below(count);
            stages.rotate_left(turn);
            let mut status = settle(ExecutionStatus::Queued, &mut stages).0;
            for _ in 0..200 {
                let before = (status, stages.clone());
                let at = dice.below(count);
                let cancelling = status == ExecutionStatus::Cancelling;
                match (stages[at].status, dice.below(8)) {
                    (_, 0) if dice.below(10) == 0 && !status.is_terminal() => status = ExecutionStatus::Cancelling,
                    (StageStatus::Ready, _) => hold(&mut stages[at], StageStatus::Leased),
                    (StageStatus::Leased, 1..=4) => hold(&mut stages[at], StageStatus::Running),
                    (StageStatus::Leased | StageStatus::Running, 5) => {
                        close(&mut stages[at], cancelling, End::Succeeded)
                    }
                    (StageStatus::Leased | StageStatus::Running, 6) => {
                        let failed = End::Failed(FailureReason::RunnerFailed, FailureDetail::of(""));
                        close(&mut stages[at], cancelling, failed);
                    }
                    (StageStatus::Leased | StageStatus::Running, 7) => {
                        close(&mut stages[at], cancelling, End::Lost(FailureDetail::of("gone")));
                    }
                    _ => {}
                }
                status = settle(status, &mut stages).0;
                if before.0.is_terminal() {
                    assert_eq!((status, &stages), (before.0, &before.1), "seed {seed}");
                }
                for (was, is) in before.1.iter().zip(&stages) {
                    assert!(!was.status.is_terminal() || was == is, "seed {seed}");
                }
                let ended = stages.iter().all(|stage| stage.status.is_terminal());
                assert_eq!(status.is_terminal(), ended, "seed {seed}: {stages:?}");
                // Whoever waits, waits for somebody: a stage is ready, held, or behind one that is.
                let moving = stages
                    .iter()
                    .any(|stage| stage.status == StageStatus::Ready || stage.status.is_held());
                assert!(ended || moving, "seed {seed}: {stages:?}");
                let held = stages.iter().any(|stage| stage.status.is_held());
                assert!(status != ExecutionStatus::Cancelling || held, "seed {seed}");
            }
        }
    }
}
