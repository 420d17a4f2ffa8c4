//! Versions, without their contents.

use std::time::Duration;

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName, SelectableHelper, sql_query,
    sql_types::{BigInt, Bool, Bytea, Double, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use kit::{Error, Result, db::Tx};
use time::OffsetDateTime;

use super::limit::Limits;
use crate::{
    content::Content,
    model::{
        Caller, StateId, VersionKind,
        state::State,
        version::{Listed, Version},
    },
    schema::{
        sql_types::{PrincipalEnum, VersionKindEnum},
        state_versions,
    },
};

/// What a version that was written is answered with.
#[derive(QueryableByName)]
struct Written {
    #[diesel(sql_type = Timestamptz)]
    created_at: OffsetDateTime,
    #[diesel(sql_type = Nullable<BigInt>)]
    most_state_bytes: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    most_stored_bytes: Option<i64>,
}

/// Adds the next version of a state that is held, with its first chunk; where it is not the first version, the state is up
/// for compaction after a while. Says what the organization may keep.
///
/// One statement: a write has few others, and each costs as much as what it does.
pub(crate) async fn insert(
    tx: &mut Tx,
    state: &State,
    kind: VersionKind,
    content: &Content,
    first_chunk: &[u8],
    compact_after: Duration,
) -> Result<(Version, Limits)> {
    let author = Caller::of(tx.principal())?;
    let heading = content.heading();
    let number = state.latest_version + 1;
    let mut version = Version {
        number,
        id: content.place().version,
        serial: heading.serial,
        lineage: heading.lineage.clone(),
        kind,
        size_bytes: i64::try_from(content.size()).map_err(Error::internal)?,
        chunks: i32::try_from(content.chunks()).map_err(Error::internal)?,
        content_hash: content.hash(number).to_vec(),
        terraform_version: heading.terraform_version.clone(),
        resource_count: heading.resource_count,
        blank: heading.blank,
        author_id: author.id,
        created_at: OffsetDateTime::UNIX_EPOCH,
        lock_id: content.lock().cloned(),
        body_id: content.body(),
        data_key: Some(content.wrapped_key().to_vec()),
        base_number: None,
        weighed_number: None,
        stored_bytes: i64::try_from(content.stored()).map_err(Error::internal)?,
    };
    let written: Written = sql_query(
        "with version as (
           insert into state_versions
             (org_id, state_id, number, id, serial, lineage, kind, size_bytes, chunks, content_hash, terraform_version,
              resource_count, blank, author_kind, author_id, lock_id, body_id, data_key, stored_bytes)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
           returning created_at
         ), chunk as (
           insert into state_chunks (org_id, version_id, place, sealed) values ($1, $4, 0, $20)
         ), state as (
           update states set latest_version = $3, greatest_serial = greatest(greatest_serial, $5),
             updated_at = clock_timestamp(), stored_bytes = stored_bytes + $19
           where org_id = $1 and id = $2
         ), compaction as (
           insert into compactions (org_id, state_id, due_at)
           select $1, $2, clock_timestamp() + make_interval(secs => $21) where $3 > 1
           on conflict do nothing
         )
         select version.created_at, limits.state_bytes as most_state_bytes, limits.stored_bytes as most_stored_bytes
         from version left join organization_limits limits on limits.org_id = $1",
    )
    .bind::<SqlUuid, _>(tx.org())
    .bind::<SqlUuid, _>(state.id)
    .bind::<BigInt, _>(version.number)
    .bind::<SqlUuid, _>(version.id)
    .bind::<BigInt, _>(version.serial)
    .bind::<Text, _>(&version.lineage)
    .bind::<VersionKindEnum, _>(version.kind)
    .bind::<BigInt, _>(version.size_bytes)
    .bind::<Integer, _>(version.chunks)
    .bind::<Bytea, _>(&version.content_hash)
    .bind::<Text, _>(&version.terraform_version)
    .bind::<Integer, _>(version.resource_count)
    .bind::<Bool, _>(version.blank)
    .bind::<PrincipalEnum, _>(author.kind)
    .bind::<SqlUuid, _>(version.author_id)
    .bind::<Nullable<Text>, _>(version.lock_id.as_ref())
    .bind::<SqlUuid, _>(version.body_id)
    .bind::<Nullable<Bytea>, _>(version.data_key.as_ref())
    .bind::<BigInt, _>(version.stored_bytes)
    .bind::<Bytea, _>(first_chunk)
    .bind::<Double, _>(compact_after.as_secs_f64())
    .get_result(tx)
    .await?;
    version.created_at = written.created_at;
    let limits = Limits::of(written.most_state_bytes, written.most_stored_bytes);
    Ok((version, limits))
}

/// A version of a state.
pub(crate) async fn find(tx: &mut Tx, state: StateId, number: i64) -> Result<Option<Version>> {
    Ok(state_versions::table
        .find((tx.org(), state, number))
        .select(Version::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// Changes why a version was written.
pub(crate) async fn update_kind(tx: &mut Tx, state: StateId, number: i64, kind: VersionKind) -> Result<()> {
    diesel::update(state_versions::table.find((tx.org(), state, number)))
        .set(state_versions::kind.eq(kind))
        .execute(tx)
        .await?;
    Ok(())
}

/// Versions of a state, newest first, below `below`; at most `limit`.
pub(crate) async fn list(tx: &mut Tx, state: StateId, below: Option<i64>, limit: i64) -> Result<Vec<Listed>> {
    Ok(state_versions::table
        .filter(state_versions::org_id.eq(tx.org()))
        .filter(state_versions::state_id.eq(state))
        .filter(state_versions::number.lt(below.unwrap_or(i64::MAX)))
        .select(Listed::as_select())
        .order(state_versions::number.desc())
        .limit(limit)
        .load(tx)
        .await?)
}
