//! Sessions.

use std::time::Duration;

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper,
    dsl::sql,
    sql_types::{Bool, Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use kit::{
    Result,
    auth::token::ACCESS_LIFETIME,
    db::Tx,
    failpoint,
    ids::{OrgId, UserId},
    page::PageSize,
};
use time::OffsetDateTime;

use crate::{
    model::{Family, SESSION_GRACE, Session, SessionId, StandingSession},
    schema::sessions,
};

/// The database's clock, which all of a session's times are by.
const NOW: &str = "clock_timestamp()";
const ACTIVE: &str = "(revoked_at is null and expires_at > clock_timestamp() and idle_expires_at > clock_timestamp())";

/// Opens a session in the transaction's organization.
pub(crate) async fn insert(tx: &mut Tx, session: &Session, token_hash: &[u8], idle: OffsetDateTime) -> Result<()> {
    let address = tx.caller_address().to_owned();
    diesel::insert_into(sessions::table)
        .values((
            sessions::org_id.eq(tx.org()),
            sessions::id.eq(session.id),
            sessions::user_id.eq(session.user_id),
            sessions::device.eq(&session.device),
            sessions::address.eq(address),
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

/// The query of a session's tokens.
macro_rules! family {
    ($tx:expr, $id:expr) => {
        sessions::table.find(($tx.org(), $id)).select((
            Session::as_select(),
            sessions::generation,
            sessions::token_hash,
            sessions::previous_hash,
            sessions::successor,
            sql::<Bool>(&format!(
                "coalesce(rotated_at > clock_timestamp() - interval '{} seconds', false)",
                SESSION_GRACE.whole_seconds()
            )),
            sql::<Bool>(ACTIVE),
        ))
    };
}

/// A session's tokens; those who present another of them at the same moment wait here.
///
/// The switch `identity.session_lock` takes the waiting away, here and for the user's row before, for tests: whoever comes
/// within a moment has read the same, so that the race is lost each time.
pub(crate) async fn lock(tx: &mut Tx, id: SessionId) -> Result<Option<Family>> {
    let family = family!(tx, id);
    Ok(if failpoint::without("identity.session_lock") {
        let read = family.first(tx).await.optional()?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        read
    } else {
        family.for_update().first(tx).await.optional()?
    })
}

/// A session's tokens, to be looked at.
pub(crate) async fn find_family(tx: &mut Tx, id: SessionId) -> Result<Option<Family>> {
    Ok(family!(tx, id).first(tx).await.optional()?)
}

/// When a session ends unless it is continued.
pub(crate) async fn idle_end(tx: &mut Tx, id: SessionId) -> Result<Option<OffsetDateTime>> {
    Ok(sessions::table
        .find((tx.org(), id))
        .select(sessions::idle_expires_at)
        .first(tx)
        .await
        .optional()?)
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
    let address = tx.caller_address().to_owned();
    diesel::update(sessions::table.find((tx.org(), id)))
        .set((
            sessions::generation.eq(generation),
            sessions::previous_hash.eq(sql::<Nullable<diesel::sql_types::Binary>>("token_hash")),
            sessions::token_hash.eq(successor_hash),
            sessions::successor.eq(sealed),
            sessions::rotated_at.eq(sql::<Nullable<Timestamptz>>(NOW)),
            sessions::last_seen_at.eq(sql::<Timestamptz>(NOW)),
            sessions::address.eq(address),
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

/// The sessions of the transaction's user that stand, in whatever organization, newest first.
pub(crate) async fn list_standing(
    tx: &mut Tx,
    user: UserId,
    after: Option<(OffsetDateTime, SessionId)>,
    size: PageSize,
) -> Result<Vec<StandingSession>> {
    let page = sessions::table
        .filter(
            sessions::user_id
                .eq(user)
                .and(sessions::revoked_at.is_null())
                .and(sql::<Bool>(ACTIVE)),
        )
        .order((sessions::created_at.desc(), sessions::id.desc()))
        .limit(size.fetch())
        .select(StandingSession::as_select());
    Ok(match after {
        None => page.load(tx).await?,
        Some((created_at, session)) => {
            let earlier = sessions::created_at
                .lt(created_at)
                .or(sessions::created_at.eq(created_at).and(sessions::id.lt(session)));
            page.filter(earlier).load(tx).await?
        }
    })
}

/// The organization of a session of the transaction's user, whether or not it stands.
pub(crate) async fn find_org(tx: &mut Tx, id: SessionId, user: UserId) -> Result<Option<OrgId>> {
    Ok(sessions::table
        .filter(sessions::id.eq(id).and(sessions::user_id.eq(user)))
        .select(sessions::org_id)
        .first(tx)
        .await
        .optional()?)
}

/// The organizations in which the transaction's user has sessions that stand.
pub(crate) async fn list_orgs(tx: &mut Tx, user: UserId) -> Result<Vec<OrgId>> {
    Ok(sessions::table
        .filter(
            sessions::user_id
                .eq(user)
                .and(sessions::revoked_at.is_null())
                .and(sql::<Bool>(ACTIVE)),
        )
        .select(sessions::org_id)
        .distinct()
        .order(sessions::org_id)
        .load(tx)
        .await?)
}

/// Ends the user's standing sessions of the transaction's organization but perhaps one, and answers which they were and
/// whether access tokens of theirs may still be about.
pub(crate) async fn revoke_of_user(
    tx: &mut Tx,
    user: UserId,
    but: Option<SessionId>,
) -> Result<Vec<(SessionId, bool)>> {
    // A token comes with an opening or a rotation, and lives so long; twice that for clocks that differ.
    let seconds = 2 * ACCESS_LIFETIME.as_secs();
    let has_tokens = format!("(last_seen_at > clock_timestamp() - interval '{seconds} seconds')");
    let standing = sessions::table.filter(
        sessions::org_id
            .eq(tx.org())
            .and(sessions::user_id.eq(user))
            .and(sql::<Bool>(ACTIVE)),
    );
    // In one order, so that two who end the same ones wait for each other and not both.
    let mut ids: Vec<SessionId> = standing
        .select(sessions::id)
        .order(sessions::id)
        .for_update()
        .load(tx)
        .await?;
    ids.retain(|id| Some(*id) != but);
    Ok(
        diesel::update(sessions::table.filter(sessions::org_id.eq(tx.org()).and(sessions::id.eq_any(ids))))
            .set((
                sessions::revoked_at.eq(sql::<Nullable<Timestamptz>>(NOW)),
                sessions::successor.eq(None::<Vec<u8>>),
            ))
            .returning((sessions::id, sql::<Bool>(&has_tokens)))
            .get_results(tx)
            .await?,
    )
}
