//! What follows from other services' events: which designs there are, which jobs have ended, and of which states executions run.

use api::events::v1::{PositionedEvent, event::Payload};
use async_trait::async_trait;
use kit::{Error, Result, db::Tx, events::consumer::Consumer};

use crate::{
    backend::lock::orphan,
    model::{DesignId, PrincipalId, state::StateName},
    store,
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
