//! API keys.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper,
    dsl::sql,
    sql_types::{Bool, Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, ids::UserId};
use time::OffsetDateTime;

use crate::{
    model::{ApiKey, ApiKeyId, NewApiKey},
    schema::api_keys,
};

const ACTIVE: &str = "(revoked_at is null and expires_at > clock_timestamp())";

pub(crate) async fn insert(
    tx: &mut Tx,
    new: &NewApiKey,
    creator: UserId,
    expires_at: OffsetDateTime,
    public_id: &str,
    digest: &[u8],
) -> Result<ApiKey> {
    Ok(diesel::insert_into(api_keys::table)
        .values((
            api_keys::org_id.eq(tx.org()),
            api_keys::id.eq(new.id),
            api_keys::public_id.eq(public_id),
            api_keys::digest.eq(digest),
            api_keys::name.eq(&new.name),
            api_keys::scopes.eq(&new.scopes),
            api_keys::creator_id.eq(creator),
            api_keys::expires_at.eq(expires_at),
        ))
        .returning(ApiKey::as_returning())
        .get_result(tx)
        .await?)
}

/// A key that is neither revoked nor expired.
pub(crate) async fn find_active(tx: &mut Tx, id: ApiKeyId) -> Result<Option<ApiKey>> {
    Ok(api_keys::table
        .find((tx.org(), id))
        .filter(sql::<Bool>(ACTIVE))
        .select(ApiKey::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// Notes that a key was used, at most once a minute.
pub(crate) async fn update_last_used(tx: &mut Tx, id: ApiKeyId) -> Result<()> {
    let stale = sql::<Bool>("coalesce(last_used_at < clock_timestamp() - interval '1 minute', true)");
    diesel::update(api_keys::table.filter(api_keys::org_id.eq(tx.org()).and(api_keys::id.eq(id)).and(stale)))
        .set(api_keys::last_used_at.eq(sql::<Nullable<Timestamptz>>("clock_timestamp()")))
        .execute(tx)
        .await?;
    Ok(())
}
