//! Roles, and what principals hold by them.

use diesel::{BoolExpressionMethods, ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;
use kit::{
    Result,
    db::Tx,
    ids::{OrgId, Principal, UserId},
};

use super::api_key;
use crate::{
    model::{ApiKeyId, Held, Role, RoleId},
    schema::{organization_members, permissions, roles, users},
};

/// A role that can be given in the transaction's organization: its own or the system's.
pub(crate) async fn find(tx: &mut Tx, name: &str) -> Result<Option<Role>> {
    Ok(roles::table
        .filter(
            roles::name
                .eq(name)
                .and(roles::org_id.eq_any([tx.org(), OrgId::PLATFORM])),
        )
        // The system's first: no role of an organization passes for one of them.
        .order(roles::org_id.eq(OrgId::PLATFORM).desc())
        .select(Role::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// What a role gives.
pub(crate) async fn held_by_role(tx: &mut Tx, org: OrgId, role: RoleId) -> Result<Held> {
    let grants: Vec<String> = permissions::table
        .filter(permissions::org_id.eq(org).and(permissions::role_id.eq(role)))
        .select(permissions::permission)
        .load(tx)
        .await?;
    Ok(Held::of(&grants))
}

/// What a principal holds in the transaction's organization at this moment; nothing for who is not there.
pub(crate) async fn held(tx: &mut Tx, principal: Principal) -> Result<Held> {
    match principal {
        Principal::User(user) => held_by_member(tx, user).await,
        Principal::ApiKey(id) => {
            let Some(key) = api_key::find_active(tx, ApiKeyId(id)).await? else {
                return Ok(Held::default());
            };
            Ok(Held::of(&key.scopes).cut_by(&held_by_member(tx, key.creator_id).await?))
        }
        Principal::Job(_) | Principal::Service(_) | Principal::Anonymous => Ok(Held::default()),
    }
}

/// Nothing for who is kept out, of the organization or of the account.
async fn held_by_member(tx: &mut Tx, user: UserId) -> Result<Held> {
    let same_role = permissions::org_id
        .eq(organization_members::role_org_id)
        .and(permissions::role_id.eq(organization_members::role_id));
    let grants: Vec<String> = organization_members::table
        .inner_join(permissions::table.on(same_role))
        .inner_join(users::table.on(users::id.eq(organization_members::user_id)))
        .filter(
            organization_members::org_id
                .eq(tx.org())
                .and(organization_members::user_id.eq(user))
                .and(organization_members::suspended_at.is_null())
                .and(users::suspended_at.is_null())
                .and(users::deleted_at.is_null()),
        )
        .select(permissions::permission)
        .load(tx)
        .await?;
    Ok(Held::of(&grants))
}
