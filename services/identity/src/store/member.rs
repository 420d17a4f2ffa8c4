//! Members of organizations, seen from the organization and from the member.

use diesel::{BoolExpressionMethods, ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use kit::{
    Result,
    db::Tx,
    ids::{OrgId, UserId},
    page::PageSize,
};
use time::OffsetDateTime;

use crate::{
    model::{Member, Membership, RoleId},
    schema::{organization_members, organizations, permissions, roles, users},
    store::own_view,
};

/// Makes a member of the transaction's organization; `false` for one who is a member already.
pub(crate) async fn insert(tx: &mut Tx, user: UserId, role_org: OrgId, role: RoleId) -> Result<bool> {
    tx.changes(own_view::user(user));
    let made = diesel::insert_into(organization_members::table)
        .values((
            organization_members::org_id.eq(tx.org()),
            organization_members::user_id.eq(user),
            organization_members::role_org_id.eq(role_org),
            organization_members::role_id.eq(role),
        ))
        .on_conflict((organization_members::org_id, organization_members::user_id))
        .do_nothing()
        .execute(tx)
        .await?;
    Ok(made == 1)
}

/// Whether a user is a member of an organization that is not deleted, and kept out neither of it nor of the account.
pub(crate) async fn exists(tx: &mut Tx, org: OrgId, user: UserId) -> Result<bool> {
    let member = organization_members::table
        .inner_join(organizations::table.on(organizations::org_id.eq(organization_members::org_id)))
        .inner_join(users::table.on(users::id.eq(organization_members::user_id)))
        .filter(
            organization_members::org_id
                .eq(org)
                .and(organization_members::user_id.eq(user))
                .and(organization_members::suspended_at.is_null())
                .and(organizations::deleted_at.is_null())
                .and(users::suspended_at.is_null())
                .and(users::deleted_at.is_null()),
        )
        // By name: of an account nobody may read all.
        .select(organization_members::user_id);
    Ok(diesel::select(diesel::dsl::exists(member)).get_result(tx).await?)
}

/// A member and the joined role, or the page of members that follows `after`.
macro_rules! members {
    ($tx:expr) => {
        organization_members::table
            .inner_join(users::table.on(users::id.eq(organization_members::user_id)))
            .inner_join(
                roles::table.on(roles::org_id
                    .eq(organization_members::role_org_id)
                    .and(roles::id.eq(organization_members::role_id))),
            )
            .filter(organization_members::org_id.eq($tx.org()))
            .select((
                users::id,
                users::email,
                users::username,
                users::first_name,
                users::last_name,
                roles::org_id,
                roles::id,
                roles::name,
                organization_members::joined_at,
            ))
    };
}

pub(crate) async fn find(tx: &mut Tx, user: UserId) -> Result<Option<Member>> {
    Ok(members!(tx)
        .filter(organization_members::user_id.eq(user))
        .first(tx)
        .await
        .optional()?)
}

/// Oldest first.
pub(crate) async fn list(tx: &mut Tx, after: Option<(OffsetDateTime, UserId)>, size: PageSize) -> Result<Vec<Member>> {
    let page = members!(tx)
        .order((organization_members::joined_at, organization_members::user_id))
        .limit(size.fetch());
    Ok(match after {
        None => page.load(tx).await?,
        Some((joined_at, user)) => {
            let later = organization_members::joined_at
                .gt(joined_at)
                .or(organization_members::joined_at
                    .eq(joined_at)
                    .and(organization_members::user_id.gt(user)));
            page.filter(later).load(tx).await?
        }
    })
}

/// All members of the transaction's organization: of the platform's, which is small.
pub(crate) async fn list_users(tx: &mut Tx) -> Result<Vec<UserId>> {
    Ok(organization_members::table
        .filter(organization_members::org_id.eq(tx.org()))
        .select(organization_members::user_id)
        .load(tx)
        .await?)
}

/// Makes a member an owner who is not kept out; `false` for one who is it already.
pub(crate) async fn make_owner(tx: &mut Tx, user: UserId) -> Result<bool> {
    tx.changes(own_view::user(user));
    let other = organization_members::role_id
        .ne(RoleId::OWNER)
        .or(organization_members::suspended_at.is_not_null());
    let made = diesel::update(
        organization_members::table.filter(
            organization_members::org_id
                .eq(tx.org())
                .and(organization_members::user_id.eq(user))
                .and(other),
        ),
    )
    .set((
        organization_members::role_org_id.eq(OrgId::PLATFORM),
        organization_members::role_id.eq(RoleId::OWNER),
        organization_members::suspended_at.eq(None::<OffsetDateTime>),
    ))
    .execute(tx)
    .await?;
    Ok(made == 1)
}

pub(crate) async fn update_role(tx: &mut Tx, user: UserId, (role_org, role): (OrgId, RoleId)) -> Result<()> {
    tx.changes(own_view::user(user));
    diesel::update(organization_members::table.find((tx.org(), user)))
        .set((
            organization_members::role_org_id.eq(role_org),
            organization_members::role_id.eq(role),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// Takes a member out of the transaction's organization.
pub(crate) async fn delete(tx: &mut Tx, user: UserId) -> Result<()> {
    tx.changes(own_view::user(user));
    diesel::delete(organization_members::table.find((tx.org(), user)))
        .execute(tx)
        .await?;
    Ok(())
}

/// Whether the organization has an owner besides this user who is not kept out.
pub(crate) async fn other_owner_exists(tx: &mut Tx, user: UserId) -> Result<bool> {
    let account = users::table.on(users::id.eq(organization_members::user_id));
    let others = organization_members::table.inner_join(account).filter(
        organization_members::org_id
            .eq(tx.org())
            .and(organization_members::role_org_id.eq(OrgId::PLATFORM))
            .and(organization_members::role_id.eq(RoleId::OWNER))
            .and(organization_members::suspended_at.is_null())
            .and(users::suspended_at.is_null())
            .and(users::deleted_at.is_null())
            .and(organization_members::user_id.ne(user)),
    );
    Ok(
        diesel::select(diesel::dsl::exists(others.select(organization_members::user_id)))
            .get_result(tx)
            .await?,
    )
}

/// Where a user is a member and not kept out, oldest first and without organizations that are deleted; across organizations, by the policies on `app.user`.
pub(crate) async fn list_memberships(tx: &mut Tx, user: UserId) -> Result<Vec<Membership>> {
    Ok(organization_members::table
        .inner_join(organizations::table.on(organizations::org_id.eq(organization_members::org_id)))
        .inner_join(
            roles::table.on(roles::org_id
                .eq(organization_members::role_org_id)
                .and(roles::id.eq(organization_members::role_id))),
        )
        .filter(
            organization_members::user_id
                .eq(user)
                .and(organization_members::suspended_at.is_null())
                .and(organizations::deleted_at.is_null()),
        )
        .order((organization_members::joined_at, organization_members::org_id))
        .select((
            organizations::org_id,
            organizations::name,
            organizations::slug,
            roles::org_id,
            roles::id,
            roles::name,
            organization_members::joined_at,
        ))
        .load(tx)
        .await?)
}

/// The grants of these roles.
pub(crate) async fn list_grants(tx: &mut Tx, roles: &[(OrgId, RoleId)]) -> Result<Vec<(OrgId, RoleId, String)>> {
    let orgs = roles.iter().map(|(org, _)| *org);
    let ids = roles.iter().map(|(_, id)| *id);
    Ok(permissions::table
        .filter(permissions::org_id.eq_any(orgs).and(permissions::role_id.eq_any(ids)))
        .select((permissions::org_id, permissions::role_id, permissions::permission))
        .load(tx)
        .await?)
}
