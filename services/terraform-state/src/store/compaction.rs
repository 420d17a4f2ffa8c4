//! What may have to be compacted, and how it is stored then.

use std::time::Duration;

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName, SelectableHelper, sql_query};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, ids::OrgId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    model::{StateId, compaction::Row, version::Version},
    schema::{compactions, state_chunks, state_versions},
};

/// A state that is due.
#[derive(Clone, Copy, Debug, QueryableByName)]
pub(crate) struct Due {
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    org_id: Uuid,
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    state_id: Uuid,
}

impl Due {
    pub(crate) fn org(&self) -> OrgId {
        OrgId(self.org_id)
    }

    pub(crate) fn state(&self) -> StateId {
        StateId(self.state_id)
    }
}

/// Notes that there may be something to compact in a while; the state's row is held. One who holds this row too takes it away
/// only while holding the state's, so that nothing is forgotten and nobody waits here.
pub(crate) async fn insert(tx: &mut Tx, state: StateId, after: Duration) -> Result<()> {
    diesel::insert_into(compactions::table)
        .values((
            compactions::org_id.eq(tx.org()),
            compactions::state_id.eq(state),
            compactions::due_at.eq(OffsetDateTime::now_utc() + after),
        ))
        .on_conflict_do_nothing()
        .execute(tx)
        .await?;
    Ok(())
}

/// States of all organizations that are due, longest due first; at most `most`. For the worker role.
pub(crate) async fn list_due(tx: &mut Tx, most: i32) -> Result<Vec<Due>> {
    Ok(sql_query("select org_id, state_id from due_compactions($1)")
        .bind::<diesel::sql_types::Integer, _>(most)
        .load(tx)
        .await?)
}

/// Claims a state until the transaction ends; false where another has it, or nothing is to be done.
pub(crate) async fn claim(tx: &mut Tx, state: StateId) -> Result<bool> {
    let claimed: Option<StateId> = compactions::table
        .find((tx.org(), state))
        .select(compactions::state_id)
        .for_update()
        .skip_locked()
        .first(tx)
        .await
        .optional()?;
    Ok(claimed.is_some())
}

/// Puts a claimed state off.
pub(crate) async fn update_due(tx: &mut Tx, state: StateId, after: Duration) -> Result<()> {
    diesel::update(compactions::table.find((tx.org(), state)))
        .set(compactions::due_at.eq(OffsetDateTime::now_utc() + after))
        .execute(tx)
        .await?;
    Ok(())
}

/// Nothing is left to do for a claimed state, whose row is held.
pub(crate) async fn delete(tx: &mut Tx, state: StateId) -> Result<()> {
    diesel::delete(compactions::table.find((tx.org(), state)))
        .execute(tx)
        .await?;
    Ok(())
}

/// All versions of a state, newest first, by what a plan is made from.
pub(crate) async fn list_rows(tx: &mut Tx, state: StateId) -> Result<Vec<Row>> {
    Ok(state_versions::table
        .filter(state_versions::org_id.eq(tx.org()))
        .filter(state_versions::state_id.eq(state))
        .select(Row::as_select())
        .order(state_versions::number.desc())
        .load(tx)
        .await?)
}

/// How a version's content is stored from now on.
pub(crate) struct Stored {
    /// Random, and what the chunks are sealed to.
    pub(crate) body: Uuid,
    /// Its data key and what it is known by, where it had none.
    pub(crate) key: Option<(Vec<u8>, [u8; 32])>,
    pub(crate) base: Option<i64>,
    pub(crate) weighed: Option<i64>,
    pub(crate) chunks: i32,
    pub(crate) bytes: i64,
}

/// Says how a version's content is stored, in place of its old chunks, whose successors come after this. The state's row is held.
pub(crate) async fn update_stored(tx: &mut Tx, state: StateId, version: &Version, stored: &Stored) -> Result<()> {
    delete_chunks(tx, version.id).await?;
    let row = state_versions::table.find((tx.org(), state, version.number));
    diesel::update(row)
        .set((
            state_versions::body_id.eq(stored.body),
            state_versions::base_number.eq(stored.base),
            state_versions::weighed_number.eq(stored.weighed),
            state_versions::chunks.eq(stored.chunks),
            state_versions::stored_bytes.eq(stored.bytes),
        ))
        .execute(tx)
        .await?;
    if let Some((key, hash)) = &stored.key {
        diesel::update(row)
            .set((
                state_versions::data_key.eq(key),
                state_versions::content_hash.eq(hash.as_slice()),
            ))
            .execute(tx)
            .await?;
    }
    super::state::add_stored(tx, state, stored.bytes - version.stored_bytes).await
}

/// Notes that a version stays as it is, weighed against a newer one. The state's row is held.
pub(crate) async fn update_weighed(tx: &mut Tx, state: StateId, number: i64, weighed: Option<i64>) -> Result<()> {
    diesel::update(state_versions::table.find((tx.org(), state, number)))
        .set(state_versions::weighed_number.eq(weighed))
        .execute(tx)
        .await?;
    Ok(())
}

async fn delete_chunks(tx: &mut Tx, version: Uuid) -> Result<()> {
    diesel::delete(state_chunks::table)
        .filter(state_chunks::org_id.eq(tx.org()))
        .filter(state_chunks::version_id.eq(version))
        .execute(tx)
        .await?;
    Ok(())
}

/// Whether a version is told by this one.
pub(crate) async fn is_base(tx: &mut Tx, state: StateId, number: i64) -> Result<bool> {
    let told = state_versions::table
        .filter(state_versions::org_id.eq(tx.org()))
        .filter(state_versions::state_id.eq(state))
        .filter(state_versions::base_number.eq(number));
    Ok(diesel::select(diesel::dsl::exists(told)).get_result(tx).await?)
}

/// Takes a version away that no other one is told by. The state's row is held.
pub(crate) async fn delete_version(tx: &mut Tx, state: StateId, row: &Row) -> Result<()> {
    delete_chunks(tx, row.id).await?;
    diesel::delete(state_versions::table.find((tx.org(), state, row.number)))
        .execute(tx)
        .await?;
    super::state::add_stored(tx, state, -row.stored_bytes).await
}
