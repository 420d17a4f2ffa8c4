//! Chunks of contents, sealed.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};
use uuid::Uuid;

use crate::schema::state_chunks;

/// Adds a chunk to a version.
pub(crate) async fn insert(tx: &mut Tx, version: Uuid, place: i32, sealed: Vec<u8>) -> Result<()> {
    diesel::insert_into(state_chunks::table)
        .values((
            state_chunks::org_id.eq(tx.org()),
            state_chunks::version_id.eq(version),
            state_chunks::place.eq(place),
            state_chunks::sealed.eq(sealed),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// A chunk of a version.
pub(crate) async fn find(tx: &mut Tx, version: Uuid, place: i32) -> Result<Option<Vec<u8>>> {
    Ok(state_chunks::table
        .find((tx.org(), version, place))
        .select(state_chunks::sealed)
        .first(tx)
        .await
        .optional()?)
}
