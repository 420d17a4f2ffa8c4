//! The domains of organizations.

use diesel::{BoolExpressionMethods, ExpressionMethods, QueryDsl, QueryableByName, sql_types};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, ids::OrgId};

use crate::{model::Domain, schema::organization_domains};

#[derive(QueryableByName)]
struct Claimed {
    #[diesel(sql_type = sql_types::Nullable<sql_types::Uuid>)]
    previous: Option<OrgId>,
}

/// The domains of these organizations, sorted; across organizations, by the policies on `app.user`.
pub(crate) async fn list(tx: &mut Tx, orgs: &[OrgId]) -> Result<Vec<(OrgId, Domain)>> {
    // Bytewise: what is sorted here is sorted everywhere.
    let mut domains: Vec<(OrgId, Domain)> = organization_domains::table
        .filter(organization_domains::org_id.eq_any(orgs))
        .select((organization_domains::org_id, organization_domains::domain))
        .load(tx)
        .await?;
    domains.sort();
    Ok(domains)
}

/// Makes a domain the transaction's organization's, whoever had it; answers who did, if it was another.
pub(crate) async fn claim(tx: &mut Tx, domain: &Domain) -> Result<Option<OrgId>> {
    let claimed: Claimed = diesel::sql_query("select claim_domain($1) as previous")
        .bind::<sql_types::Text, _>(domain.as_str())
        .get_result(tx)
        .await?;
    Ok(claimed.previous)
}

/// Takes a domain away from the transaction's organization; `false` for one that it has not.
pub(crate) async fn delete(tx: &mut Tx, domain: &Domain) -> Result<bool> {
    let own = organization_domains::table.filter(
        organization_domains::org_id
            .eq(tx.org())
            .and(organization_domains::domain.eq(domain)),
    );
    Ok(diesel::delete(own).execute(tx).await? == 1)
}
