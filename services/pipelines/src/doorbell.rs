//! Wakes the runners that wait in this process when a stage may have become ready.
//!
//! It carries speed, not truth: whoever waits also looks by himself, since another process may have made a stage ready.

use std::sync::Arc;

use tokio::sync::{Notify, futures::OwnedNotified};

/// Cheap to clone; all clones are one bell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doorbell(Arc<Notify>);

impl Doorbell {
    /// Wakes everybody who waits; to be called after the commit.
    pub(crate) fn ring(&self) {
        self.0.notify_waiters();
    }

    /// Completes at the first ring after this call.
    pub(crate) fn heard(&self) -> OwnedNotified {
        self.0.clone().notified_owned()
    }
}
