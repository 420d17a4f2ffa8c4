//! The consumers: one writes the trail, the other the notifications.
//!
//! Nothing is poison to the trail: what cannot be understood is kept as it came, and no event is refused.
//! Each has an inbox of its own, so a notification that cannot be written holds up no row of the trail.

use api::events::v1::PositionedEvent;
use kit::{Error, Result, db::Tx, events::consumer::Consumer};

use crate::{leaf, store, wire::event::Arrival, wire::notification};

/// The trail, as a consumer of every slice's events.
pub(crate) struct Trail;

#[tonic::async_trait]
impl Consumer for Trail {
    fn name(&self) -> &'static str {
        "trail"
    }

    fn sources(&self) -> &'static [&'static str] {
        &["identity", "designs", "terraform_state", "pipelines", "audit"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        let arrival = Arrival::new(event, tx.org())?;
        let Some(new) = arrival.row() else { return Ok(()) };
        if store::insert(tx, &new).await? {
            return Ok(());
        }
        let Some((_, known)) = store::find(tx, new.log.id).await? else {
            return Err(Error::internal("an audit log's id is taken, and no row has it"));
        };
        // The id is taken. By this very event, delivered again: then all is done. By another one: then both are kept.
        if leaf::decode(&known).is_ok_and(|known| known.same_event(&new.log)) {
            return Ok(());
        }
        tracing::warn!(
            source = event.source,
            position = event.position,
            "an event's id was used before; it is kept unparsed"
        );
        store::insert(tx, &arrival.unparsed(None)).await?;
        Ok(())
    }

    /// As [`Trail::apply`], and where that fails too, as it came.
    async fn keep(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<bool> {
        let applied = tx.savepoint(async |tx| self.apply(tx, event).await).await?;
        if let Err(error) = applied {
            tracing::error!(
                source = event.source,
                position = event.position,
                ?error,
                "an event is kept unparsed"
            );
            store::insert(tx, &Arrival::new(event, tx.org())?.unparsed(None)).await?;
        }
        Ok(true)
    }
}

/// The notifications, as a consumer of those slices that tell of what people should hear of.
pub(crate) struct Notices;

#[tonic::async_trait]
impl Consumer for Notices {
    fn name(&self) -> &'static str {
        "notifications"
    }

    fn sources(&self) -> &'static [&'static str] {
        &["terraform_state", "pipelines"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        let told = event.event.as_ref().map(notification::told).transpose()?;
        if let Some(new) = told.flatten() {
            store::notification::insert(tx, &new).await?;
        }
        Ok(())
    }
}
