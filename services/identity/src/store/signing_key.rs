//! The keys that access tokens are signed with. Whoever changes them holds the set's one row.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper,
    dsl::sql,
    sql_types::{BigInt, Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, page::PageSize};
use time::OffsetDateTime;

use crate::{
    model::{KeyState, SigningKey, Standing},
    schema::{signing_key_set, signing_keys},
};

const CLOCK: &str = "clock_timestamp()";

/// Waits for whoever else changes the keys, and keeps everybody else from it until the transaction ends.
pub(crate) async fn lock(tx: &mut Tx) -> Result<()> {
    let locked = signing_key_set::table
        .select(signing_key_set::version)
        .for_update()
        .first::<i64>(tx);
    locked.await?;
    Ok(())
}

/// The believed keys. The version is read first: keys may be newer than it says, never older.
pub(crate) async fn standing(tx: &mut Tx) -> Result<Standing> {
    let (version, now) = signing_key_set::table
        .select((signing_key_set::version, sql::<Timestamptz>(CLOCK)))
        .first(tx)
        .await?;
    let keys = signing_keys::table
        .filter(signing_keys::believed)
        .order(signing_keys::number)
        .select(SigningKey::as_select())
        .load(tx)
        .await?;
    Ok(Standing { version, now, keys })
}

/// A new version of the set: the time in milliseconds, so that a database that was set back to an earlier day is ahead of
/// all earlier sets after its next change.
pub(crate) async fn bump(tx: &mut Tx) -> Result<i64> {
    Ok(diesel::update(signing_key_set::table)
        .set(signing_key_set::version.eq(sql::<BigInt>(
            "greatest(version + 1, (extract(epoch from clock_timestamp()) * 1000)::bigint)",
        )))
        .returning(signing_key_set::version)
        .get_result(tx)
        .await?)
}

pub(crate) async fn insert(
    tx: &mut Tx,
    id: &str,
    public_key: &str,
    seed: &[u8],
    state: KeyState,
    activates_at: OffsetDateTime,
) -> Result<SigningKey> {
    Ok(diesel::insert_into(signing_keys::table)
        .values((
            signing_keys::kid.eq(id),
            signing_keys::public_key.eq(public_key),
            signing_keys::seed.eq(seed),
            signing_keys::state.eq(state),
            signing_keys::activates_at.eq(activates_at),
        ))
        .returning(SigningKey::as_returning())
        .get_result(tx)
        .await?)
}

/// It signs, from now at the latest.
pub(crate) async fn update_active(tx: &mut Tx, id: &str) -> Result<()> {
    diesel::update(signing_keys::table.find(id))
        .set((
            signing_keys::state.eq(KeyState::Active),
            signing_keys::activates_at.eq(sql::<Timestamptz>("least(activates_at, clock_timestamp())")),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// It signs nothing more.
pub(crate) async fn update_retired(tx: &mut Tx, id: &str) -> Result<()> {
    diesel::update(signing_keys::table.find(id))
        .set((
            signing_keys::state.eq(KeyState::Retired),
            signing_keys::seed.eq(None::<Vec<u8>>),
            signing_keys::retired_at.eq(sql::<Nullable<Timestamptz>>(CLOCK)),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// Its tokens have ended.
pub(crate) async fn update_dropped(tx: &mut Tx, id: &str) -> Result<()> {
    diesel::update(signing_keys::table.find(id))
        .set(signing_keys::believed.eq(false))
        .execute(tx)
        .await?;
    Ok(())
}

/// Nobody believes it any more.
pub(crate) async fn update_revoked(tx: &mut Tx, id: &str) -> Result<SigningKey> {
    Ok(diesel::update(signing_keys::table.find(id))
        .set((
            signing_keys::state.eq(KeyState::Revoked),
            signing_keys::seed.eq(None::<Vec<u8>>),
            signing_keys::believed.eq(false),
            signing_keys::retired_at.eq(sql::<Nullable<Timestamptz>>(CLOCK)),
        ))
        .returning(SigningKey::as_returning())
        .get_result(tx)
        .await?)
}

pub(crate) async fn find(tx: &mut Tx, id: &str) -> Result<Option<SigningKey>> {
    Ok(signing_keys::table
        .find(id)
        .select(SigningKey::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// Keys before this number, newest first.
pub(crate) async fn list(tx: &mut Tx, before: Option<i64>, size: PageSize) -> Result<Vec<SigningKey>> {
    Ok(signing_keys::table
        .filter(signing_keys::number.lt(before.unwrap_or(i64::MAX)))
        .order(signing_keys::number.desc())
        .limit(size.fetch())
        .select(SigningKey::as_select())
        .load(tx)
        .await?)
}
