//! Executions, their stages and the attempts at them.

use api::pipelines::v1;
use kit::{Error, Violations, ids};

use super::{lease, timestamp};
use crate::model::{
    AttemptStatus, ExecutionId, ExecutionStatus, RunnerName, StageStatus,
    attempt::Attempt,
    execution::{Execution, Shown},
    stage,
};

impl TryFrom<v1::GetExecutionRequest> for ExecutionId {
    type Error = Error;

    fn try_from(request: v1::GetExecutionRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let id = ids::required("execution_id", &request.execution_id, &mut violations);
        violations.finish(id)
    }
}

impl TryFrom<v1::CancelExecutionRequest> for ExecutionId {
    type Error = Error;

    fn try_from(request: v1::CancelExecutionRequest) -> Result<Self, Error> {
        let mut violations = Violations::new();
        let id = ids::required("execution_id", &request.execution_id, &mut violations);
        violations.finish(id)
    }
}

impl From<ExecutionStatus> for v1::ExecutionStatus {
    fn from(status: ExecutionStatus) -> Self {
        match status {
            ExecutionStatus::Queued => v1::ExecutionStatus::Queued,
            ExecutionStatus::Running => v1::ExecutionStatus::Running,
            ExecutionStatus::Cancelling => v1::ExecutionStatus::Cancelling,
            ExecutionStatus::Succeeded => v1::ExecutionStatus::Succeeded,
            ExecutionStatus::Failed => v1::ExecutionStatus::Failed,
            ExecutionStatus::Cancelled => v1::ExecutionStatus::Cancelled,
            ExecutionStatus::OutcomeUnknown => v1::ExecutionStatus::OutcomeUnknown,
        }
    }
}

impl From<StageStatus> for v1::StageStatus {
    fn from(status: StageStatus) -> Self {
        match status {
            StageStatus::Blocked => v1::StageStatus::Blocked,
            StageStatus::Ready => v1::StageStatus::Ready,
            StageStatus::Leased => v1::StageStatus::Leased,
            StageStatus::Running => v1::StageStatus::Running,
            StageStatus::Succeeded => v1::StageStatus::Succeeded,
            StageStatus::Failed => v1::StageStatus::Failed,
            StageStatus::Skipped => v1::StageStatus::Skipped,
            StageStatus::Cancelled => v1::StageStatus::Cancelled,
            StageStatus::OutcomeUnknown => v1::StageStatus::OutcomeUnknown,
        }
    }
}

impl From<AttemptStatus> for v1::StageStatus {
    fn from(status: AttemptStatus) -> Self {
        match status {
            AttemptStatus::Leased => v1::StageStatus::Leased,
            AttemptStatus::Running => v1::StageStatus::Running,
            AttemptStatus::Succeeded => v1::StageStatus::Succeeded,
            AttemptStatus::Failed => v1::StageStatus::Failed,
            AttemptStatus::Cancelled => v1::StageStatus::Cancelled,
            AttemptStatus::OutcomeUnknown => v1::StageStatus::OutcomeUnknown,
            AttemptStatus::Lost => v1::StageStatus::Lost,
        }
    }
}

impl From<Shown> for v1::Execution {
    fn from(shown: Shown) -> Self {
        v1::Execution {
            stages: shown.stages.into_iter().map(Into::into).collect(),
            ..shown.execution.into()
        }
    }
}

impl From<Execution> for v1::Execution {
    fn from(execution: Execution) -> Self {
        v1::Execution {
            id: execution.id.to_string(),
            pipeline_id: execution.pipeline_id.to_string(),
            design_id: execution.design_id.to_string(),
            design_version: execution.design_version,
            state_name: execution.state_name.into(),
            trigger: v1::Trigger::from(execution.trigger).into(),
            started_by: execution.starter_id.map(|id| id.to_string()).unwrap_or_default(),
            cause_event_id: execution.cause_event_id.map(|id| id.to_string()).unwrap_or_default(),
            status: v1::ExecutionStatus::from(execution.status).into(),
            status_detail: execution.status_detail,
            stages: Vec::new(),
            created_at: Some(timestamp(execution.created_at)),
            started_at: execution.started_at.map(timestamp),
            finished_at: execution.finished_at.map(timestamp),
        }
    }
}

impl From<stage::Shown> for v1::Stage {
    fn from(shown: stage::Shown) -> Self {
        let stage = shown.stage;
        v1::Stage {
            id: stage.id.to_string(),
            name: stage.name.into(),
            kind: lease::kind(stage.kind).into(),
            needs: stage.needs.into_iter().map(Into::into).collect(),
            status: v1::StageStatus::from(stage.status).into(),
            failure_reason: stage.failure_reason.map(|reason| reason.wire()).unwrap_or_default(),
            failure_detail: stage.failure_detail.into(),
            attempts: shown.attempts.into_iter().map(attempt).collect(),
        }
    }
}

fn attempt((attempt, runner): (Attempt, RunnerName)) -> v1::StageAttempt {
    v1::StageAttempt {
        id: attempt.id.to_string(),
        number: attempt.number,
        runner_id: attempt.runner_id.to_string(),
        runner_name: runner.into(),
        status: v1::StageStatus::from(attempt.status).into(),
        renewed_at: Some(timestamp(attempt.renewed_at)),
        log_bytes: attempt.log_bytes,
        log_sealed: attempt.log_sealed,
        leased_at: Some(timestamp(attempt.leased_at)),
        started_at: attempt.started_at.map(timestamp),
        finished_at: attempt.finished_at.map(timestamp),
    }
}
