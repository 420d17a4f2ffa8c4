//! Passwords that may be set anew, in the platform organization.

use diesel::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, dsl::sql, sql_types::Bool};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, ids::UserId};
use time::OffsetDateTime;

use crate::{
    model::{Email, PasswordHash, ResetId},
    schema::{password_resets, users},
};

/// A request to set a new password.
#[derive(diesel::Queryable)]
pub(crate) struct Requested {
    /// None: asked for with an address that nobody can sign in with.
    pub(crate) user: Option<UserId>,
    pub(crate) token_hash: Vec<u8>,
    /// Not expired.
    pub(crate) open: bool,
}

pub(crate) async fn insert(
    tx: &mut Tx,
    id: ResetId,
    user: Option<UserId>,
    token_hash: &[u8],
    expires_at: OffsetDateTime,
) -> Result<()> {
    diesel::insert_into(password_resets::table)
        .values((
            password_resets::org_id.eq(tx.org()),
            password_resets::id.eq(id),
            password_resets::user_id.eq(user),
            password_resets::token_hash.eq(token_hash),
            password_resets::expires_at.eq(expires_at),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// A request.
pub(crate) async fn find(tx: &mut Tx, id: ResetId) -> Result<Option<Requested>> {
    Ok(password_resets::table
        .find((tx.org(), id))
        .select((
            password_resets::user_id,
            password_resets::token_hash,
            sql::<Bool>("(expires_at > clock_timestamp())"),
        ))
        .first(tx)
        .await
        .optional()?)
}

/// Ends all requests of a user, and answers which there were: what others know since before the change opens nothing
/// after it, and of two who follow requests at the same moment the second finds none.
pub(crate) async fn delete_of_user(tx: &mut Tx, user: UserId) -> Result<Vec<ResetId>> {
    let requests = password_resets::table
        .filter(password_resets::org_id.eq(tx.org()))
        .filter(password_resets::user_id.eq(user));
    Ok(diesel::delete(requests)
        .returning(password_resets::id)
        .get_results(tx)
        .await?)
}

/// Forgets what nobody followed.
pub(crate) async fn delete_expired(tx: &mut Tx) -> Result<usize> {
    let expired = sql::<Bool>("expires_at < clock_timestamp()");
    Ok(diesel::delete(
        password_resets::table
            .filter(password_resets::org_id.eq(tx.org()))
            .filter(expired),
    )
    .execute(tx)
    .await?)
}

/// Sets another password of the transaction's user and begins the next epoch, which is answered with the address;
/// `None` for an account that nobody signs in to any more.
pub(crate) async fn update_password(tx: &mut Tx, user: UserId, hash: &PasswordHash) -> Result<Option<(i64, Email)>> {
    let row = users::table
        .find(user)
        .filter(users::suspended_at.is_null().and(users::deleted_at.is_null()));
    Ok(diesel::update(row)
        .set((users::password_hash.eq(hash), users::epoch.eq(users::epoch + 1)))
        .returning((users::epoch, users::email))
        .get_result(tx)
        .await
        .optional()?)
}
