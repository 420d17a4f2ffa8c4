//! Drift logs: what was found is written once; where it stands is changed by checks and people, who hold the state.

mod check;
mod rule;
mod summary;
mod view;

pub(crate) use self::{
    check::{insert_check, insert_sightings},
    rule::{count_rules, delete_rule, insert_rule, list_rules, list_rules_for},
    summary::{Numbers, summary},
    view::{ViewFilter, find_view, list_view, replace_view},
};

use diesel::{
    BoolExpressionMethods, ExpressionMethods, JoinOnDsl, OptionalExtension, QueryDsl, SelectableHelper,
    dsl::{exists, now, sql},
    sql_query,
    sql_types::{Array, BigInt, Bool, Bytea, Nullable, Text, Timestamptz, Uuid as SqlUuid},
};
use diesel_async::RunQueryDsl;
use kit::{Error, Result, db::Tx};

use crate::{
    model::{
        Caller, StateId,
        drift::{
            Change, CheckId, DriftFilter, DriftLog, DriftLogId, DriftStatus, NewDriftLog, Severity,
            life::{Known, Move},
        },
    },
    schema::{drift_changes, drift_logs, drift_sightings, sql_types::PrincipalEnum},
};

/// Rows of one statement.
const ROWS_AT_ONCE: usize = 1_000;

