//! Roles, who has them, and what principals hold by them.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, OptionalExtension, QueryDsl,
    SelectableHelper,
    dsl::sql,
    sql_types::{BigInt, Bool},
};
use diesel_async::RunQueryDsl;
use kit::{
    Result,
    db::Tx,
    ids::{OrgId, Principal, UserId},
    page::PageSize,
};

use super::{api_key, taken};
use crate::{
    model::{ApiKeyId, Held, Holders, Name, Position, Role, RoleContent, RoleId, ServiceAccountId},
    schema::{invitations, organization_members, permissions, roles, service_accounts, users},
    store::own_view,
};

const OPEN: &str = "(accepted_at is null and revoked_at is null and expires_at > clock_timestamp())";

/// A role that can be given in the transaction's organization: its own or the system's.
pub(crate) async fn find(tx: &mut Tx, name: &str) -> Result<Option<Role>> {
    Ok(roles::table
        .filter(
            roles::name
                .eq(name)
                .and(roles::org_id.eq_any([tx.org(), OrgId::PLATFORM])),
        )
        // The system's first: no role of an organization passes for one of them.
        .order(roles::org_id.eq(OrgId::PLATFORM).desc())
        .select(Role::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// As [`find`], by its id.
pub(crate) async fn find_by_id(tx: &mut Tx, id: RoleId) -> Result<Option<Role>> {
    Ok(roles::table
        .filter(roles::org_id.eq_any([tx.org(), OrgId::PLATFORM]).and(roles::id.eq(id)))
        .select(Role::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// The organization's and the system's, by name.
pub(crate) async fn list(tx: &mut Tx, after: Option<(String, RoleId)>, size: PageSize) -> Result<Vec<Role>> {
    let page = roles::table
        .filter(roles::org_id.eq_any([tx.org(), OrgId::PLATFORM]))
        .order((roles::name, roles::id))
        .limit(size.fetch())
        .select(Role::as_select());
    Ok(match after {
        None => page.load(tx).await?,
        Some((name, id)) => {
            let later = roles::name
                .ge(name.clone())
                .and(roles::name.gt(name).or(roles::id.gt(id)));
            page.filter(later).load(tx).await?
        }
    })
}

/// Whether the system has a role of this name; case and blanks around it make no other name.
pub(crate) async fn is_system_name(tx: &mut Tx, name: &Name) -> Result<bool> {
    let folded = name.as_str().trim().to_lowercase();
    let system = roles::table.filter(roles::org_id.eq(OrgId::PLATFORM).and(roles::name.eq(folded)));
    Ok(diesel::select(diesel::dsl::exists(system)).get_result(tx).await?)
}

/// Makes a role of the transaction's organization.
pub(crate) async fn insert(tx: &mut Tx, id: RoleId, content: &RoleContent) -> Result<Role> {
    let role = diesel::insert_into(roles::table)
        .values((
            roles::org_id.eq(tx.org()),
            roles::id.eq(id),
            roles::name.eq(&content.name),
            roles::description.eq(&content.description),
        ))
        .returning(Role::as_returning())
        .get_result(tx)
        .await
        .map_err(|error| taken(error, &[("roles_name_key", "name")]))?;
    insert_grants(tx, id, &content.grants).await?;
    Ok(role)
}

/// Makes a role what it shall be.
pub(crate) async fn update(tx: &mut Tx, id: RoleId, content: &RoleContent) -> Result<Role> {
    tx.changes(own_view::organization(tx.org()));
    let role = diesel::update(roles::table.find((tx.org(), id)))
        .set((
            roles::name.eq(&content.name),
            roles::description.eq(&content.description),
            roles::version.eq(roles::version + 1),
        ))
        .returning(Role::as_returning())
        .get_result(tx)
        .await
        .map_err(|error| taken(error, &[("roles_name_key", "name")]))?;
    delete_grants(tx, id).await?;
    insert_grants(tx, id, &content.grants).await?;
    Ok(role)
}

/// Deletes a role that nobody has. What is over and still names it goes, or goes on without it.
pub(crate) async fn delete(tx: &mut Tx, id: RoleId) -> Result<()> {
    diesel::delete(
        invitations::table.filter(
            invitations::org_id
                .eq(tx.org())
                .and(invitations::role_org_id.eq(tx.org()))
                .and(invitations::role_id.eq(id))
                .and(diesel::dsl::not(sql::<Bool>(OPEN))),
        ),
    )
    .execute(tx)
    .await?;
    diesel::update(
        service_accounts::table.filter(
            service_accounts::org_id
                .eq(tx.org())
                .and(service_accounts::role_org_id.eq(tx.org()))
                .and(service_accounts::role_id.eq(id))
                .and(service_accounts::disabled_at.is_not_null()),
        ),
    )
    .set(service_accounts::role_id.eq(None::<RoleId>))
    .execute(tx)
    .await?;
    delete_grants(tx, id).await?;
    diesel::delete(roles::table.find((tx.org(), id))).execute(tx).await?;
    Ok(())
}

async fn insert_grants(tx: &mut Tx, role: RoleId, grants: &[String]) -> Result<()> {
    let org = tx.org();
    let rows: Vec<_> = grants
        .iter()
        .map(|grant| {
            (
                permissions::org_id.eq(org),
                permissions::role_id.eq(role),
                permissions::permission.eq(grant),
            )
        })
        .collect();
    diesel::insert_into(permissions::table).values(rows).execute(tx).await?;
    Ok(())
}

async fn delete_grants(tx: &mut Tx, role: RoleId) -> Result<()> {
    let of_role = permissions::org_id.eq(tx.org()).and(permissions::role_id.eq(role));
    diesel::delete(permissions::table.filter(of_role)).execute(tx).await?;
    Ok(())
}

/// Who has a role of the transaction's organization.
pub(crate) async fn holders(tx: &mut Tx, id: RoleId) -> Result<Holders> {
    let members = organization_members::table
        .filter(
            organization_members::org_id
                .eq(tx.org())
                .and(organization_members::role_org_id.eq(tx.org()))
                .and(organization_members::role_id.eq(id)),
        )
        .select(sql::<BigInt>("count(*)"))
        .get_result(tx)
        .await?;
    let service_accounts = service_accounts::table
        .filter(
            service_accounts::org_id
                .eq(tx.org())
                .and(service_accounts::role_org_id.eq(tx.org()))
                .and(service_accounts::role_id.eq(id))
                .and(service_accounts::disabled_at.is_null()),
        )
        .select(sql::<BigInt>("count(*)"))
        .get_result(tx)
        .await?;
    let invitations = invitations::table
        .filter(
            invitations::org_id
                .eq(tx.org())
                .and(invitations::role_org_id.eq(tx.org()))
                .and(invitations::role_id.eq(id))
                .and(sql::<Bool>(OPEN)),
        )
        .select(sql::<BigInt>("count(*)"))
        .get_result(tx)
        .await?;
    Ok(Holders {
        members,
        service_accounts,
        invitations,
    })
}

/// What is written in a role, sorted.
pub(crate) async fn list_grants(tx: &mut Tx, org: OrgId, role: RoleId) -> Result<Vec<String>> {
    let mut grants: Vec<String> = permissions::table
        .filter(permissions::org_id.eq(org).and(permissions::role_id.eq(role)))
        .select(permissions::permission)
        .load(tx)
        .await?;
    grants.sort_unstable();
    Ok(grants)
}

/// What a role gives.
pub(crate) async fn held_by_role(tx: &mut Tx, org: OrgId, role: RoleId) -> Result<Held> {
    Ok(Held::of(&list_grants(tx, org, role).await?))
}

/// What a principal holds in the transaction's organization at this moment; nothing for who is not there.
pub(crate) async fn held(tx: &mut Tx, principal: Principal) -> Result<Held> {
    Ok(position(tx, principal)
        .await?
        .map(|position| position.held)
        .unwrap_or_default())
}

/// A principal's role, and what it holds by it; none for who is not there.
pub(crate) async fn position(tx: &mut Tx, principal: Principal) -> Result<Option<Position>> {
    match principal {
        Principal::User(user) => of_member(tx, user).await,
        Principal::ApiKey(id) => {
            let Some(key) = api_key::find_active(tx, ApiKeyId(id)).await? else {
                return Ok(None);
            };
            let owner = match key.service_account_id {
                Some(account) => of_service_account(tx, account).await?,
                None => of_member(tx, key.creator_id).await?,
            };
            Ok(owner.map(|owner| Position {
                held: Held::of(&key.scopes).cut_by(&owner.held),
                ..owner
            }))
        }
        Principal::Job(_) | Principal::Service(_) | Principal::Anonymous => Ok(None),
    }
}

/// Nothing for who is kept out, of the organization or of the account.
async fn of_member(tx: &mut Tx, user: UserId) -> Result<Option<Position>> {
    let role = organization_members::role_org_id
        .eq(roles::org_id)
        .and(organization_members::role_id.eq(roles::id));
    let grant = permissions::org_id
        .eq(roles::org_id)
        .and(permissions::role_id.eq(roles::id));
    let rows: Vec<(Name, Option<String>)> = organization_members::table
        .inner_join(roles::table.on(role))
        .inner_join(users::table.on(users::id.eq(organization_members::user_id)))
        .left_join(permissions::table.on(grant))
        .filter(
            organization_members::org_id
                .eq(tx.org())
                .and(organization_members::user_id.eq(user))
                .and(organization_members::suspended_at.is_null())
                .and(users::suspended_at.is_null())
                .and(users::deleted_at.is_null()),
        )
        .select((roles::name, permissions::permission.nullable()))
        .load(tx)
        .await?;
    Ok(place(rows))
}

/// The place of a service account that is not disabled.
pub(crate) async fn of_service_account(tx: &mut Tx, account: ServiceAccountId) -> Result<Option<Position>> {
    let role = service_accounts::role_org_id
        .eq(roles::org_id)
        .and(service_accounts::role_id.eq(roles::id.nullable()));
    let grant = permissions::org_id
        .eq(roles::org_id)
        .and(permissions::role_id.eq(roles::id));
    let rows: Vec<(Name, Option<String>)> = service_accounts::table
        .inner_join(roles::table.on(role))
        .left_join(permissions::table.on(grant))
        .filter(
            service_accounts::org_id
                .eq(tx.org())
                .and(service_accounts::id.eq(account))
                .and(service_accounts::disabled_at.is_null()),
        )
        .select((roles::name, permissions::permission.nullable()))
        .load(tx)
        .await?;
    Ok(place(rows))
}

/// One row for each grant of one role, or one without a grant.
fn place(rows: Vec<(Name, Option<String>)>) -> Option<Position> {
    let role = rows.as_slice().first()?.0.clone();
    let grants: Vec<String> = rows.into_iter().filter_map(|(_, grant)| grant).collect();
    Some(Position {
        role,
        held: Held::of(&grants),
    })
}
