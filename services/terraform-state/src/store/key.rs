//! Which keys seal what, and rotations.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, NullableExpressionMethods, OptionalExtension, PgExpressionMethods,
    QueryDsl, QueryableByName, SelectableHelper, sql_query,
    sql_types::{BigInt, Bytea, Nullable},
};
use diesel_async::RunQueryDsl;
use kit::{Result, crypto::KeyId, db::Tx, ids::OrgId};
use uuid::Uuid;

use crate::{
    model::{
        StateId,
        drift::{
            DriftLogId,
            check::{SealedLog, ViewRow},
        },
        key::{Rotation, RotationId},
        version::Version,
    },
    schema::{clock_timestamp, drift_logs, drift_views, key_rotations, state_versions},
};

/// So many versions and values of drift are sealed by a key; by none where there is none.
#[derive(Clone, Debug, QueryableByName)]
pub(crate) struct Sealed {
    #[diesel(sql_type = Nullable<Bytea>)]
    pub(crate) key_id: Option<Vec<u8>>,
    #[diesel(sql_type = BigInt)]
    pub(crate) versions: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) drift_values: i64,
}

/// How much of the organization each key seals.
pub(crate) async fn count(tx: &mut Tx) -> Result<Vec<Sealed>> {
    let counted = "select key_id, count(*) filter (where version) as versions, count(*) filter (where not version) as drift_values
         from (
           select key_id, true as version from state_versions where org_id = $1
           union all
           select before_key_id, false from drift_logs where org_id = $1 and before is not null
           union all
           select after_key_id, false from drift_logs where org_id = $1 and after is not null
           union all
           select key_id, false from drift_views where org_id = $1 and sealed is not null
         ) sealed group by key_id";
    Ok(sql_query(counted)
        .bind::<diesel::sql_types::Uuid, _>(tx.org())
        .load(tx)
        .await?)
}

/// How much of all organizations each key seals. For the worker role.
pub(crate) async fn count_all(tx: &mut Tx) -> Result<Vec<Sealed>> {
    Ok(sql_query("select key_id, versions, drift_values from sealed_by_key()")
        .load(tx)
        .await?)
}

fn bytes(key: KeyId) -> Vec<u8> {
    // Shown as eight hex digits.
    hex::decode(key.to_string()).unwrap_or_default()
}

/// The organization's rotation that is running, or else its last one.
pub(crate) async fn find_last(tx: &mut Tx) -> Result<Option<Rotation>> {
    Ok(key_rotations::table
        .filter(key_rotations::org_id.eq(tx.org()))
        .select(Rotation::as_select())
        .order(key_rotations::id.desc())
        .first(tx)
        .await
        .optional()?)
}

