//! Organizations.
//!
//! One that is deleted keeps its rows and its slug; only [`find`] and [`find_restorable`] still see it.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, OptionalExtension, QueryDsl,
    SelectableHelper,
    dsl::sql,
    sql_types::{Bool, Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use kit::{
    Result, auth,
    db::Tx,
    failpoint,
    ids::{OrgId, UserId},
    page::PageSize,
};
use time::OffsetDateTime;

use super::taken;
use crate::{
    model::{Name, Organization, OrganizationChange, OrganizationKey, RESTORABLE, RoleId, SessionId, Slug},
    schema::{organization_domains, organization_members, organizations, sessions, users},
    store::own_view,
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

/// The transaction's organization, deleted or not.
pub(crate) async fn find(tx: &mut Tx) -> Result<Option<Organization>> {
    Ok(organizations::table
        .find(tx.org())
        .select(Organization::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// The version of the organization's permissions; `None` if there is no such organization, or not any more.
///
/// Who opens an organization asks this, so a deleted one opens to nobody.
pub(crate) async fn permission_version(tx: &mut Tx) -> Result<Option<i64>> {
    let version = organizations::table
        .find(tx.org())
        .filter(organizations::deleted_at.is_null())
        .select(organizations::permission_version);
    Ok(version.first(tx).await.optional()?)
}

/// Makes the permissions' next version.
pub(crate) async fn update_permission_version(tx: &mut Tx) -> Result<i64> {
    tx.changes(own_view::organization(tx.org()));
    Ok(diesel::update(organizations::table.find(tx.org()))
        .set(organizations::permission_version.eq(organizations::permission_version + 1))
        .returning(organizations::permission_version)
        .get_result(tx)
        .await?)
}

/// The organizations that a user may act in: a member who is not suspended, of one that is not deleted.
macro_rules! entered {
    ($user:expr) => {
        organization_members::table
            .inner_join(organizations::table.on(organizations::org_id.eq(organization_members::org_id)))
            .filter(
                organization_members::user_id
                    .eq($user)
                    .and(organization_members::suspended_at.is_null()),
            )
    };
}

/// An organization that a user may act in; across organizations, by the policies on `app.user`.
pub(crate) async fn find_entered(tx: &mut Tx, user: UserId, key: &OrganizationKey) -> Result<Option<Organization>> {
    let entered = entered!(user)
        .filter(organizations::deleted_at.is_null())
        .select(Organization::as_select());
    let found = match key {
        OrganizationKey::Id(id) => entered.filter(organizations::org_id.eq(id)).first(tx).await,
        OrganizationKey::Slug(slug) => entered.filter(organizations::slug.eq(slug)).first(tx).await,
        OrganizationKey::Domain(domain) => {
            let owner = organization_domains::table
                .filter(organization_domains::domain.eq(domain))
                .select(organization_domains::org_id);
            entered.filter(organizations::org_id.eq_any(owner)).first(tx).await
        }
    };
    Ok(found.optional()?)
}

/// Whether the joined organization is deleted and can still be restored.
fn restorable() -> String {
    format!(
        "(organizations.deleted_at > clock_timestamp() - interval '{} days')",
        RESTORABLE.whole_days()
    )
}

/// Whether the joined member is an owner.
macro_rules! is_owner {
    () => {
        organization_members::role_org_id
            .eq(OrgId::PLATFORM)
            .and(organization_members::role_id.eq(RoleId::OWNER))
    };
}

/// The organizations that a user may act in, oldest membership first, with those of the user's own that can be restored
/// if wanted; each with the time that the user joined.
pub(crate) async fn list_entered(
    tx: &mut Tx,
    user: UserId,
    with_restorable: bool,
    after: Option<(OffsetDateTime, OrgId)>,
    size: PageSize,
) -> Result<Vec<(Organization, OffsetDateTime)>> {
    let own = is_owner!().and(sql::<Nullable<Bool>>(&restorable()));
    let shown = organizations::deleted_at.is_null().nullable().or(own
        .nullable()
        .and(sql::<Nullable<Bool>>(if with_restorable { "true" } else { "false" })));
    let page = entered!(user)
        .filter(shown)
        .order((organization_members::joined_at, organization_members::org_id))
        .select((Organization::as_select(), organization_members::joined_at))
        .limit(size.fetch());
    Ok(match after {
        None => page.load(tx).await?,
        Some((joined_at, org)) => {
            let later = organization_members::joined_at
                .gt(joined_at)
                .or(organization_members::joined_at
                    .eq(joined_at)
                    .and(organization_members::org_id.gt(org)));
            page.filter(later).load(tx).await?
        }
    })
}

/// An organization that a user owns and that can be restored.
pub(crate) async fn find_restorable(tx: &mut Tx, user: UserId, org: OrgId) -> Result<Option<Organization>> {
    Ok(entered!(user)
        .filter(organizations::org_id.eq(org))
        .filter(is_owner!())
        .filter(sql::<Nullable<Bool>>(&restorable()))
        .select(Organization::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// How many organizations a user owns, those that can be restored among them; whoever founds another at the same moment
/// waits here.
///
/// The switch `identity.founder_lock` takes the waiting away, for tests.
pub(crate) async fn count_owned(tx: &mut Tx, user: UserId) -> Result<Option<i64>> {
    if !failpoint::without("identity.founder_lock") {
        let founder = users::table.find(user).select(users::id);
        let there: Option<UserId> = founder.for_no_key_update().first(tx).await.optional()?;
        if there.is_none() {
            return Ok(None);
        }
    }
    let open = organizations::deleted_at.is_null().nullable();
    let owned = entered!(user)
        .filter(is_owner!())
        .filter(open.or(sql::<Nullable<Bool>>(&restorable())))
        .count();
    Ok(Some(owned.get_result(tx).await?))
}

/// Writes what is to change of the transaction's organization.
///
/// # Errors
/// RESOURCE_EXISTS where the slug is another's.
pub(crate) async fn update(tx: &mut Tx, change: &OrganizationChange) -> Result<Organization> {
    tx.changes(own_view::organization(tx.org()));
    diesel::update(organizations::table.find(tx.org()))
        .set((
            change.name.as_ref().map(|name| organizations::name.eq(name)),
            change.slug.as_ref().map(|slug| organizations::slug.eq(slug)),
            organizations::version.eq(organizations::version + 1),
        ))
        .returning(Organization::as_returning())
        .get_result(tx)
        .await
        .map_err(|error| taken(error, &[("organizations_slug_key", "slug")]))
}

/// Notes that what belongs to the transaction's organization has changed.
pub(crate) async fn update_version(tx: &mut Tx) -> Result<Organization> {
    Ok(diesel::update(organizations::table.find(tx.org()))
        .set(organizations::version.eq(organizations::version + 1))
        .returning(Organization::as_returning())
        .get_result(tx)
        .await?)
}

/// Deletes the transaction's organization, or brings it back.
pub(crate) async fn update_deleted(tx: &mut Tx, deleted: bool) -> Result<Organization> {
    tx.changes(own_view::organization(tx.org()));
    let at = if deleted { "clock_timestamp()" } else { "null" };
    Ok(diesel::update(organizations::table.find(tx.org()))
        .set((
            organizations::deleted_at.eq(sql::<Nullable<Timestamptz>>(at)),
            organizations::version.eq(organizations::version + 1),
        ))
        .returning(Organization::as_returning())
        .get_result(tx)
        .await?)
}

/// Ends all sessions of the transaction's organization, or one member's, and answers those of which an access token may
/// still be about.
pub(crate) async fn revoke_sessions(tx: &mut Tx, of: Option<UserId>) -> Result<Vec<SessionId>> {
    // A token comes with an opening or a rotation, and lives so long; twice that for clocks that differ.
    let seconds = 2 * auth::token::ACCESS_LIFETIME.as_secs();
    let has_tokens = format!("(greatest(created_at, rotated_at) > clock_timestamp() - interval '{seconds} seconds')");
    let standing = sessions::org_id.eq(tx.org()).and(sessions::revoked_at.is_null());
    // In one order, so that two who end the same ones wait for each other and not both.
    let all = sessions::table.select(sessions::id).order(sessions::id);
    let ids: Vec<SessionId> = match of {
        Some(user) => {
            let theirs = all.filter(standing.and(sessions::user_id.eq(user)));
            theirs.for_update().load(tx).await?
        }
        None => all.filter(standing).for_update().load(tx).await?,
    };
    let revoked: Vec<(SessionId, bool)> =
        diesel::update(sessions::table.filter(sessions::org_id.eq(tx.org()).and(sessions::id.eq_any(ids))))
            .set((
                sessions::revoked_at.eq(sql::<Nullable<Timestamptz>>("clock_timestamp()")),
                sessions::successor.eq(None::<Vec<u8>>),
            ))
            .returning((sessions::id, sql::<Bool>(&has_tokens)))
            .load(tx)
            .await?;
    Ok(revoked
        .into_iter()
        .filter_map(|(id, has_tokens)| has_tokens.then_some(id))
        .collect())
}
