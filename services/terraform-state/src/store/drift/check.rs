//! Checks, and which drift logs each saw.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, sql_query,
    sql_types::{Array, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use super::ROWS_AT_ONCE;
use crate::{
    model::{
        StateId,
        drift::{CheckId, DriftLogId, check::CheckRow},
    },
    schema::{drift_checks, drift_sightings},
};

/// Of a state's older checks it is not known what they saw.
const MOST_CHECKS: i64 = 100;

/// Writes a check of a state, which the caller holds; it has the state's next number.
pub(crate) async fn insert_check(tx: &mut Tx, check: CheckRow) -> Result<()> {
    let last: Option<i64> = drift_checks::table
        .filter(drift_checks::org_id.eq(tx.org()))
        .filter(drift_checks::state_id.eq(check.state_id))
        .order(drift_checks::number.desc())
        .select(drift_checks::number)
        .first(tx)
        .await
        .optional()?;
    let (state, number) = (check.state_id, last.unwrap_or(0) + 1);
    diesel::insert_into(drift_checks::table)
        .values(CheckRow { number, ..check })
        .execute(tx)
        .await?;
    forget(tx, state, number - MOST_CHECKS).await
}

/// Forgets what a check saw.
async fn forget(tx: &mut Tx, state: StateId, number: i64) -> Result<()> {
    let org = tx.org();
    let check: Option<CheckId> = drift_checks::table
        .filter(drift_checks::org_id.eq(org))
        .filter(drift_checks::state_id.eq(state))
        .filter(drift_checks::number.eq(number))
        .select(drift_checks::id)
        .first(tx)
        .await
        .optional()?;
    let Some(check) = check else { return Ok(()) };
    diesel::delete(drift_sightings::table)
        .filter(drift_sightings::org_id.eq(org))
        .filter(drift_sightings::check_id.eq(check))
        .execute(tx)
        .await?;
    Ok(())
}

/// Writes what a check saw.
pub(crate) async fn insert_sightings(tx: &mut Tx, check: CheckId, logs: &[DriftLogId]) -> Result<()> {
    for logs in logs.chunks(ROWS_AT_ONCE) {
        sql_query("insert into drift_sightings (org_id, check_id, drift_log_id) select $1, $2, * from unnest($3)")
            .bind::<SqlUuid, _>(tx.org())
            .bind::<SqlUuid, _>(check)
            .bind::<Array<SqlUuid>, _>(logs)
            .execute(tx)
            .await?;
    }
    Ok(())
}
