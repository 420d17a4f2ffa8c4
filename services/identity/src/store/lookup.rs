//! What must be found before the organization is known: the functions of `migrations/identity`.

use diesel::{
    OptionalExtension, QueryableByName,
    sql_types::{BigInt, Binary, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use kit::{
    Result,
    db::Tx,
    ids::{OrgId, UserId},
};
use time::OffsetDateTime;

use crate::model::{ApiKeyId, Email, InvitationId, PasswordHash, SessionId};

/// An account that somebody wants to sign in to.
#[derive(Debug, QueryableByName)]
pub(crate) struct LoginAccount {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) user_id: UserId,
    #[diesel(sql_type = Text)]
    pub(crate) password_hash: PasswordHash,
    /// The organization that the login enters: none if the user is in none, or not in the wanted one.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub(crate) org_id: Option<OrgId>,
    /// The organization that the login would enter of itself.
    #[diesel(sql_type = Nullable<SqlUuid>)]
    pub(crate) home_org_id: Option<OrgId>,
    #[diesel(sql_type = Bool)]
    pub(crate) suspended: bool,
    #[diesel(sql_type = Bool)]
    pub(crate) deleted: bool,
}

/// Whose a session is, and whether it stands.
#[derive(Debug, QueryableByName)]
pub(crate) struct SessionState {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) org_id: OrgId,
    #[diesel(sql_type = SqlUuid)]
    pub(crate) user_id: UserId,
    #[diesel(sql_type = Bool)]
    pub(crate) active: bool,
    #[diesel(sql_type = BigInt)]
    pub(crate) epoch: i64,
}

/// An API key, as far as exchanging one needs it.
#[derive(Debug, QueryableByName)]
pub(crate) struct KnownKey {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) org_id: OrgId,
    #[diesel(sql_type = SqlUuid)]
    pub(crate) id: ApiKeyId,
    #[diesel(sql_type = Binary)]
    pub(crate) digest: Vec<u8>,
    #[diesel(sql_type = Bool)]
    pub(crate) active: bool,
    #[diesel(sql_type = Timestamptz)]
    pub(crate) expires_at: OffsetDateTime,
    /// Within half a minute.
    #[diesel(sql_type = Bool)]
    pub(crate) lately_used: bool,
    /// Its organization's; none of one that is deleted.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub(crate) permission_version: Option<i64>,
}

#[derive(QueryableByName)]
struct Active {
    #[diesel(sql_type = Bool)]
    active: bool,
}

#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    org_id: Option<OrgId>,
}

#[derive(QueryableByName)]
struct Someone {
    #[diesel(sql_type = Nullable<SqlUuid>)]
    user_id: Option<UserId>,
}

pub(crate) async fn login_account(tx: &mut Tx, email: &Email, org: Option<OrgId>) -> Result<Option<LoginAccount>> {
    Ok(diesel::sql_query("select * from login_account($1, $2)")
        .bind::<Text, _>(email.as_str())
        .bind::<Nullable<SqlUuid>, _>(org)
        .get_result(tx)
        .await
        .optional()?)
}

pub(crate) async fn session_state(tx: &mut Tx, session: SessionId) -> Result<Option<SessionState>> {
    Ok(diesel::sql_query("select * from session_state($1)")
        .bind::<SqlUuid, _>(session)
        .get_result(tx)
        .await
        .optional()?)
}

pub(crate) async fn api_key_active(tx: &mut Tx, key: ApiKeyId) -> Result<bool> {
    let found: Option<Active> = diesel::sql_query("select active from api_key_state($1)")
        .bind::<SqlUuid, _>(key)
        .get_result(tx)
        .await
        .optional()?;
    Ok(found.is_some_and(|key| key.active))
}

pub(crate) async fn api_key_by_public_id(tx: &mut Tx, public_id: &str) -> Result<Option<KnownKey>> {
    Ok(diesel::sql_query("select * from api_key_by_public_id($1)")
        .bind::<Text, _>(public_id)
        .get_result(tx)
        .await
        .optional()?)
}

pub(crate) async fn invitation_org(tx: &mut Tx, invitation: InvitationId) -> Result<Option<OrgId>> {
    let found: Place = diesel::sql_query("select invitation_org($1) as org_id")
        .bind::<SqlUuid, _>(invitation)
        .get_result(tx)
        .await?;
    Ok(found.org_id)
}

/// The account of an address, unless it is deleted.
pub(crate) async fn account_by_email(tx: &mut Tx, email: &Email) -> Result<Option<UserId>> {
    let found: Someone = diesel::sql_query("select account_by_email($1) as user_id")
        .bind::<Text, _>(email.as_str())
        .get_result(tx)
        .await?;
    Ok(found.user_id)
}
