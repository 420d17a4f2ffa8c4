//! Attempts: one runner's try at a stage. While it goes on it is a lease.
//!
//! A lease that ran out is a loss of contact, never a failure: nobody knows what an apply has done by then.

use std::time::Duration;

use diesel::prelude::{Queryable, Selectable};
use kit::db::About;
use time::OffsetDateTime;

use super::{AttemptId, AttemptStatus, FailureDetail, FailureReason, RunnerId, StageId, StageKind, StageStatus};
use crate::schema::stage_attempts;

/// For how long a lease is a runner's at a time.
pub const LEASE: Duration = Duration::from_secs(30);
/// How long after a lease's end it is taken away.
pub const MARGIN: Duration = Duration::from_secs(15);
/// How often a stage is begun when contact is lost where nothing could be changed.
pub const MOST_ATTEMPTS: i32 = 3;
/// How often a stage is handed out, begun or not, before it is given up.
pub const MOST_LEASES: i32 = 20;

/// An attempt's row, without its plan and its credential's hash.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = stage_attempts, check_for_backend(diesel::pg::Pg))]
pub struct Attempt {
    /// Its id; the lease's and the job's too.
    pub id: AttemptId,
    /// Its stage.
    pub stage_id: StageId,
    /// 1, 2, 3.
    pub number: i32,
    /// Whose it is.
    pub runner_id: RunnerId,
    /// The fence.
    pub generation: i64,
    /// Where it stands.
    pub status: AttemptStatus,
    /// When it was handed out.
    pub leased_at: OffsetDateTime,
    /// When the runner began.
    pub started_at: Option<OffsetDateTime>,
    /// When the runner was last heard of.
    pub renewed_at: OffsetDateTime,
    /// Until when the lease is the runner's.
    pub expires_at: OffsetDateTime,
    /// From when on it may be taken away.
    pub fence_at: OffsetDateTime,
    /// When it came to an end.
    pub finished_at: Option<OffsetDateTime>,
    /// How many bytes of log there are.
    pub log_bytes: i64,
    /// Whether the log is complete.
    pub log_sealed: bool,
    /// Keyed hash of the report that ended it.
    pub completion: Option<Vec<u8>>,
}

impl About for Attempt {
    const TYPE: &'static str = "stage_attempt";

    fn id(&self) -> String {
        self.id.to_string()
    }
}

impl AttemptStatus {
    /// Whether it goes on.
    pub const fn is_live(self) -> bool {
        match self {
            AttemptStatus::Leased | AttemptStatus::Running => true,
            AttemptStatus::Succeeded
            | AttemptStatus::Failed
            | AttemptStatus::Cancelled
            | AttemptStatus::OutcomeUnknown
            | AttemptStatus::Lost => false,
        }
    }
}

/// How an attempt ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The runner says that it was done.
    Succeeded,
    /// The runner says that it was not, and why.
    Failed(FailureReason, FailureDetail),
    /// The runner was interrupted as asked.
    Cancelled(FailureDetail),
    /// The fence has passed without a word; what is known of it.
    Lost(FailureDetail),
}

/// What becomes of an attempt and its stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where the attempt stands.
    pub attempt: AttemptStatus,
    /// Where the stage stands: ready where another attempt follows.
    pub stage: StageStatus,
    /// Why the stage was not done.
    pub failure_reason: Option<FailureReason>,
    /// The same in words.
    pub failure_detail: FailureDetail,
}

/// How often a stage was tried, the attempt that ends among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// How often it was handed out.
    pub leased: i32,
    /// How often of these a runner began it.
    pub begun: i32,
}