/// A rotation.
pub(crate) async fn find(tx: &mut Tx, id: RotationId) -> Result<Option<Rotation>> {
    Ok(key_rotations::table
        .find((tx.org(), id))
        .select(Rotation::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// Starts a rotation to a key; none where one is running.
pub(crate) async fn insert(tx: &mut Tx, key: KeyId, total: i64) -> Result<Option<Rotation>> {
    Ok(diesel::insert_into(key_rotations::table)
        .values((
            key_rotations::org_id.eq(tx.org()),
            key_rotations::id.eq(RotationId::new()),
            key_rotations::key_id.eq(bytes(key)),
            key_rotations::total.eq(total),
        ))
        .on_conflict_do_nothing()
        .returning(Rotation::as_returning())
        .get_result(tx)
        .await
        .optional()?)
}

/// Ends the organization's rotation to another key, which nobody asks for any more.
pub(crate) async fn end_others(tx: &mut Tx, key: KeyId) -> Result<()> {
    diesel::update(key_rotations::table)
        .filter(key_rotations::org_id.eq(tx.org()))
        .filter(key_rotations::finished_at.is_null())
        .filter(key_rotations::key_id.ne(bytes(key)))
        .set(key_rotations::finished_at.eq(clock_timestamp().nullable()))
        .execute(tx)
        .await?;
    Ok(())
}

/// A rotation of any organization.
#[derive(Clone, Copy, Debug, QueryableByName)]
pub(crate) struct Running {
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    org_id: Uuid,
    #[diesel(sql_type = diesel::sql_types::Uuid)]
    id: Uuid,
}

impl Running {
    pub(crate) fn org(&self) -> OrgId {
        OrgId(self.org_id)
    }

    pub(crate) fn id(&self) -> RotationId {
        RotationId(self.id)
    }
}

/// The rotations to a key that have not come to their end, of all organizations. For the worker role.
pub(crate) async fn list_running(tx: &mut Tx, key: KeyId) -> Result<Vec<Running>> {
    Ok(sql_query("select org_id, id from running_rotations($1)")
        .bind::<Bytea, _>(bytes(key))
        .load(tx)
        .await?)
}

/// Claims a rotation until the transaction ends; none where another has it, or it has come to its end.
pub(crate) async fn claim(tx: &mut Tx, id: RotationId) -> Result<Option<Rotation>> {
    Ok(key_rotations::table
        .find((tx.org(), id))
        .filter(key_rotations::finished_at.is_null())
        .select(Rotation::as_select())
        .for_update()
        .skip_locked()
        .first(tx)
        .await
        .optional()?)
}

/// Writes how far a claimed rotation has come.
pub(crate) async fn update(tx: &mut Tx, rotation: &Rotation, finished: bool) -> Result<()> {
    let row = key_rotations::table.find((tx.org(), rotation.id));
    diesel::update(row)
        .set((
            key_rotations::done.eq(rotation.done),
            key_rotations::failed.eq(rotation.failed),
            key_rotations::after_org.eq(rotation.after_org),
            key_rotations::after_state.eq(rotation.after_state),
            key_rotations::after_number.eq(rotation.after_number),
            key_rotations::stage.eq(rotation.stage),
            key_rotations::done_values.eq(rotation.done_values),
            key_rotations::failed_values.eq(rotation.failed_values),
        ))
        .execute(tx)
        .await?;
    if finished {
        diesel::update(row)
            .set(key_rotations::finished_at.eq(clock_timestamp().nullable()))
            .execute(tx)
            .await?;
    }
    Ok(())
}

#[derive(QueryableByName)]
struct Next {
    #[diesel(sql_type = Nullable<diesel::sql_types::Uuid>)]
    org_id: Option<Uuid>,
}

/// The first organization from this one on that has something sealed otherwise than by this key. For the worker role.
pub(crate) async fn next_org(tx: &mut Tx, key: KeyId, from: Uuid) -> Result<Option<OrgId>> {
    let next: Next = sql_query("select next_sealed_otherwise($1, $2) as org_id")
        .bind::<Bytea, _>(bytes(key))
        .bind::<diesel::sql_types::Uuid, _>(from)
        .get_result(tx)
        .await?;
    Ok(next.org_id.map(OrgId))
}

/// The organization's versions after this one that are sealed otherwise than by this key, by state and number.
pub(crate) async fn list_otherwise(
    tx: &mut Tx,
    key: KeyId,
    (state, number): (StateId, i64),
    most: i64,
) -> Result<Vec<(StateId, Version)>> {
    let after = state_versions::state_id.gt(state).or(state_versions::state_id
        .eq(state)
        .and(state_versions::number.gt(number)));
    Ok(state_versions::table
        .filter(state_versions::org_id.eq(tx.org()))
        .filter(state_versions::state_id.ge(state))
        .filter(after)
        .filter(state_versions::key_id.is_distinct_from(bytes(key)))
        .select((state_versions::state_id, Version::as_select()))
        .order((state_versions::state_id.asc(), state_versions::number.asc()))
        .limit(most)
        .load(tx)
        .await?)
}

/// Writes a version's data key as it is sealed now, unless somebody did since it was read.
pub(crate) async fn update_key(tx: &mut Tx, state: StateId, version: &Version, sealed: &[u8]) -> Result<()> {
    diesel::update(state_versions::table.find((tx.org(), state, version.number)))
        .filter(state_versions::data_key.eq(version.data_key.as_deref()))
        .set(state_versions::data_key.eq(sealed))
        .execute(tx)
        .await?;
    Ok(())
}

/// The organization's drift logs after this one with a value that is sealed otherwise than by this key.
pub(crate) async fn list_logs_otherwise(
    tx: &mut Tx,
    key: KeyId,
    after: DriftLogId,
    most: i64,
) -> Result<Vec<SealedLog>> {
    let key = bytes(key);
    Ok(drift_logs::table
        .filter(drift_logs::org_id.eq(tx.org()))
        .filter(drift_logs::id.gt(after))
        .filter((drift_logs::before_key_id.ne(key.clone())).or(drift_logs::after_key_id.ne(key)))
        .select(SealedLog::as_select())
        .order(drift_logs::id.asc())
        .limit(most)
        .load(tx)
        .await?)
}

/// Writes a drift log's values as they are sealed now, unless somebody did since they were read.
pub(crate) async fn update_log(
    tx: &mut Tx,
    log: &SealedLog,
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
) -> Result<()> {
    diesel::update(drift_logs::table.find((tx.org(), log.id)))
        .filter(drift_logs::before.is_not_distinct_from(log.before.as_deref()))
        .filter(drift_logs::after.is_not_distinct_from(log.after.as_deref()))
        .set((drift_logs::before.eq(before), drift_logs::after.eq(after)))
        .execute(tx)
        .await?;
    Ok(())
}

/// The rows of the organization's views after this one that are sealed otherwise than by this key.
pub(crate) async fn list_views_otherwise(
    tx: &mut Tx,
    key: KeyId,
    (state, place): (StateId, i32),
    most: i64,
) -> Result<Vec<ViewRow>> {
    let after = drift_views::state_id
        .gt(state)
        .or(drift_views::state_id.eq(state).and(drift_views::place.gt(place)));
    Ok(drift_views::table
        .filter(drift_views::org_id.eq(tx.org()))
        .filter(drift_views::state_id.ge(state))
        .filter(after)
        .filter(drift_views::key_id.ne(bytes(key)))
        .select(ViewRow::as_select())
        .order((drift_views::state_id.asc(), drift_views::place.asc()))
        .limit(most)
        .load(tx)
        .await?)
}

/// Writes a row of a view as it is sealed now, unless another view took its place since it was read.
pub(crate) async fn update_view(tx: &mut Tx, row: &ViewRow, sealed: Vec<u8>) -> Result<()> {
    diesel::update(drift_views::table.find((tx.org(), row.state_id, row.place)))
        .filter(drift_views::sealed.eq(row.sealed.as_deref()))
        .set(drift_views::sealed.eq(Some(sealed)))
        .execute(tx)
        .await?;
    Ok(())
}
