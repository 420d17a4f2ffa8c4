//! Service accounts.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, NullableExpressionMethods, OptionalExtension, QueryDsl,
    dsl::sql,
    sql_types::{Nullable, Timestamptz},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, page::PageSize};

use super::taken;
use crate::{
    model::{NewServiceAccount, Role, ServiceAccount, ServiceAccountId},
    schema::{roles, service_accounts},
};

pub(crate) async fn insert(tx: &mut Tx, new: &NewServiceAccount, role: &Role) -> Result<()> {
    diesel::insert_into(service_accounts::table)
        .values((
            service_accounts::org_id.eq(tx.org()),
            service_accounts::id.eq(new.id),
            service_accounts::name.eq(&new.name),
            service_accounts::description.eq(&new.description),
            service_accounts::role_org_id.eq(role.org_id),
            service_accounts::role_id.eq(role.id),
        ))
        .execute(tx)
        .await
        .map_err(|error| taken(error, &[("service_accounts_name_key", "name")]))?;
    Ok(())
}

/// Service accounts and the names of their roles.
macro_rules! service_accounts {
    ($tx:expr) => {
        service_accounts::table
            .left_join(
                roles::table.on(service_accounts::role_org_id
                    .eq(roles::org_id)
                    .and(service_accounts::role_id.eq(roles::id.nullable()))),
            )
            .filter(service_accounts::org_id.eq($tx.org()))
            .select((
                service_accounts::id,
                service_accounts::name,
                service_accounts::description,
                roles::name.nullable(),
                service_accounts::created_at,
                service_accounts::disabled_at,
            ))
    };
}

pub(crate) async fn find(tx: &mut Tx, id: ServiceAccountId) -> Result<Option<ServiceAccount>> {
    Ok(service_accounts!(tx)
        .filter(service_accounts::id.eq(id))
        .first(tx)
        .await
        .optional()?)
}

/// By name.
pub(crate) async fn list(tx: &mut Tx, after: Option<String>, size: PageSize) -> Result<Vec<ServiceAccount>> {
    let page = service_accounts!(tx).order(service_accounts::name).limit(size.fetch());
    Ok(match after {
        None => page.load(tx).await?,
        Some(name) => page.filter(service_accounts::name.gt(name)).load(tx).await?,
    })
}

/// Disables a service account for good; `false` for one that is not there or disabled already.
pub(crate) async fn disable(tx: &mut Tx, id: ServiceAccountId) -> Result<bool> {
    let disabled = diesel::update(
        service_accounts::table
            .find((tx.org(), id))
            .filter(service_accounts::disabled_at.is_null()),
    )
    .set(service_accounts::disabled_at.eq(sql::<Nullable<Timestamptz>>("clock_timestamp()")))
    .execute(tx)
    .await?;
    Ok(disabled == 1)
}
