//! Sessions.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper,
    dsl::sql,
    sql_types::{Bool, Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use kit::{
    Result,
    db::Tx,
    failpoint,
    ids::{OrgId, UserId},
};
use time::OffsetDateTime;

use crate::{
    model::{Family, SESSION_GRACE, Session, SessionId},
    schema::sessions,
};

/// The database's clock, which all of a session's times are by.
const NOW: &str = "clock_timestamp()";
const ACTIVE: &str = "(revoked_at is null and expires_at > clock_timestamp() and idle_expires_at > clock_timestamp())";

/// Opens a session in the transaction's organization.
pub(crate) async fn insert(tx: &mut Tx, session: &Session, token_hash: &[u8], idle: OffsetDateTime) -> Result<()> {
    diesel::insert_into(sessions::table)
        .values((
            sessions::org_id.eq(tx.org()),
            sessions::id.eq(session.id),
            sessions::user_id.eq(session.user_id),
            sessions::device.eq(&session.device),
            sessions::token_hash.eq(token_hash),
            sessions::idle_expires_at.eq(idle),
            sessions::expires_at.eq(session.expires_at),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// A session of the transaction's user, if it stands.
pub(crate) async fn find_active(tx: &mut Tx, id: SessionId, user: UserId) -> Result<Option<Session>> {
    Ok(sessions::table
        .filter(
            sessions::id
                .eq(id)
                .and(sessions::user_id.eq(user))
                .and(sql::<Bool>(ACTIVE)),
        )
        .select(Session::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// A session's tokens; those who present another of them at the same moment wait here.
///
/// The switch `identity.session_lock` takes the waiting away, for tests.
pub(crate) async fn lock(tx: &mut Tx, id: SessionId) -> Result<Option<Family>> {
    let grace = SESSION_GRACE.whole_seconds();
    let fresh = format!("coalesce(rotated_at > clock_timestamp() - interval '{grace} seconds', false)");
    let family = sessions::table.find((tx.org(), id)).select((
        Session::as_select(),
        sessions::generation,
        sessions::token_hash,
        sessions::previous_hash,
        sessions::successor,
        sql::<Bool>(&fresh),
        sql::<Bool>(ACTIVE),
    ));
    Ok(if failpoint::without("identity.session_lock") {
        family.first(tx).await.optional()?
    } else {
        family.for_update().first(tx).await.optional()?
    })
}

/// Makes the successor the current token, and its predecessor the one that is remembered.
pub(crate) async fn rotate(
    tx: &mut Tx,
    id: SessionId,
    generation: i64,
    successor_hash: &[u8],
    sealed: &[u8],
    idle: OffsetDateTime,
) -> Result<()> {
    diesel::update(sessions::table.find((tx.org(), id)))
        .set((
            sessions::generation.eq(generation),
            sessions::previous_hash.eq(sql::<Nullable<diesel::sql_types::Binary>>("token_hash")),
            sessions::token_hash.eq(successor_hash),
            sessions::successor.eq(sealed),
            sessions::rotated_at.eq(sql::<Nullable<Timestamptz>>(NOW)),
            sessions::last_seen_at.eq(sql::<Timestamptz>(NOW)),
            sessions::idle_expires_at.eq(idle),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// Ends a session; `false` for one that is over already. A successor is answered no more, so it goes.
pub(crate) async fn revoke(tx: &mut Tx, id: SessionId) -> Result<bool> {
    let revoked = diesel::update(
        sessions::table
            .find((tx.org(), id))
            .filter(sessions::revoked_at.is_null()),
    )
    .set((
        sessions::revoked_at.eq(sql::<Nullable<Timestamptz>>(NOW)),
        sessions::successor.eq(None::<Vec<u8>>),
    ))
    .execute(tx)
    .await?;
    Ok(revoked == 1)
}

/// All sessions of the transaction's user that nobody has ended, in whatever organization.
pub(crate) async fn list_unended(tx: &mut Tx, user: UserId) -> Result<Vec<(OrgId, SessionId)>> {
    Ok(sessions::table
        .filter(sessions::user_id.eq(user).and(sessions::revoked_at.is_null()))
        .order((sessions::org_id, sessions::id))
        .select((sessions::org_id, sessions::id))
        .load(tx)
        .await?)
}
