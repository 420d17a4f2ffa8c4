//! Second factors and recovery codes, as the user's own transaction sees them.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, Queryable,
    dsl::{now, sql},
    sql_types::{Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, failpoint, ids::UserId};

use crate::{
    schema::{recovery_codes, second_factors},
    store::own_view,
};

/// A second factor, in force or waiting for its first code.
#[derive(Debug, Queryable)]
pub(crate) struct Factor {
    /// The secret, sealed.
    pub(crate) sealed: Vec<u8>,
    pub(crate) confirmed: bool,
    /// The step of the last code that was accepted.
    pub(crate) last_step: Option<i64>,
}

/// Begins a second factor, or begins it anew; `false` where one is in force.
pub(crate) async fn insert(tx: &mut Tx, user: UserId, sealed: &[u8]) -> Result<bool> {
    use diesel::query_dsl::methods::FilterDsl as _;
    let begun = diesel::insert_into(second_factors::table)
        .values((second_factors::user_id.eq(user), second_factors::secret.eq(sealed)))
        .on_conflict(second_factors::user_id)
        .do_update()
        .set((second_factors::secret.eq(sealed), second_factors::created_at.eq(now)))
        .filter(second_factors::confirmed_at.is_null())
        .execute(tx)
        .await?;
    Ok(begun == 1)
}

/// Whether the user has a second factor in force.
pub(crate) async fn enrolled(tx: &mut Tx, user: UserId) -> Result<bool> {
    let confirmed = second_factors::table
        .find(user)
        .filter(second_factors::confirmed_at.is_not_null());
    Ok(diesel::select(diesel::dsl::exists(confirmed)).get_result(tx).await?)
}

/// The user's factor; those who present a code at the same moment wait here.
///
/// The switch `identity.second_factor_lock` takes the waiting away, for tests.
pub(crate) async fn lock(tx: &mut Tx, user: UserId) -> Result<Option<Factor>> {
    let factor = second_factors::table.find(user).select((
        second_factors::secret,
        second_factors::confirmed_at.is_not_null(),
        second_factors::last_step,
    ));
    Ok(if failpoint::without("identity.second_factor_lock") {
        factor.first(tx).await.optional()?
    } else {
        factor.for_update().first(tx).await.optional()?
    })
}

/// Remembers the step of an accepted code.
///
/// The switch `identity.second_factor_step` takes the memory away, for tests.
pub(crate) async fn update_last_step(tx: &mut Tx, user: UserId, step: i64) -> Result<()> {
    if failpoint::without("identity.second_factor_step") {
        return Ok(());
    }
    diesel::update(second_factors::table.find(user))
        .set(second_factors::last_step.eq(step))
        .execute(tx)
        .await?;
    Ok(())
}

/// Puts the factor in force by the code of a step.
pub(crate) async fn confirm(tx: &mut Tx, user: UserId, step: i64) -> Result<()> {
    tx.changes(own_view::user(user));
    diesel::update(second_factors::table.find(user))
        .set((
            second_factors::confirmed_at.eq(sql::<Nullable<Timestamptz>>("clock_timestamp()")),
            second_factors::last_step.eq(step),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// Takes the factor and its recovery codes away.
pub(crate) async fn delete(tx: &mut Tx, user: UserId) -> Result<()> {
    tx.changes(own_view::user(user));
    diesel::delete(second_factors::table.find(user)).execute(tx).await?;
    Ok(())
}

/// Makes these the user's recovery codes; the old ones are void.
pub(crate) async fn replace_recovery_codes(tx: &mut Tx, user: UserId, hashes: &[Vec<u8>]) -> Result<()> {
    diesel::delete(recovery_codes::table.filter(recovery_codes::user_id.eq(user)))
        .execute(tx)
        .await?;
    let rows: Vec<_> = hashes
        .iter()
        .map(|hash| (recovery_codes::user_id.eq(user), recovery_codes::code_hash.eq(hash)))
        .collect();
    diesel::insert_into(recovery_codes::table)
        .values(rows)
        .execute(tx)
        .await?;
    Ok(())
}

/// Whether a recovery code with one of these hashes was there; then it is not any more.
///
/// The switch `identity.recovery_code_use` leaves it there, for tests.
pub(crate) async fn delete_recovery_code(tx: &mut Tx, user: UserId, hashes: &[Vec<u8>]) -> Result<bool> {
    let code = recovery_codes::table.filter(
        recovery_codes::user_id
            .eq(user)
            .and(recovery_codes::code_hash.eq_any(hashes)),
    );
    if failpoint::without("identity.recovery_code_use") {
        return Ok(diesel::select(diesel::dsl::exists(code)).get_result(tx).await?);
    }
    Ok(diesel::delete(code).execute(tx).await? > 0)
}
