//! Users, as the user's own transaction and their colleagues' see them.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl, QueryableByName,
    SelectableHelper,
    dsl::sql,
    sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use kit::{
    Result,
    db::Tx,
    failpoint,
    ids::{OrgId, UserId},
    page::PageSize,
};

use super::taken;
use crate::{
    model::{Colleague, PendingAccount, Profile, ProfileChange},
    schema::{organization_members, roles, sessions, users},
    store::own_view,
};

diesel::define_sql_function! {
    /// Text as searches compare it.
    fn folded(name: Text) -> Text;
}

/// Comes after every character that a name goes on with.
const END: &str = "\u{10FFFF}";

pub(crate) async fn insert(tx: &mut Tx, user: UserId, new: &PendingAccount) -> Result<()> {
    let unique = [("users_email_key", "email"), ("users_username_key", "username")];
    diesel::insert_into(users::table)
        .values((
            users::id.eq(user),
            users::email.eq(&new.email),
            users::username.eq(&new.username),
            users::first_name.eq(&new.first_name),
            users::last_name.eq(&new.last_name),
            users::password_hash.eq(new.password_hash()),
        ))
        .execute(tx)
        .await
        .map_err(|error| taken(error, &unique))?;
    Ok(())
}

pub(crate) async fn find(tx: &mut Tx, user: UserId) -> Result<Option<Profile>> {
    Ok(users::table
        .find(user)
        .select(Profile::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// Remembers the organization of the latest session, and answers the user's epoch; none for an account that is suspended
/// or deleted. Who suspends or deletes it at the same moment waits, and then ends what was opened.
pub(crate) async fn enter(tx: &mut Tx, user: UserId, org: Option<OrgId>) -> Result<Option<i64>> {
    let row = users::table
        .find(user)
        .filter(users::suspended_at.is_null().and(users::deleted_at.is_null()));
    let Some(org) = org else {
        return Ok(row.select(users::epoch).for_share().first(tx).await.optional()?);
    };
    let epoch = diesel::update(row)
        .set(users::last_org_id.eq(org))
        .returning(users::epoch)
        .get_result(tx)
        .await;
    Ok(epoch.optional()?)
}

/// A user's own account, to be changed: whoever changes it at the same moment waits here.
///
/// The switch `identity.profile_lock` takes the waiting away, for tests.
pub(crate) async fn lock(tx: &mut Tx, user: UserId) -> Result<Option<Profile>> {
    let row = users::table.find(user).filter(users::deleted_at.is_null());
    let profile = row.select(Profile::as_select());
    Ok(if failpoint::without("identity.profile_lock") {
        profile.first(tx).await.optional()?
    } else {
        profile.for_no_key_update().first(tx).await.optional()?
    })
}

/// Writes what is to change of a user.
///
/// # Errors
/// RESOURCE_EXISTS where the user name is another's.
pub(crate) async fn update(tx: &mut Tx, user: UserId, change: &ProfileChange) -> Result<Profile> {
    tx.changes(own_view::user(user));
    diesel::update(users::table.find(user))
        .set((
            change.username.as_ref().map(|name| users::username.eq(name)),
            change.first_name.as_ref().map(|name| users::first_name.eq(name)),
            change.last_name.as_ref().map(|name| users::last_name.eq(name)),
            users::version.eq(users::version + 1),
        ))
        .returning(Profile::as_returning())
        .get_result(tx)
        .await
        .map_err(|error| taken(error, &[("users_username_key", "username")]))
}

/// The members of the transaction's organization as users.
macro_rules! colleagues {
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
                Profile::as_select(),
                roles::name,
                organization_members::joined_at,
                (organization_members::suspended_at, users::suspended_at),
                organization_members::suspended_reason,
            ))
    };
}

/// A member of the transaction's organization.
pub(crate) async fn find_colleague(tx: &mut Tx, user: UserId) -> Result<Option<Colleague>> {
    Ok(colleagues!(tx)
        .filter(organization_members::user_id.eq(user))
        .first(tx)
        .await
        .optional()?)
}

