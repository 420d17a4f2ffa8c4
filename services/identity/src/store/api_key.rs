//! API keys.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper,
    dsl::sql,
    sql_types::{Bool, Double, Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, failpoint, page::PageSize};
use time::{Duration, OffsetDateTime};

use crate::{
    model::{ApiKey, ApiKeyId, NewApiKey, Owner, ServiceAccountId},
    schema::api_keys,
};

const ACTIVE: &str = "(revoked_at is null and expires_at > clock_timestamp())";

pub(crate) async fn insert(
    tx: &mut Tx,
    new: &NewApiKey,
    owner: Owner,
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
            api_keys::creator_id.eq(owner.creator),
            api_keys::service_account_id.eq(owner.service_account),
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

/// A key, also one that has ended.
pub(crate) async fn find(tx: &mut Tx, id: ApiKeyId) -> Result<Option<ApiKey>> {
    Ok(api_keys::table
        .find((tx.org(), id))
        .select(ApiKey::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// As [`find_active`]; nobody revokes the key until the transaction ends.
///
/// The switch `identity.key_lock/<organization>` lets them, for tests.
pub(crate) async fn lock_active(tx: &mut Tx, id: ApiKeyId) -> Result<Option<ApiKey>> {
    if failpoint::without(&format!("identity.key_lock/{}", tx.org())) {
        return find_active(tx, id).await;
    }
    Ok(api_keys::table
        .find((tx.org(), id))
        .filter(sql::<Bool>(ACTIVE))
        .select(ApiKey::as_select())
        .for_update()
        .first(tx)
        .await
        .optional()?)
}

/// Newest first: all keys or a service account's, those that have ended among them if asked.
pub(crate) async fn list(
    tx: &mut Tx,
    of: Option<ServiceAccountId>,
    ended: bool,
    after: Option<(OffsetDateTime, ApiKeyId)>,
    size: PageSize,
) -> Result<Vec<ApiKey>> {
    let mut page = api_keys::table
        .filter(api_keys::org_id.eq(tx.org()))
        .order((api_keys::created_at.desc(), api_keys::id.desc()))
        .limit(size.fetch())
        .select(ApiKey::as_select())
        .into_boxed();
    if let Some(account) = of {
        page = page.filter(api_keys::service_account_id.eq(account));
    }
    if !ended {
        page = page.filter(
            api_keys::revoked_at
                .is_null()
                .and(sql::<Bool>("expires_at > clock_timestamp()")),
        );
    }
    if let Some((created_at, id)) = after {
        // Not beyond the cursor's time, as the index has it; then without those that were seen.
        let unseen = api_keys::created_at.lt(created_at).or(api_keys::id.lt(id));
        page = page.filter(api_keys::created_at.le(created_at).and(unseen));
    }
    Ok(page.load(tx).await?)
}

/// Brings a key's end near, never farther; answers when that is.
pub(crate) async fn end_within(tx: &mut Tx, id: ApiKeyId, time: Duration) -> Result<OffsetDateTime> {
    let end = sql::<Timestamptz>("least(expires_at, clock_timestamp() + interval '1 second' * ")
        .bind::<Double, _>(time.as_seconds_f64())
        .sql(")");
    Ok(diesel::update(api_keys::table.find((tx.org(), id)))
        .set(api_keys::expires_at.eq(end))
        .returning(api_keys::expires_at)
        .get_result(tx)
        .await?)
}

/// Revokes a key; none for one that is not there or has ended already.
pub(crate) async fn revoke(tx: &mut Tx, id: ApiKeyId) -> Result<Option<ApiKey>> {
    Ok(
        diesel::update(api_keys::table.find((tx.org(), id)).filter(sql::<Bool>(ACTIVE)))
            .set(api_keys::revoked_at.eq(sql::<Nullable<Timestamptz>>("clock_timestamp()")))
            .returning(ApiKey::as_returning())
            .get_result(tx)
            .await
            .optional()?,
    )
}

/// Revokes all keys of a service account that have not ended.
pub(crate) async fn revoke_all(tx: &mut Tx, of: ServiceAccountId) -> Result<Vec<ApiKeyId>> {
    let keys = api_keys::table.filter(
        api_keys::org_id
            .eq(tx.org())
            .and(api_keys::service_account_id.eq(of))
            .and(sql::<Bool>(ACTIVE)),
    );
    Ok(diesel::update(keys)
        .set(api_keys::revoked_at.eq(sql::<Nullable<Timestamptz>>("clock_timestamp()")))
        .returning(api_keys::id)
        .load(tx)
        .await?)
}

/// Notes that a key was used.
pub(crate) async fn update_last_used(tx: &mut Tx, id: ApiKeyId) -> Result<()> {
    diesel::update(api_keys::table.find((tx.org(), id)))
        .set(api_keys::last_used_at.eq(sql::<Nullable<Timestamptz>>("clock_timestamp()")))
        .execute(tx)
        .await?;
    Ok(())
}
