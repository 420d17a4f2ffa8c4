//! Invitations.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl,
    dsl::sql,
    sql_types::{Bool, Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, ids::Principal};

use crate::{
    model::{ApiKeyId, Invitation, InvitationId, NewInvitation, Role},
    schema::invitations,
};

pub(crate) async fn insert(tx: &mut Tx, new: &NewInvitation, role: &Role, token_hash: &[u8]) -> Result<()> {
    let principal = tx.principal();
    let key = if let Principal::ApiKey(id) = principal {
        Some(ApiKeyId(id))
    } else {
        None
    };
    diesel::insert_into(invitations::table)
        .values((
            invitations::org_id.eq(tx.org()),
            invitations::id.eq(new.id),
            invitations::email.eq(&new.email),
            invitations::role_org_id.eq(role.org_id),
            invitations::role_id.eq(role.id),
            invitations::token_hash.eq(token_hash),
            invitations::inviter_user_id.eq(principal.user()),
            invitations::inviter_key_id.eq(key),
            invitations::expires_at.eq(new.expires_at),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// An invitation; whoever accepts it at the same moment waits here.
pub(crate) async fn lock(tx: &mut Tx, id: InvitationId) -> Result<Option<Invitation>> {
    Ok(invitations::table
        .find((tx.org(), id))
        .select((
            invitations::id,
            invitations::email,
            invitations::role_org_id,
            invitations::role_id,
            invitations::token_hash,
            invitations::inviter_user_id,
            invitations::inviter_key_id,
            sql::<Bool>("(accepted_at is null and expires_at > clock_timestamp())"),
        ))
        .for_update()
        .first(tx)
        .await
        .optional()?)
}

pub(crate) async fn update_accepted(tx: &mut Tx, id: InvitationId) -> Result<()> {
    diesel::update(invitations::table.find((tx.org(), id)))
        .set(invitations::accepted_at.eq(sql::<Nullable<Timestamptz>>("clock_timestamp()")))
        .execute(tx)
        .await?;
    Ok(())
}
