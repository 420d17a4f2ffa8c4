//! What follows from events: designs as their service tells them, and executions where drift was found.

use api::events::v1::{PositionedEvent, event::Payload};
use async_trait::async_trait;
use kit::{Error, Result, Violations, db::Tx, events::consumer::Consumer, ids, service::Kit};

use crate::{
    model::{DesignId, EventId, StateName, design::Design, pipeline::Origin},
    store,
};

/// No chain of events is longer (peers refuse what is); what drift starts is told of in events one deeper than its own.
const DEEPEST: u32 = 4;

/// Keeps `designs` as their service tells it.
pub(crate) struct Designs;

#[async_trait]
impl Consumer for Designs {
    fn name(&self) -> &'static str {
        "pipelines.designs"
    }

    fn sources(&self) -> &'static [&'static str] {
        &["designs"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        let Some(Payload::DesignChanged(changed)) = event.event.as_ref().and_then(|event| event.payload.as_ref())
        else {
            return Ok(());
        };
        let design = Design {
            design_id: changed.design_id.parse().map_err(Error::internal)?,
            name: changed.name.clone(),
            latest_version: changed.latest_version,
            deleted: changed.deleted,
            revision: changed.revision,
        };
        store::design::upsert(tx, &design).await
    }
}

/// Starts the pipelines that drift starts, each once while the drift is being answered.
pub(crate) struct Drift {
    pub(crate) kit: Kit,
}

#[async_trait]
impl Consumer for Drift {
    fn name(&self) -> &'static str {
        "pipelines.drift"
    }

    fn sources(&self) -> &'static [&'static str] {
        &["terraform_state"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        let Some(event) = event.event.as_ref() else {
            return Ok(());
        };
        let Some(Payload::DriftChecked(checked)) = &event.payload else {
            return Ok(());
        };
        // A state without a design has no pipeline; the first part speaks for all.
        if checked.drifted_resources <= 0 || checked.part != 0 || checked.design_id.is_empty() {
            return Ok(());
        }
        let design: DesignId = checked.design_id.parse().map_err(Error::internal)?;
        let Some(state) = StateName::parse("state_name", checked.state_name.clone(), &mut Violations::new()) else {
            return Ok(());
        };
        let pipelines = store::pipeline::list_on_drift(tx, design, &state).await?;
        if pipelines.is_empty() {
            return Ok(());
        }
        if event.chain_depth >= DEEPEST {
            tracing::warn!(state = %state, "drift at the end of a chain of events starts nothing");
            return Ok(());
        }
        // An older version would take back what the newest one has changed; the event is tried again instead.
        if !self.kit.caught_up("designs").await {
            return Err(Error::unavailable("designs", "its newest version is not known"));
        }
        let Some(version) = store::design::find(tx, design).await?.and_then(|it| it.version(0).ok()) else {
            tracing::info!(%design, state = %state, "drift of a design without a version starts nothing");
            return Ok(());
        };
        let origin = Origin::Drift {
            event: EventId(ids::parse(&event.event_id).map_err(Error::internal)?),
            depth: i32::try_from(event.chain_depth + 1).map_err(Error::internal)?,
        };
        for pipeline in pipelines {
            match store::execution::insert(tx, &pipeline, version, origin).await? {
                Some(execution) => tx.acted("TriggerExecution", &execution),
                None => tracing::info!(pipeline = %pipeline.id, "drift is being answered already; no second execution"),
            }
        }
        // No bell: the commit is yet to come. Runners that wait look by themselves soon enough.
        Ok(())
    }
}
