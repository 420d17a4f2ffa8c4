//! Stages of executions: what is to be done, and where it stands.

use diesel::prelude::{Insertable, Queryable, Selectable};
use kit::{db::About, ids::OrgId};

use super::{
    ExecutionId, FailureDetail, FailureReason, RunnerName, StageId, StageKind, StageName, StageStatus, attempt::Attempt,
};
use crate::schema::pipeline_stages;

impl StageStatus {
    /// Whether it has come to its end, and stays as it is.
    pub const fn is_terminal(self) -> bool {
        match self {
            StageStatus::Blocked | StageStatus::Ready | StageStatus::Leased | StageStatus::Running => false,
            StageStatus::Succeeded
            | StageStatus::Failed
            | StageStatus::Skipped
            | StageStatus::Cancelled
            | StageStatus::OutcomeUnknown => true,
        }
    }

    /// Whether a runner has it.
    pub const fn is_held(self) -> bool {
        match self {
            StageStatus::Leased | StageStatus::Running => true,
            StageStatus::Blocked
            | StageStatus::Ready
            | StageStatus::Succeeded
            | StageStatus::Failed
            | StageStatus::Skipped
            | StageStatus::Cancelled
            | StageStatus::OutcomeUnknown => false,
        }
    }

    /// Whether it can become the next one, ever.
    pub const fn may_become(self, next: StageStatus) -> bool {
        use StageStatus::{Blocked, Cancelled, Failed, Leased, OutcomeUnknown, Ready, Running, Skipped, Succeeded};
        match self {
            Blocked => matches!(next, Ready | Skipped | Cancelled),
            Ready => matches!(next, Leased | Cancelled),
            Leased => matches!(next, Running | Ready | Succeeded | Failed | Cancelled),
            Running => matches!(next, Ready | Succeeded | Failed | Cancelled | OutcomeUnknown),
            Succeeded | Failed | Skipped | Cancelled | OutcomeUnknown => false,
        }
    }
}

/// A stage's row.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = pipeline_stages, check_for_backend(diesel::pg::Pg))]
pub struct Stage {
    /// Its id.
    pub id: StageId,
    /// Its execution.
    pub execution_id: ExecutionId,
    /// Its place in the pipeline's order, from 0.
    pub position: i32,
    /// Its name.
    pub name: StageName,
    /// What it does.
    pub kind: StageKind,
    /// The stages that must succeed before.
    pub needs: Vec<StageName>,
    /// Where it stands.
    pub status: StageStatus,
    /// How many attempts there were.
    pub attempts: i32,
    /// Why it was not done.
    pub failure_reason: Option<FailureReason>,
    /// The same in words.
    pub failure_detail: FailureDetail,
}

impl About for Stage {
    const TYPE: &'static str = "stage";

    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// A stage's row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = pipeline_stages, check_for_backend(diesel::pg::Pg))]
pub struct StageRow<'a> {
    /// Whose it is.
    pub org_id: OrgId,
    /// Its id.
    pub id: StageId,
    /// Its execution.
    pub execution_id: ExecutionId,
    /// Its place, from 0.
    pub position: i32,
    /// Its name.
    pub name: &'a StageName,
    /// What it does.
    pub kind: StageKind,
    /// The stages that must succeed before.
    pub needs: &'a [StageName],
    /// Where it stands.
    pub status: StageStatus,
}

/// A stage with its attempts, oldest first, each beside its runner's name.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The stage.
    pub stage: Stage,
    /// Its attempts.
    pub attempts: Vec<(Attempt, RunnerName)>,
}
