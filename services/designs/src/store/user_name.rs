//! The projection of users' names; written by the worker alone.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper, query_dsl::methods::FilterDsl, upsert::excluded,
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, ids::UserId};

use crate::{
    model::{PrincipalId, user::UserName},
    schema::{clock_timestamp, user_names},
};

/// Notes a user's name as of a version; an older version than the one known changes nothing.
pub(crate) async fn upsert(tx: &mut Tx, user: UserId, name: &UserName, version: i64) -> Result<()> {
    let insert = diesel::insert_into(user_names::table)
        .values((
            user_names::org_id.eq(tx.org()),
            user_names::user_id.eq(user),
            user_names::first_name.eq(&name.first_name),
            user_names::last_name.eq(&name.last_name),
            user_names::version.eq(version),
        ))
        .on_conflict((user_names::org_id, user_names::user_id))
        .do_update()
        .set((
            user_names::first_name.eq(excluded(user_names::first_name)),
            user_names::last_name.eq(excluded(user_names::last_name)),
            user_names::version.eq(excluded(user_names::version)),
            user_names::updated_at.eq(clock_timestamp()),
        ));
    FilterDsl::filter(insert, user_names::version.lt(excluded(user_names::version)))
        .execute(tx)
        .await?;
    Ok(())
}

/// A user's name and the version that it is of.
pub(crate) async fn find(tx: &mut Tx, user: PrincipalId) -> Result<Option<(UserName, i64)>> {
    Ok(QueryDsl::find(user_names::table, (tx.org(), user))
        .select((UserName::as_select(), user_names::version))
        .first(tx)
        .await
        .optional()?)
}