/// By user name: the members of the transaction's organization, or those of whom the user name, the address or a name
/// begins with the query, without case.
pub(crate) async fn list_colleagues(
    tx: &mut Tx,
    query: &str,
    after: Option<&str>,
    size: PageSize,
) -> Result<Vec<Colleague>> {
    let mut page = colleagues!(tx)
        .order(organization_members::search_username)
        .limit(size.fetch())
        .into_boxed();
    if !query.is_empty() {
        // Folded once, not for each row; ranges of the folded columns get through the policies into their indexes.
        let from: String = diesel::select(folded(query)).get_result(tx).await?;
        let to = format!("{from}{END}");
        macro_rules! begins {
            ($column:ident) => {
                organization_members::$column
                    .ge(from.clone())
                    .and(organization_members::$column.lt(to.clone()))
            };
        }
        page = page.filter(
            begins!(search_username)
                .or(begins!(search_email))
                .or(begins!(search_first_name))
                .or(begins!(search_last_name)),
        );
    }
    if let Some(username) = after {
        page = page.filter(organization_members::search_username.gt(username.to_owned()));
    }
    Ok(page.load(tx).await?)
}

/// The organizations that a user is a member of, those among them that keep the user out; in the order of locks.
pub(crate) async fn list_orgs(tx: &mut Tx, user: UserId) -> Result<Vec<OrgId>> {
    Ok(organization_members::table
        .filter(organization_members::user_id.eq(user))
        .order(organization_members::org_id)
        .select(organization_members::org_id)
        .load(tx)
        .await?)
}

/// All organizations that a user ever had a session in, in the order of locks; the platform's for those without one.
pub(crate) async fn list_visited_orgs(tx: &mut Tx, user: UserId) -> Result<Vec<OrgId>> {
    Ok(sessions::table
        .filter(sessions::user_id.eq(user))
        .order(sessions::org_id)
        .select(sessions::org_id)
        .distinct()
        .load(tx)
        .await?)
}

/// Makes an account one that is gone, and answers its last epoch; none if it was gone already.
pub(crate) async fn delete(tx: &mut Tx, user: UserId, known_in: &[OrgId]) -> Result<Option<i64>> {
    tx.changes(own_view::user(user));
    let known_in: Vec<uuid::Uuid> = known_in.iter().map(|org| org.0).collect();
    let gone = diesel::update(users::table.find(user).filter(users::deleted_at.is_null()))
        .set((
            users::deleted_at.eq(sql::<Nullable<Timestamptz>>("clock_timestamp()")),
            users::epoch.eq(users::epoch + 1),
            users::version.eq(users::version + 1),
            users::former_org_ids.eq(known_in),
        ))
        .returning(users::epoch)
        .get_result(tx)
        .await;
    Ok(gone.optional()?)
}

/// An account whose names were overwritten.
#[derive(Debug, QueryableByName)]
pub(crate) struct Anonymized {
    #[diesel(sql_type = SqlUuid)]
    pub(crate) id: UserId,
    #[diesel(sql_type = BigInt)]
    pub(crate) version: i64,
    #[diesel(sql_type = Array<SqlUuid>)]
    pub(crate) former_org_ids: Vec<OrgId>,
}

/// What the names of a deleted account are overwritten with.
pub(crate) const ANONYMOUS: (&str, &str) = ("Deleted", "user");

/// Overwrites what tells of a person in a deleted account.
pub(crate) async fn anonymize(tx: &mut Tx, user: UserId) -> Result<Vec<Anonymized>> {
    anonymize_accounts(tx, Some(user), false, 1).await
}

/// As [`anonymize`], of accounts that were deleted more than 30 days ago.
pub(crate) async fn anonymize_overdue(tx: &mut Tx, most: i32) -> Result<Vec<Anonymized>> {
    anonymize_accounts(tx, None, true, most).await
}

async fn anonymize_accounts(tx: &mut Tx, user: Option<UserId>, overdue: bool, most: i32) -> Result<Vec<Anonymized>> {
    Ok(diesel::sql_query("select * from anonymize_accounts($1, $2, $3)")
        .bind::<Nullable<SqlUuid>, _>(user)
        .bind::<Bool, _>(overdue)
        .bind::<Integer, _>(most)
        .load(tx)
        .await?)
}
