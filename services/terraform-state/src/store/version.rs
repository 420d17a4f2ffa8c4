//! Versions, without their contents.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;
use kit::{Error, Result, db::Tx};

use crate::{
    content::Content,
    model::{
        Caller, StateId, VersionKind,
        version::{Version, group_end},
    },
    schema::state_versions,
};

/// Adds a version; its chunks come after it.
pub(crate) async fn insert(
    tx: &mut Tx,
    state: StateId,
    number: i64,
    kind: VersionKind,
    content: &Content,
) -> Result<Version> {
    let author = Caller::of(tx.principal())?;
    let heading = content.heading();
    Ok(diesel::insert_into(state_versions::table)
        .values((
            (
                state_versions::org_id.eq(tx.org()),
                state_versions::state_id.eq(state),
                state_versions::number.eq(number),
                state_versions::id.eq(content.place().version),
                state_versions::serial.eq(heading.serial),
                state_versions::lineage.eq(&heading.lineage),
                state_versions::kind.eq(kind),
            ),
            (
                state_versions::size_bytes.eq(i64::try_from(content.size()).map_err(Error::internal)?),
                state_versions::chunks.eq(i32::try_from(content.chunks()).map_err(Error::internal)?),
                state_versions::content_hash.eq(content.hash(number).to_vec()),
                state_versions::terraform_version.eq(&heading.terraform_version),
                state_versions::resource_count.eq(heading.resource_count),
                state_versions::blank.eq(heading.blank),
                state_versions::author_kind.eq(author.kind),
                state_versions::author_id.eq(author.id),
            ),
            (
                state_versions::lock_id.eq(content.lock()),
                state_versions::body_id.eq(content.body()),
                state_versions::data_key.eq(content.wrapped_key()),
                state_versions::stored_bytes.eq(i64::try_from(content.stored()).map_err(Error::internal)?),
            ),
        ))
        .returning(Version::as_returning())
        .get_result(tx)
        .await?)
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

/// The versions that may tell this one: the newer ones of its group, oldest first.
pub(crate) async fn list_group(tx: &mut Tx, state: StateId, number: i64) -> Result<Vec<Version>> {
    Ok(state_versions::table
        .filter(state_versions::org_id.eq(tx.org()))
        .filter(state_versions::state_id.eq(state))
        .filter(state_versions::number.gt(number))
        .filter(state_versions::number.le(group_end(number)))
        .select(Version::as_select())
        .order(state_versions::number.asc())
        .load(tx)
        .await?)
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
pub(crate) async fn list(tx: &mut Tx, state: StateId, below: Option<i64>, limit: i64) -> Result<Vec<Version>> {
    Ok(state_versions::table
        .filter(state_versions::org_id.eq(tx.org()))
        .filter(state_versions::state_id.eq(state))
        .filter(state_versions::number.lt(below.unwrap_or(i64::MAX)))
        .select(Version::as_select())
        .order(state_versions::number.desc())
        .limit(limit)
        .load(tx)
        .await?)
}
