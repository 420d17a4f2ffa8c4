//! Users, as the user's own transaction sees them.

use diesel::{BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;
use kit::{
    Result,
    db::Tx,
    ids::{OrgId, UserId},
};

use super::taken;
use crate::{
    model::{NewAccount, PasswordHash, Profile},
    schema::users,
};

pub(crate) async fn insert(tx: &mut Tx, new: &NewAccount, password_hash: &PasswordHash) -> Result<()> {
    let unique = [("users_email_key", "email"), ("users_username_key", "username")];
    diesel::insert_into(users::table)
        .values((
            users::id.eq(new.user),
            users::email.eq(&new.email),
            users::username.eq(&new.username),
            users::first_name.eq(&new.first_name),
            users::last_name.eq(&new.last_name),
            users::password_hash.eq(password_hash),
        ))
        .execute(tx)
        .await
        .map_err(|error| taken(error, &unique))?;
    Ok(())
}

pub(crate) async fn find(tx: &mut Tx, user: UserId) -> Result<Option<Profile>> {
    Ok(users::table
        .find(user)
        .select(Profile::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// Remembers the organization of the latest session, and answers the user's epoch; none for an account that is suspended
/// or deleted. Who suspends or deletes it at the same moment waits, and then ends what was opened.
pub(crate) async fn enter(tx: &mut Tx, user: UserId, org: Option<OrgId>) -> Result<Option<i64>> {
    let row = users::table
        .find(user)
        .filter(users::suspended_at.is_null().and(users::deleted_at.is_null()));
    let Some(org) = org else {
        return Ok(row.select(users::epoch).for_share().first(tx).await.optional()?);
    };
    let epoch = diesel::update(row)
        .set(users::last_org_id.eq(org))
        .returning(users::epoch)
        .get_result(tx)
        .await;
    Ok(epoch.optional()?)
}
