//! What changes of rights have in common.

use api::events::v1::{PermissionsChanged, event::Payload};
use kit::{Error, Result, db::Tx};

use crate::{model::Role, store};

/// A role of the organization or the system by its name.
pub(super) async fn find_role(tx: &mut Tx, name: &str) -> Result<Role> {
    store::role::find(tx, name)
        .await?
        .ok_or_else(|| Error::not_found("role", name))
}

/// Makes the next version of the organization's permissions; every service asks anew for what it needs.
pub(super) async fn tell_permissions_changed(tx: &mut Tx) -> Result<()> {
    let permission_version = store::organization::update_permission_version(tx).await?;
    tx.tell(Payload::PermissionsChanged(PermissionsChanged { permission_version }));
    Ok(())
}
