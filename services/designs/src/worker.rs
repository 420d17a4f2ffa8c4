//! What follows from events: users' names from identity's, drift from terraform_state's, and a second clearing of caches
//! from our own.

use api::events::v1::{PositionedEvent, event::Payload};
use async_trait::async_trait;
use kit::{Error, Result, db::Tx, events::consumer::Consumer, ids::UserId};

use crate::{
    cache::Caches,
    model::{DesignId, user::UserName},
    store,
    wire::drift,
};

/// Keeps `user_names` as identity tells it.
pub(crate) struct UserNames {
    pub(crate) caches: Caches,
}

#[async_trait]
impl Consumer for UserNames {
    fn name(&self) -> &'static str {
        "designs.user_names"
    }

    fn sources(&self) -> &'static [&'static str] {
        &["identity"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        let Some(Payload::UserChanged(changed)) = event.event.as_ref().and_then(|event| event.payload.as_ref()) else {
            return Ok(());
        };
        let user: UserId = changed.user_id.parse().map_err(Error::internal)?;
        let name = UserName {
            first_name: changed.first_name.clone(),
            last_name: changed.last_name.clone(),
        };
        store::user_name::upsert(tx, user, &name, changed.version).await?;
        // Before the commit is as good as after it: from now on only an entry of this version or a later one comes in.
        // With Redis away this is tried until it is back, since an old entry may still be there then.
        self.caches.user_changed(tx.org(), user, changed.version).await
    }
}

/// Clears the cache after each design's write, should the writer have died before doing so.
pub(crate) struct WrittenDesigns {
    pub(crate) caches: Caches,
}

#[async_trait]
impl Consumer for WrittenDesigns {
    fn name(&self) -> &'static str {
        "designs.cache"
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
        self.caches.design_changed(tx.org(), design, changed.revision).await
    }
}

/// Keeps `resource_drifts` as the last check of each state tells it.
pub(crate) struct ResourceDrifts;

#[async_trait]
impl Consumer for ResourceDrifts {
    fn name(&self) -> &'static str {
        "designs.resource_drifts"
    }

    fn sources(&self) -> &'static [&'static str] {
        &["terraform_state"]
    }

    async fn apply(&self, tx: &mut Tx, event: &PositionedEvent) -> Result<()> {
        let Some(event) = event.event.as_ref() else {
            return Ok(());
        };
        let Some(Payload::DriftChecked(checked)) = event.payload.as_ref() else {
            return Ok(());
        };
        let Some(checked) = drift::checked(event, checked)? else {
            return Ok(());
        };
        // A state's checks come in the order in which they ended, and the parts of each in theirs.
        if checked.first {
            store::drift::delete(tx, checked.state).await?;
        }
        store::drift::upsert(tx, &checked).await
    }
}
