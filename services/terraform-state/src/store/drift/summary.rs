//! How things stand, in numbers.

use diesel::{
    QueryableByName, sql_query,
    sql_types::{BigInt, Double, Integer, Nullable, Uuid},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::model::StateId;

/// How many drift logs stand where, and how the last days were.
#[derive(Clone, Copy, Debug, QueryableByName)]
pub(crate) struct Numbers {
    #[diesel(sql_type = BigInt)]
    pub(crate) critical: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) warning: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) info: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) accepted: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) ignored: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) drifted_states: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) checks: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) drifted_checks: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) errored_checks: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) found: i64,
    #[diesel(sql_type = BigInt)]
    pub(crate) resolved: i64,
    /// Seconds.
    #[diesel(sql_type = Nullable<Double>)]
    pub(crate) mean_open: Option<f64>,
}

/// Of an organization, or of one state of it.
pub(crate) async fn summary(tx: &mut Tx, state: Option<StateId>, days: i32) -> Result<Numbers> {
    let org = tx.org();
    Ok(sql_query(
        "select standing.*, checked.*, lived.* from
          (select
            count(*) filter (where counts and severity = 'critical') as critical,
            count(*) filter (where counts and severity = 'warning') as warning,
            count(*) filter (where counts and severity = 'info') as info,
            count(*) filter (where status = 'accepted') as accepted,
            count(*) filter (where status = 'ignored') as ignored,
            count(distinct state_id) filter (where counts) as drifted_states
          from (
            select state_id, status, severity, status in ('open', 'acknowledged', 'reopened') as counts from drift_logs
            where org_id = $1 and status in ('open', 'acknowledged', 'reopened', 'accepted', 'ignored')
              and ($2 is null or state_id = $2)
          ) standing) as standing,
          (select
            count(*) filter (where not errored) as checks,
            count(*) filter (where not errored and drifted_resources > 0) as drifted_checks,
            count(*) filter (where errored) as errored_checks
          from drift_checks
          where org_id = $1 and checked_at >= now() - make_interval(days => $3) and ($2 is null or state_id = $2)) as checked,
          (select
            (select count(*) from drift_logs
              where org_id = $1 and detected_at >= now() - make_interval(days => $3) and ($2 is null or state_id = $2)
            ) as found,
            count(*) as resolved,
            (extract(epoch from avg(resolved_at - opened_at)))::float8 as mean_open
          from drift_logs
          where org_id = $1 and resolved_at >= now() - make_interval(days => $3) and ($2 is null or state_id = $2)) as lived",
    )
    .bind::<Uuid, _>(org)
    .bind::<Nullable<Uuid>, _>(state)
    .bind::<Integer, _>(days)
    .get_result(tx)
    .await?)
}