/// Writes the logs that a check is the first to see.
pub(crate) async fn insert(tx: &mut Tx, (state, check): (StateId, CheckId), logs: &[NewDriftLog]) -> Result<()> {
    for logs in logs.chunks(ROWS_AT_ONCE) {
        sql_query(
            "insert into drift_logs (org_id, state_id, check_id, last_check_id, id, address, resource_type, kind, path, before, after, \
             masked, fingerprint, status, severity) \
             select $1, $2, $3, $3, id, address, resource_type, kind::drift_kind, path, before, after, masked, fingerprint, \
             status::drift_status, severity::drift_severity \
             from unnest($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) as logs \
             (id, address, resource_type, kind, path, before, after, masked, fingerprint, status, severity)",
        )
        .bind::<SqlUuid, _>(tx.org())
        .bind::<SqlUuid, _>(state)
        .bind::<SqlUuid, _>(check)
        .bind::<Array<SqlUuid>, _>(column(logs, |log| log.id))
        .bind::<Array<Text>, _>(column(logs, |log| log.address.as_str()))
        .bind::<Array<Text>, _>(column(logs, |log| log.resource_type.as_str()))
        .bind::<Array<Text>, _>(column(logs, |log| log.kind.as_str()))
        .bind::<Array<Text>, _>(column(logs, |log| log.path.as_str()))
        .bind::<Array<Nullable<Bytea>>, _>(column(logs, |log| log.before.as_deref()))
        .bind::<Array<Nullable<Bytea>>, _>(column(logs, |log| log.after.as_deref()))
        .bind::<Array<Bool>, _>(column(logs, |log| log.masked))
        .bind::<Array<Bytea>, _>(column(logs, |log| log.fingerprint.as_slice()))
        .bind::<Array<Text>, _>(column(logs, |log| log.status.as_str()))
        .bind::<Array<Text>, _>(column(logs, |log| log.severity.as_str()))
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// One column of rows.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// What is known of a state: all that is not resolved, and what is resolved of these fingerprints; oldest first.
pub(crate) async fn list_known(tx: &mut Tx, state: StateId, prints: &[Vec<u8>]) -> Result<Vec<Known>> {
    Ok(drift_logs::table
        .filter(drift_logs::org_id.eq(tx.org()))
        .filter(drift_logs::state_id.eq(state))
        .filter(
            drift_logs::status
                .eq_any([
                    DriftStatus::Open,
                    DriftStatus::Acknowledged,
                    DriftStatus::Accepted,
                    DriftStatus::Reopened,
                    DriftStatus::Ignored,
                ])
                .or(drift_logs::fingerprint.eq_any(prints)),
        )
        .order(drift_logs::id.asc())
        .select(Known::as_select())
        .load(tx)
        .await?)
}

/// Writes the fingerprints that these have from now on.
pub(crate) async fn update_prints(tx: &mut Tx, renewed: &[(DriftLogId, [u8; 32])]) -> Result<()> {
    for renewed in renewed.chunks(ROWS_AT_ONCE) {
        sql_query(
            "update drift_logs set fingerprint = renewed.fingerprint from unnest($2, $3) as renewed (id, fingerprint) \
             where drift_logs.org_id = $1 and drift_logs.id = renewed.id",
        )
        .bind::<SqlUuid, _>(tx.org())
        .bind::<Array<SqlUuid>, _>(column(renewed, |(id, _)| *id))
        .bind::<Array<Bytea>, _>(column(renewed, |(_, print)| print.as_slice()))
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// Says that a check has seen these.
pub(crate) async fn update_seen(tx: &mut Tx, ids: &[DriftLogId], check: CheckId) -> Result<()> {
    let org = tx.org();
    diesel::update(drift_logs::table)
        .filter(drift_logs::org_id.eq(org))
        .filter(drift_logs::id.eq_any(ids))
        .set((
            drift_logs::last_check_id.eq(check),
            drift_logs::last_seen_at.eq(now),
            drift_logs::times_seen.eq(drift_logs::times_seen + 1),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// Says that these are as bad as this.
pub(crate) async fn update_severity(tx: &mut Tx, ids: &[DriftLogId], severity: Severity) -> Result<()> {
    let org = tx.org();
    diesel::update(drift_logs::table)
        .filter(drift_logs::org_id.eq(org))
        .filter(drift_logs::id.eq_any(ids))
        .set(drift_logs::severity.eq(severity))
        .execute(tx)
        .await?;
    Ok(())
}

/// Says where these stand.
pub(crate) async fn update_status(tx: &mut Tx, ids: &[DriftLogId], status: DriftStatus) -> Result<()> {
    let org = tx.org();
    let these = drift_logs::table
        .filter(drift_logs::org_id.eq(org))
        .filter(drift_logs::id.eq_any(ids));
    match status {
        DriftStatus::Resolved => {
            let set = (
                drift_logs::status.eq(status),
                drift_logs::resolved_at.eq(sql::<Nullable<Timestamptz>>("now()")),
            );
            diesel::update(these).set(set).execute(tx).await?
        }
        DriftStatus::Open | DriftStatus::Reopened => {
            let set = (
                drift_logs::status.eq(status),
                drift_logs::opened_at.eq(now),
                drift_logs::resolved_at.eq(None::<time::OffsetDateTime>),
            );
            diesel::update(these).set(set).execute(tx).await?
        }
        DriftStatus::Acknowledged | DriftStatus::Accepted | DriftStatus::Ignored => {
            let set = (
                drift_logs::status.eq(status),
                drift_logs::resolved_at.eq(None::<time::OffsetDateTime>),
            );
            diesel::update(these).set(set).execute(tx).await?
        }
    };
    Ok(())
}

/// Who changes drift logs, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By<'a> {
    /// A check.
    Check(CheckId),
    /// A person or a key.
    Caller(Caller, &'a str),
}

/// Writes what happened to drift logs of a state, which the caller holds; each has the next number.
pub(crate) async fn insert_changes(
    tx: &mut Tx,
    state: StateId,
    changes: &[(DriftLogId, Option<DriftStatus>, DriftStatus)],
    by: By<'_>,
) -> Result<()> {
    let mut number = last_change(tx, state).await?;
    let (check, caller, reason) = match by {
        By::Check(check) => (Some(check), None, ""),
        By::Caller(caller, reason) => (None, Some(caller), reason),
    };
    for changes in changes.chunks(ROWS_AT_ONCE) {
        sql_query(
            "insert into drift_changes (org_id, state_id, reason, actor_kind, actor_id, check_id, number, drift_log_id, before, after) \
             select $1, $2, $3, $4, $5, $6, $7 + place, drift_log_id, before::drift_status, after::drift_status \
             from unnest($8, $9, $10) with ordinality as changes (drift_log_id, before, after, place)",
        )
        .bind::<SqlUuid, _>(tx.org())
        .bind::<SqlUuid, _>(state)
        .bind::<Text, _>(reason)
        .bind::<Nullable<PrincipalEnum>, _>(caller.map(|caller| caller.kind))
        .bind::<Nullable<SqlUuid>, _>(caller.map(|caller| caller.id))
        .bind::<Nullable<SqlUuid>, _>(check)
        .bind::<BigInt, _>(number)
        .bind::<Array<SqlUuid>, _>(column(changes, |(log, ..)| *log))
        .bind::<Array<Nullable<Text>>, _>(column(changes, |(_, before, _)| before.map(DriftStatus::as_str)))
        .bind::<Array<Text>, _>(column(changes, |(.., after)| after.as_str()))
        .execute(tx)
        .await?;
        number += i64::try_from(changes.len()).map_err(Error::internal)?;
    }
    Ok(())
}

/// The number of the last change of a state's drift logs; 0 before the first.
pub(crate) async fn last_change(tx: &mut Tx, state: StateId) -> Result<i64> {
    let last: Option<i64> = drift_changes::table
        .filter(drift_changes::org_id.eq(tx.org()))
        .filter(drift_changes::state_id.eq(state))
        .order(drift_changes::number.desc())
        .select(drift_changes::number)
        .first(tx)
        .await
        .optional()?;
    Ok(last.unwrap_or(0))
}

/// What happened to a state's drift logs after a change, in order, each with its drift log; at most `limit`.
pub(crate) async fn list_changes(
    tx: &mut Tx,
    state: StateId,
    after: i64,
    limit: i64,
) -> Result<Vec<(Change, DriftLog)>> {
    Ok(drift_changes::table
        .inner_join(
            drift_logs::table.on(drift_logs::org_id
                .eq(drift_changes::org_id)
                .and(drift_logs::id.eq(drift_changes::drift_log_id))),
        )
        .filter(drift_changes::org_id.eq(tx.org()))
        .filter(drift_changes::state_id.eq(state))
        .filter(drift_changes::number.gt(after))
        .order(drift_changes::number.asc())
        .limit(limit)
        .select((Change::as_select(), DriftLog::as_select()))
        .load(tx)
        .await?)
}

/// What happened to a drift log, newest first; at most `limit`.
pub(crate) async fn list_changes_of(tx: &mut Tx, log: DriftLogId, limit: i64) -> Result<Vec<Change>> {
    Ok(drift_changes::table
        .filter(drift_changes::org_id.eq(tx.org()))
        .filter(drift_changes::drift_log_id.eq(log))
        .order(drift_changes::number.desc())
        .limit(limit)
        .select(Change::as_select())
        .load(tx)
        .await?)
}

/// A drift log.
pub(crate) async fn find(tx: &mut Tx, id: DriftLogId) -> Result<Option<DriftLog>> {
    Ok(drift_logs::table
        .find((tx.org(), id))
        .select(DriftLog::as_select())
        .first(tx)
        .await
        .optional()?)
}

/// Drift logs, newest first, older than `after`; at most `limit`.
pub(crate) async fn list(
    tx: &mut Tx,
    filter: &DriftFilter,
    after: Option<DriftLogId>,
    limit: usize,
) -> Result<Vec<DriftLog>> {
    let org = tx.org();
    let mut query = drift_logs::table
        .filter(drift_logs::org_id.eq(org))
        .select(DriftLog::as_select())
        .order(drift_logs::id.desc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .into_boxed();
    if let Some(state) = filter.state {
        query = query.filter(drift_logs::state_id.eq(state));
    }
    if let Some(check) = filter.check {
        query = query.filter(exists(
            drift_sightings::table
                .filter(drift_sightings::org_id.eq(drift_logs::org_id))
                .filter(drift_sightings::check_id.eq(check))
                .filter(drift_sightings::drift_log_id.eq(drift_logs::id)),
        ));
    }
    if let Some(status) = filter.status {
        query = query.filter(drift_logs::status.eq(status));
    }
    if let Some(severity) = filter.severity {
        query = query.filter(drift_logs::severity.eq(severity));
    }
    if let Some(after) = after {
        query = query.filter(drift_logs::id.lt(after));
    }
    Ok(query.load(tx).await?)
}

/// The moves by where they lead, which is how they are written.
pub(crate) async fn update_moves(tx: &mut Tx, moves: &[Move]) -> Result<()> {
    for status in [
        DriftStatus::Open,
        DriftStatus::Acknowledged,
        DriftStatus::Accepted,
        DriftStatus::Resolved,
        DriftStatus::Reopened,
        DriftStatus::Ignored,
    ] {
        let ids: Vec<DriftLogId> = moves.iter().filter(|it| it.after == status).map(|it| it.id).collect();
        if !ids.is_empty() {
            update_status(tx, &ids, status).await?;
        }
    }
    Ok(())
}
