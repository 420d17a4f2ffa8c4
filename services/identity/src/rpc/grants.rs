//! What changes of rights have in common.

use api::events::v1::{PermissionsChanged, event::Payload};
use kit::{
    Error, Reason, Result,
    auth::{OrgScope, scope::Admitted},
    db::Tx,
    failpoint,
};

use crate::{
    model::{Held, Member, Role},
    store,
};

/// What the caller holds at this moment, under the organization's lock: what the gate saw may be a moment old. Nobody
/// holds anything in an organization that is deleted.
///
/// # Errors
/// PERMISSION_MISSING where the caller has just lost what the call needs.
pub(super) async fn caller(tx: &mut Tx, scope: &OrgScope) -> Result<Held> {
    store::organization::lock(tx).await?;
    let open = store::organization::permission_version(tx).await?.is_some();
    let caller = store::role::held(tx, scope.principal()).await?;
    let needed = scope.call().method.permission;
    if !open || !caller.permissions().holds(needed) {
        return Err(
            Error::new(Reason::PermissionMissing, "the caller's role has just changed").with("permission", needed),
        );
    }
    Ok(caller)
}

/// A role of the organization or the system by its name, to be given: it stays until the transaction ends.
pub(super) async fn find_role(tx: &mut Tx, name: &str) -> Result<Role> {
    // The organization before all that refers to it, as everywhere.
    store::organization::lock(tx).await?;
    let role = store::role::find(tx, name)
        .await?
        .ok_or_else(|| Error::not_found("role", name))?;
    failpoint::hit_in("identity.role_found", &tx.org().to_string()).await?;
    Ok(role)
}

/// Lets a member go, be something else or be kept out, unless nobody would own the organization then.
///
/// # Errors
/// LAST_OWNER, which names the organization. The switch `identity.last_owner` lets everybody go, for tests.
pub(super) async fn an_owner_stays(tx: &mut Tx, member: &Member) -> Result<()> {
    let owner = member.is_owner() && !failpoint::without("identity.last_owner");
    if owner && !store::member::other_owner_exists(tx, member.user_id).await? {
        let refused = "the last owner of an organization stays one; hand it over or delete it first";
        return Err(Error::new(Reason::LastOwner, refused).with("organization_id", tx.org().to_string()));
    }
    Ok(())
}

/// Makes the next version of the organization's permissions; every service asks anew for what it needs.
pub(super) async fn tell_permissions_changed(tx: &mut Tx) -> Result<()> {
    let permission_version = store::organization::update_permission_version(tx).await?;
    tx.tell(Payload::PermissionsChanged(PermissionsChanged { permission_version }));
    Ok(())
}
