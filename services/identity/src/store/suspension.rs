//! Who is kept out: members of their organization by its own, accounts of everything by the platform.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName,
    dsl::sql,
    sql_types::{BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use kit::{
    Result,
    db::Tx,
    ids::{OrgId, UserId},
};

use crate::{
    model::{Held, SessionId},
    schema::organization_members,
    store::own_view,
};

/// Keeps a member out of the transaction's organization; `false` for one who is kept out already.
pub(crate) async fn insert(tx: &mut Tx, user: UserId, reason: &str) -> Result<bool> {
    tx.changes(own_view::user(user));
    let member = organization_members::table
        .find((tx.org(), user))
        .filter(organization_members::suspended_at.is_null());
    let kept_out = diesel::update(member)
        .set((
            organization_members::suspended_at.eq(sql::<Nullable<Timestamptz>>("clock_timestamp()")),
            organization_members::suspended_reason.eq(reason),
        ))
        .execute(tx)
        .await?;
    Ok(kept_out == 1)
}

/// Lets a member in again; `false` for one who was not kept out.
pub(crate) async fn delete(tx: &mut Tx, user: UserId) -> Result<bool> {
    tx.changes(own_view::user(user));
    let member = organization_members::table.filter(
        organization_members::org_id
            .eq(tx.org())
            .and(organization_members::user_id.eq(user))
            .and(organization_members::suspended_at.is_not_null()),
    );
    let let_in = diesel::update(member)
        .set((
            organization_members::suspended_at.eq(sql::<Nullable<Timestamptz>>("null")),
            organization_members::suspended_reason.eq(""),
        ))
        .execute(tx)
        .await?;
    Ok(let_in == 1)
}

/// What became of an account.
#[derive(Debug, QueryableByName)]
pub(crate) struct AccountState {
    /// Its epoch from now on.
    #[diesel(sql_type = BigInt)]
    pub(crate) epoch: i64,
    /// Whether it was otherwise before.
    #[diesel(sql_type = Bool)]
    pub(crate) changed: bool,
}

/// The next version of an organization's permissions.
#[derive(Debug, QueryableByName)]
pub(crate) struct Renewed {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) org_id: OrgId,
    #[diesel(sql_type = BigInt)]
    pub(crate) permission_version: i64,
}

/// A session that has ended.
#[derive(Debug, QueryableByName)]
pub(crate) struct Ended {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) org_id: OrgId,
    #[diesel(sql_type = SqlUuid)]
    pub(crate) id: SessionId,
}

#[derive(QueryableByName)]
struct Grant {
    #[diesel(sql_type = Text)]
    permission: String,
}

/// All that an account holds in any organization.
pub(crate) async fn held_anywhere(tx: &mut Tx, user: UserId) -> Result<Held> {
    let grants: Vec<Grant> = diesel::sql_query("select permission from account_grants($1) as held (permission)")
        .bind::<SqlUuid, _>(user)
        .load(tx)
        .await?;
    let grants: Vec<String> = grants.into_iter().map(|row| row.permission).collect();
    Ok(Held::of(&grants))
}

/// The next version of the permissions in each organization of an account that is not yet (or no longer) suspended;
/// before [`set_account_suspended`], which locks the account.
pub(crate) async fn renew_account_permissions(tx: &mut Tx, user: UserId, suspend: bool) -> Result<Vec<Renewed>> {
    Ok(diesel::sql_query("select * from renew_account_permissions($1, $2)")
        .bind::<SqlUuid, _>(user)
        .bind::<Bool, _>(suspend)
        .load(tx)
        .await?)
}

/// Suspends an account, or lets it in again; none for one that is not there.
pub(crate) async fn set_account_suspended(
    tx: &mut Tx,
    user: UserId,
    suspend: bool,
    reason: &str,
) -> Result<Option<AccountState>> {
    Ok(diesel::sql_query("select * from set_account_suspended($1, $2, $3)")
        .bind::<SqlUuid, _>(user)
        .bind::<Bool, _>(suspend)
        .bind::<Text, _>(reason)
        .get_result(tx)
        .await
        .optional()?)
}

/// Ends all sessions of a suspended account; answers those of which an access token may still be about.
pub(crate) async fn end_account_sessions(tx: &mut Tx, user: UserId) -> Result<Vec<Ended>> {
    Ok(diesel::sql_query("select * from end_account_sessions($1)")
        .bind::<SqlUuid, _>(user)
        .load(tx)
        .await?)
}
