//! Design, state and reality of each state, as its last whole check saw them.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper, sql_query,
    sql_types::{Array, Bool, Bytea, Integer, Nullable, Text, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use super::{ROWS_AT_ONCE, column};
use crate::{
    model::{
        StateId,
        drift::{Cause, CheckId, check::ViewRow},
    },
    schema::{drift_checks, drift_views},
};

/// Which rows of a view are asked for.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct ViewFilter {
    pub(crate) state: StateId,
    pub(crate) cause: Option<Cause>,
    /// Empty for all.
    pub(crate) address: String,
}

/// Puts a view in the place of the state's last one; the caller holds the state.
pub(crate) async fn replace_view(tx: &mut Tx, (state, check): (StateId, CheckId), rows: &[ViewRow]) -> Result<()> {
    let org = tx.org();
    diesel::delete(drift_views::table)
        .filter(drift_views::org_id.eq(org))
        .filter(drift_views::state_id.eq(state))
        .execute(tx)
        .await?;
    for rows in rows.chunks(ROWS_AT_ONCE) {
        sql_query(
            "insert into drift_views (org_id, state_id, check_id, place, address, resource_type, path, cause, sealed, masked) \
             select $1, $2, $3, place, address, resource_type, path, cause::drift_cause, sealed, masked \
             from unnest($4, $5, $6, $7, $8, $9, $10) as rows (place, address, resource_type, path, cause, sealed, masked)",
        )
        .bind::<SqlUuid, _>(org)
        .bind::<SqlUuid, _>(state)
        .bind::<SqlUuid, _>(check)
        .bind::<Array<Integer>, _>(column(rows, |row| row.place))
        .bind::<Array<Text>, _>(column(rows, |row| row.address.as_str()))
        .bind::<Array<Text>, _>(column(rows, |row| row.resource_type.as_str()))
        .bind::<Array<Text>, _>(column(rows, |row| row.path.as_str()))
        .bind::<Array<Text>, _>(column(rows, |row| row.cause.as_str()))
        .bind::<Array<Nullable<Bytea>>, _>(column(rows, |row| row.sealed.as_deref()))
        .bind::<Array<Bool>, _>(column(rows, |row| row.masked))
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// The state's last whole check, and whether its view has less than all rows.
pub(crate) async fn find_view(tx: &mut Tx, state: StateId) -> Result<Option<(CheckId, bool)>> {
    Ok(drift_checks::table
        .filter(drift_checks::org_id.eq(tx.org()))
        .filter(drift_checks::state_id.eq(state))
        .filter(drift_checks::errored.eq(false))
        .order(drift_checks::number.desc())
        .select((drift_checks::id, drift_checks::truncated))
        .first(tx)
        .await
        .optional()?)
}

/// Rows of a view after a place, in the plan's order; at most `limit`.
pub(crate) async fn list_view(
    tx: &mut Tx,
    filter: &ViewFilter,
    after: Option<i32>,
    limit: usize,
) -> Result<Vec<ViewRow>> {
    let mut query = drift_views::table
        .filter(drift_views::org_id.eq(tx.org()))
        .filter(drift_views::state_id.eq(filter.state))
        .order(drift_views::place.asc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(ViewRow::as_select())
        .into_boxed();
    if let Some(cause) = filter.cause {
        query = query.filter(drift_views::cause.eq(cause));
    }
    if !filter.address.is_empty() {
        query = query.filter(drift_views::address.eq(filter.address.clone()));
    }
    if let Some(after) = after {
        query = query.filter(drift_views::place.gt(after));
    }
    Ok(query.load(tx).await?)
}
