//! What follows from other services' events: which designs there are, which jobs have ended, of which states executions
//! run, and what became of the checks for drift that schedules have asked for.

use api::events::v1::{PositionedEvent, event::Payload};
use async_trait::async_trait;
use kit::{Error, Result, db::Tx, events::consumer::Consumer};

use crate::{
    backend::lock::orphan,
    model::{
        DesignId, PrincipalId,
        schedule::{RunId, RunOutcome},
        state::StateName,
    },
    store, wire,
};

/// Keeps `designs` as designs tells it.
pub(crate) struct Designs;

#[async_trait]
impl Consumer for Designs {
    fn name(&self) -> &'static str {
        "terraform_state.designs"
    }

    fn sources(&self) -> &'static [&'static str] {
        &["designs"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        let Some(Payload::DesignChanged(changed)) = event.event.as_ref().and_then(|event| event.payload.as_ref())
        else {
            return Ok(());
        };
        let design: DesignId = changed.design_id.parse().map_err(Error::internal)?;
        store::design::upsert(tx, design, changed.revision, changed.deleted).await
    }
}

/// Takes the locks of jobs away that have ended.
pub(crate) struct Jobs;

#[async_trait]
impl Consumer for Jobs {
    fn name(&self) -> &'static str {
        "terraform_state.jobs"
    }

    fn sources(&self) -> &'static [&'static str] {
        &["pipelines"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        let Some(event) = &event.event else { return Ok(()) };
        let Some(Payload::JobEnded(ended)) = &event.payload else {
            return Ok(());
        };
        let job: PrincipalId = ended.job_id.parse().map_err(Error::internal)?;
        tx.caused_by(event);
        orphan(tx, job).await
    }
}

/// Keeps `executions` as pipelines tells it.
pub(crate) struct Executions;

#[async_trait]
impl Consumer for Executions {
    fn name(&self) -> &'static str {
        "terraform_state.executions"
    }

    fn sources(&self) -> &'static [&'static str] {
        &["pipelines"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        let Some(Payload::ExecutionChanged(changed)) = event.event.as_ref().and_then(|event| event.payload.as_ref())
        else {
            return Ok(());
        };
        // An execution of another name refers to no state of ours.
        let Some(state) = StateName::parse(&changed.state_name) else {
            return Ok(());
        };
        let execution = kit::ids::parse(&changed.execution_id).map_err(Error::internal)?;
        // Of one whose outcome is unknown somebody is yet to find out.
        let live = !matches!(changed.status.as_str(), "succeeded" | "failed" | "cancelled");
        store::execution::upsert(tx, execution, &state, live, changed.revision).await
    }
}

/// Notes what became of the runs that schedules have asked for.
pub(crate) struct DriftRuns;

#[async_trait]
impl Consumer for DriftRuns {
    fn name(&self) -> &'static str {
        "terraform_state.drift_runs"
    }

    fn sources(&self) -> &'static [&'static str] {
        &["pipelines"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        match event.event.as_ref().and_then(|event| event.payload.as_ref()) {
            Some(Payload::DriftCheckAnswered(answer)) => {
                let run: RunId = answer.drift_run_id.parse().map_err(Error::internal)?;
                let execution = Some(answer.execution_id.as_str()).filter(|id| !id.is_empty());
                let execution = execution.map(str::parse).transpose().map_err(Error::internal)?;
                let (outcome, reason) = wire::schedule::answered(&answer.refusal);
                store::schedule::update_answered(tx, run, outcome, reason, execution).await
            }
            Some(Payload::ExecutionChanged(changed)) => {
                let outcome = match changed.status.as_str() {
                    "succeeded" => RunOutcome::Succeeded,
                    "cancelled" => RunOutcome::Cancelled,
                    "failed" | "outcome_unknown" => RunOutcome::Failed,
                    _ => return Ok(()),
                };
                let execution = changed.execution_id.parse().map_err(Error::internal)?;
                store::schedule::update_ended(tx, execution, outcome).await
            }
            _ => Ok(()),
        }
    }
}
