//! Organizations.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, failpoint, ids::OrgId};

use crate::{
    model::{Name, Slug},
    schema::organizations,
};

/// Makes the transaction's organization; `false` where the slug is taken, and nothing has happened.
pub(crate) async fn insert(tx: &mut Tx, name: &Name, slug: &Slug) -> Result<bool> {
    let made = diesel::insert_into(organizations::table)
        .values((
            organizations::org_id.eq(tx.org()),
            organizations::name.eq(name),
            organizations::slug.eq(slug),
        ))
        .on_conflict(organizations::slug)
        .do_nothing()
        .execute(tx)
        .await?;
    Ok(made == 1)
}

/// Holds off all other changes of members and roles until the transaction ends.
///
/// The switch `identity.organization_lock` lets them through, for tests.
pub(crate) async fn lock(tx: &mut Tx) -> Result<()> {
    if failpoint::without("identity.organization_lock") {
        return Ok(());
    }
    let organization = organizations::table.find(tx.org()).select(organizations::org_id);
    organization.for_update().first::<OrgId>(tx).await?;
    Ok(())
}

/// Keeps the organization's members as they are until the transaction ends, for one of them to come in: who is suspended
/// or removed at the same moment is either seen here, or sees the session that was opened.
///
/// The switch `identity.entry_lock` lets changes through, for tests.
pub(crate) async fn lock_entry(tx: &mut Tx) -> Result<()> {
    if failpoint::without("identity.entry_lock") {
        return Ok(());
    }
    let organization = organizations::table.find(tx.org()).select(organizations::org_id);
    organization.for_key_share().first::<OrgId>(tx).await?;
    Ok(())
}

/// The version of the organization's permissions; `None` if there is no such organization.
pub(crate) async fn permission_version(tx: &mut Tx) -> Result<Option<i64>> {
    let version = organizations::table
        .find(tx.org())
        .select(organizations::permission_version);
    Ok(version.first(tx).await.optional()?)
}

/// Makes the permissions' next version.
pub(crate) async fn update_permission_version(tx: &mut Tx) -> Result<i64> {
    Ok(diesel::update(organizations::table.find(tx.org()))
        .set(organizations::permission_version.eq(organizations::permission_version + 1))
        .returning(organizations::permission_version)
        .get_result(tx)
        .await?)
}
