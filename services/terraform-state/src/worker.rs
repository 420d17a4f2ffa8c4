//! What follows from other services' events: which designs there are.

use api::events::v1::{PositionedEvent, event::Payload};
use async_trait::async_trait;
use kit::{Error, Result, db::Tx, events::consumer::Consumer};

use crate::{model::DesignId, store};

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
