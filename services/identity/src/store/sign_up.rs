//! Sign-ups that wait, in the platform organization.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName,
    dsl::sql,
    sql_types::{Bool, Nullable, Text},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, failpoint};
use time::OffsetDateTime;

use crate::{
    model::{Email, SignUpId, Slug, Taken},
    schema::sign_ups,
};

/// A sign-up, before anybody is held off from it.
#[derive(diesel::Queryable)]
pub(crate) struct Waiting {
    pub(crate) token_hash: Vec<u8>,
    pub(crate) content: Vec<u8>,
    /// Not expired.
    pub(crate) open: bool,
}

#[derive(QueryableByName)]
struct State {
    #[diesel(sql_type = Bool)]
    email_taken: bool,
    #[diesel(sql_type = Bool)]
    username_taken: bool,
    #[diesel(sql_type = Bool)]
    slug_taken: bool,
}

/// What somebody has already of what is asked for.
pub(crate) async fn taken(tx: &mut Tx, email: &Email, username: &Slug, slug: Option<&Slug>) -> Result<Taken> {
    let state: State = diesel::sql_query("select * from sign_up_state($1, $2, $3)")
        .bind::<Text, _>(email.as_str())
        .bind::<Text, _>(username.as_str())
        .bind::<Nullable<Text>, _>(slug.map(Slug::as_str))
        .get_result(tx)
        .await?;
    Ok(Taken {
        email: state.email_taken,
        username: state.username_taken,
        slug: state.slug_taken,
    })
}

pub(crate) async fn insert(
    tx: &mut Tx,
    id: SignUpId,
    address_hash: &[u8],
    token_hash: &[u8],
    content: &[u8],
    expires_at: OffsetDateTime,
) -> Result<()> {
    diesel::insert_into(sign_ups::table)
        .values((
            sign_ups::org_id.eq(tx.org()),
            sign_ups::id.eq(id),
            sign_ups::address_hash.eq(address_hash),
            sign_ups::token_hash.eq(token_hash),
            sign_ups::content.eq(content),
            sign_ups::expires_at.eq(expires_at),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// A sign-up.
pub(crate) async fn find(tx: &mut Tx, id: SignUpId) -> Result<Option<Waiting>> {
    Ok(sign_ups::table
        .find((tx.org(), id))
        .select((
            sign_ups::token_hash,
            sign_ups::content,
            sql::<Bool>("(expires_at > clock_timestamp())"),
        ))
        .first(tx)
        .await
        .optional()?)
}

/// All that wait for an address; whoever proves it at the same moment waits here, and finds none of them.
///
/// The switch `identity.address_lock` takes the waiting away, for tests.
pub(crate) async fn lock_address(tx: &mut Tx, address_hash: &[u8]) -> Result<Vec<SignUpId>> {
    let waiting = sign_ups::table
        .filter(sign_ups::org_id.eq(tx.org()))
        .filter(sign_ups::address_hash.eq(address_hash))
        .order(sign_ups::id)
        .select(sign_ups::id);
    Ok(if failpoint::without("identity.address_lock") {
        waiting.load(tx).await?
    } else {
        waiting.for_update().load(tx).await?
    })
}

/// Ends all waiting for an address, which is proven.
pub(crate) async fn delete_of_address(tx: &mut Tx, address_hash: &[u8]) -> Result<()> {
    diesel::delete(
        sign_ups::table
            .filter(sign_ups::org_id.eq(tx.org()))
            .filter(sign_ups::address_hash.eq(address_hash)),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets what waited in vain.
pub(crate) async fn delete_expired(tx: &mut Tx) -> Result<usize> {
    let expired = sql::<Bool>("expires_at < clock_timestamp()");
    Ok(
        diesel::delete(sign_ups::table.filter(sign_ups::org_id.eq(tx.org())).filter(expired))
            .execute(tx)
            .await?,
    )
}