/// What becomes of a live attempt and its stage when it ends; `cancelling` says whether the execution is.
///
/// Of a lost apply that had begun nobody knows what it did: its outcome is unknown, and nothing tries it again.
pub fn end(kind: StageKind, status: AttemptStatus, tries: Tries, cancelling: bool, end: End) -> Outcome {
    let outcome = |attempt, stage, failure_reason, failure_detail| Outcome {
        attempt,
        stage,
        failure_reason,
        failure_detail,
    };
    match end {
        End::Succeeded => outcome(
            AttemptStatus::Succeeded,
            StageStatus::Succeeded,
            None,
            FailureDetail::of(""),
        ),
        End::Failed(reason, detail) => outcome(AttemptStatus::Failed, StageStatus::Failed, Some(reason), detail),
        End::Cancelled(detail) => outcome(
            AttemptStatus::Cancelled,
            StageStatus::Cancelled,
            Some(FailureReason::Cancelled),
            detail,
        ),
        End::Lost(detail) if changes(kind) && status == AttemptStatus::Running => outcome(
            AttemptStatus::OutcomeUnknown,
            StageStatus::OutcomeUnknown,
            Some(FailureReason::LeaseExpired),
            detail,
        ),
        End::Lost(detail) if cancelling => outcome(
            AttemptStatus::Lost,
            StageStatus::Cancelled,
            Some(FailureReason::Cancelled),
            detail,
        ),
        End::Lost(detail) if tries.begun >= MOST_ATTEMPTS || tries.leased >= MOST_LEASES => outcome(
            AttemptStatus::Lost,
            StageStatus::Failed,
            Some(FailureReason::LeaseExpired),
            detail,
        ),
        End::Lost(_) => outcome(AttemptStatus::Lost, StageStatus::Ready, None, FailureDetail::of("")),
    }
}

/// Whether a stage of this kind changes something.
pub const fn changes(kind: StageKind) -> bool {
    match kind {
        StageKind::Validate | StageKind::Plan | StageKind::Drift => false,
        StageKind::Apply => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lost_apply_that_had_begun_has_an_unknown_outcome() {
        for &kind in StageKind::ALL {
            for status in [AttemptStatus::Leased, AttemptStatus::Running] {
                for number in 1..=MOST_ATTEMPTS {
                    for cancelling in [false, true] {
                        let tries = Tries {
                            leased: number,
                            begun: number,
                        };
                        let lost = end(kind, status, tries, cancelling, End::Lost(FailureDetail::of("gone")));
                        let unknown = kind == StageKind::Apply && status == AttemptStatus::Running;
                        assert_eq!(lost.attempt == AttemptStatus::OutcomeUnknown, unknown);
                        let wanted = match (unknown, cancelling, number) {
                            (true, _, _) => StageStatus::OutcomeUnknown,
                            (false, true, _) => StageStatus::Cancelled,
                            (false, false, MOST_ATTEMPTS) => StageStatus::Failed,
                            (false, false, _) => StageStatus::Ready,
                        };
                        assert_eq!(lost.stage, wanted);
                        assert_eq!(lost.failure_reason.is_some(), lost.stage.is_terminal());
                    }
                }
            }
        }
    }

    const FIRST: Tries = Tries { leased: 1, begun: 1 };

    #[test]
    fn what_was_never_begun_costs_no_attempt_and_comes_to_an_end() {
        let lost = |leased, begun| {
            let tries = Tries { leased, begun };
            let gone = End::Lost(FailureDetail::of("gone"));
            end(StageKind::Apply, AttemptStatus::Leased, tries, false, gone).stage
        };
        assert_eq!(lost(4, 0), StageStatus::Ready);
        assert_eq!(lost(MOST_LEASES - 1, 2), StageStatus::Ready);
        assert_eq!(lost(MOST_LEASES, 0), StageStatus::Failed);
    }

    #[test]
    fn a_report_is_taken_at_its_word() {
        let report = |what| end(StageKind::Apply, AttemptStatus::Running, FIRST, true, what).stage;
        assert_eq!(report(End::Succeeded), StageStatus::Succeeded);
        assert_eq!(
            report(End::Failed(FailureReason::TerraformFailed, FailureDetail::of(""))),
            StageStatus::Failed
        );
        assert_eq!(report(End::Cancelled(FailureDetail::of(""))), StageStatus::Cancelled);
    }

    #[test]
    fn what_an_end_makes_of_a_stage_it_may_become() {
        for &kind in StageKind::ALL {
            for (status, stage) in [
                (AttemptStatus::Leased, StageStatus::Leased),
                (AttemptStatus::Running, StageStatus::Running),
            ] {
                for what in [
                    End::Succeeded,
                    End::Failed(FailureReason::RunnerFailed, FailureDetail::of("")),
                    End::Cancelled(FailureDetail::of("")),
                    End::Lost(FailureDetail::of("")),
                ] {
                    let outcome = end(kind, status, FIRST, false, what);
                    assert!(stage.may_become(outcome.stage), "{stage:?} to {outcome:?}");
                    assert!(!outcome.attempt.is_live());
                }
            }
        }
    }
}
