//! The password of the transaction's own user; the table shows nobody's.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, IntoSql, OptionalExtension, QueryDsl, QueryableByName,
    sql_types::{BigInt, Bool, Nullable, Text},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, failpoint, ids::UserId};

use crate::{model::PasswordHash, schema::users};

/// What a password is verified against, and the epoch in which it was.
#[derive(Debug, QueryableByName)]
pub(crate) struct OwnPassword {
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) password_hash: Option<PasswordHash>,
    #[diesel(sql_type = BigInt)]
    pub(crate) epoch: i64,
}

/// By the function of `migrations/identity/0007_second_factor_and_sessions`.
pub(crate) async fn find(tx: &mut Tx) -> Result<Option<OwnPassword>> {
    Ok(diesel::sql_query("select * from own_password()")
        .get_result(tx)
        .await
        .optional()?)
}

/// Sets another password and begins the next epoch, which is answered; `None` where this epoch is over already.
///
/// The switch `identity.password_epoch` sets it in any epoch, for tests.
pub(crate) async fn update(tx: &mut Tx, user: UserId, epoch: i64, hash: &PasswordHash) -> Result<Option<i64>> {
    let any = failpoint::without("identity.password_epoch");
    let row = users::table.filter(
        users::id
            .eq(user)
            .and(users::epoch.eq(epoch).or(any.into_sql::<Bool>())),
    );
    Ok(diesel::update(row)
        .set((users::password_hash.eq(hash), users::epoch.eq(users::epoch + 1)))
        .returning(users::epoch)
        .get_result(tx)
        .await
        .optional()?)
}
