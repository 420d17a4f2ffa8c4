//! The domains of organizations.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, OptionalExtension, QueryDsl, QueryableByName,
    dsl::sql,
    sql_types::{self, Bool},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx, failpoint, ids::OrgId};
use time::OffsetDateTime;

use crate::{
    model::{Domain, DomainVerification, DomainVerificationId},
    schema::{domain_verifications, organization_domains},
};

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

/// Makes a domain the transaction's organization's, whoever had it; answers who did, if it was another. Who claims it at the
/// same moment waits here, and then takes it away from the first.
///
/// The switch `identity.domain_lock` takes the waiting away, for tests.
pub(crate) async fn claim(tx: &mut Tx, domain: &Domain) -> Result<Option<OrgId>> {
    if !failpoint::without("identity.domain_lock") {
        diesel::sql_query("select pg_advisory_xact_lock(hashtextextended('identity.domain.' || $1, 0))")
            .bind::<sql_types::Text, _>(domain.as_str())
            .execute(tx)
            .await?;
    }
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

/// Remembers that a token was sent for a domain; those of the organization that are over are forgotten.
pub(crate) async fn insert_verification(
    tx: &mut Tx,
    id: DomainVerificationId,
    domain: &Domain,
    token_hash: &[u8],
    expires_at: OffsetDateTime,
) -> Result<()> {
    let over = domain_verifications::table
        .filter(domain_verifications::org_id.eq(tx.org()))
        .filter(sql::<Bool>("expires_at <= clock_timestamp()"));
    diesel::delete(over).execute(tx).await?;
    diesel::insert_into(domain_verifications::table)
        .values((
            domain_verifications::org_id.eq(tx.org()),
            domain_verifications::id.eq(id),
            domain_verifications::domain.eq(domain),
            domain_verifications::token_hash.eq(token_hash),
            domain_verifications::expires_at.eq(expires_at),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// A token of the transaction's organization that was sent.
pub(crate) async fn find_verification(tx: &mut Tx, id: DomainVerificationId) -> Result<Option<DomainVerification>> {
    Ok(domain_verifications::table
        .find((tx.org(), id))
        .select((
            domain_verifications::domain,
            domain_verifications::token_hash,
            sql::<Bool>("(expires_at > clock_timestamp())"),
        ))
        .first(tx)
        .await
        .optional()?)
}

/// Makes all tokens of a domain void, and answers which they were.
pub(crate) async fn delete_verifications(tx: &mut Tx, domain: &Domain) -> Result<Vec<DomainVerificationId>> {
    let own = domain_verifications::table.filter(
        domain_verifications::org_id
            .eq(tx.org())
            .and(domain_verifications::domain.eq(domain)),
    );
    Ok(diesel::delete(own)
        .returning(domain_verifications::id)
        .get_results(tx)
        .await?)
}
