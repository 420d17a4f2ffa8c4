//! Invitations.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl,
    dsl::sql,
    sql_types::{Bool, Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, ids::Principal, page::PageSize};
use time::OffsetDateTime;

use crate::{
    model::{ApiKeyId, INVITATION_LIFETIME, Invitation, InvitationId, NewInvitation, OpenInvitation, Role},
    schema::{invitations, roles},
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
            sql::<Bool>("(accepted_at is null and revoked_at is null and expires_at > clock_timestamp())"),
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

/// The open ones, newest first.
pub(crate) async fn list_open(
    tx: &mut Tx,
    before: Option<(OffsetDateTime, InvitationId)>,
    size: PageSize,
) -> Result<Vec<OpenInvitation>> {
    // None that is older is open: the index ends there, however many have lapsed. A day for clocks that differ.
    let days = INVITATION_LIFETIME.whole_days() + 1;
    let recent = format!("(invitations.created_at > clock_timestamp() - interval '{days} days')");
    let role = roles::org_id
        .eq(invitations::role_org_id)
        .and(roles::id.eq(invitations::role_id));
    let page = invitations::table
        .inner_join(roles::table.on(role))
        .filter(
            invitations::org_id
                .eq(tx.org())
                .and(invitations::accepted_at.is_null())
                .and(invitations::revoked_at.is_null()),
        )
        .filter(sql::<Bool>(&recent))
        .filter(sql::<Bool>("(invitations.expires_at > clock_timestamp())"))
        .order((invitations::created_at.desc(), invitations::id.desc()))
        .limit(size.fetch())
        .select((
            invitations::id,
            invitations::email,
            roles::name,
            invitations::inviter_user_id,
            invitations::inviter_key_id,
            invitations::created_at,
            invitations::expires_at,
        ));
    Ok(match before {
        None => page.load(tx).await?,
        Some((created_at, id)) => {
            let earlier = invitations::created_at
                .lt(created_at)
                .or(invitations::created_at.eq(created_at).and(invitations::id.lt(id)));
            page.filter(earlier).load(tx).await?
        }
    })
}

/// Makes an invitation void.
pub(crate) async fn update_revoked(tx: &mut Tx, id: InvitationId) -> Result<()> {
    diesel::update(invitations::table.find((tx.org(), id)))
        .set(invitations::revoked_at.eq(sql::<Nullable<Timestamptz>>("clock_timestamp()")))
        .execute(tx)
        .await?;
    Ok(())
}
