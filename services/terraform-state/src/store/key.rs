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
        key::{Rotation, RotationId},
        version::Version,
    },
    schema::{clock_timestamp, key_rotations, state_versions},
};

/// So many versions are sealed by a key; by none where there is none.
#[derive(Clone, Debug, QueryableByName)]
pub(crate) struct Sealed {
    #[diesel(sql_type = Nullable<Bytea>)]
    pub(crate) key_id: Option<Vec<u8>>,
    #[diesel(sql_type = BigInt)]
    pub(crate) versions: i64,
}

/// How many versions of the organization each key seals.
pub(crate) async fn count(tx: &mut Tx) -> Result<Vec<Sealed>> {
    let rows: Vec<(Option<Vec<u8>>, i64)> = state_versions::table
        .filter(state_versions::org_id.eq(tx.org()))
        .group_by(state_versions::key_id)
        .select((state_versions::key_id, diesel::dsl::count_star()))
        .load(tx)
        .await?;
    Ok(rows
        .into_iter()
        .map(|(key_id, versions)| Sealed { key_id, versions })
        .collect())
}

/// How many versions of all organizations each key seals. For the worker role.
pub(crate) async fn count_all(tx: &mut Tx) -> Result<Vec<Sealed>> {
    Ok(sql_query("select key_id, versions from versions_by_key()")
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

/// The first organization from this one on that has a version sealed otherwise than by this key. For the worker role.
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
