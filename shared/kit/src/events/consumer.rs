//! Applying other slices' events, each exactly once.

use api::events::v1::PositionedEvent;
use async_trait::async_trait;

use crate::{db::Tx, error::Result};

/// What a slice makes of events.
#[async_trait]
pub trait Consumer: Send + Sync + 'static {
    /// The name under which cursors are kept; never changes.
    fn name(&self) -> &'static str;

    /// The slices whose events it applies; may hold its own.
    fn sources(&self) -> &'static [&'static str];

    /// Applies one event, in the transaction that also moves the cursor.
    ///
    /// The transaction is the worker role's and has entered the event's organization.
    /// An error is tried again; after five tries the event is a dead letter and the cursor moves on.
    /// An error that says nothing about the event (a database that is away, a deadlock) is tried again for ever.
    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()>;

    /// Takes an event that will not be applied, because it cannot be read or has failed for good, and answers whether
    /// it did; otherwise, as by default, the event becomes a dead letter. The cursor moves on either way.
    ///
    /// The transaction is the worker role's and has entered the event's organization, the platform's if it names none.
    async fn keep(&self, _tx: &mut Tx, _event: &PositionedEvent) -> Result<bool> {
        Ok(false)
    }
}
