//! Jobs that took a lock or have ended. Who holds a job's row takes a state's only after it.

use diesel::{
    ExpressionMethods, NullableExpressionMethods, QueryDsl,
    dsl::sql,
    sql_types::{Nullable, Timestamptz},
    upsert::excluded,
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};
use time::OffsetDateTime;

use crate::{
    model::PrincipalId,
    schema::{clock_timestamp, lock_jobs},
};

/// Since when it is kept that a job has ended; no gate admits one for as long after.
const KEPT_SINCE: &str = "clock_timestamp() - interval '2 days'";

/// Holds a job until the transaction ends, and says whether it has ended.
pub(crate) async fn hold(tx: &mut Tx, job: PrincipalId) -> Result<bool> {
    let ended: Option<OffsetDateTime> = diesel::insert_into(lock_jobs::table)
        .values((lock_jobs::org_id.eq(tx.org()), lock_jobs::job_id.eq(job)))
        .on_conflict((lock_jobs::org_id, lock_jobs::job_id))
        .do_update()
        .set(lock_jobs::job_id.eq(excluded(lock_jobs::job_id)))
        .returning(lock_jobs::ended_at)
        .get_result(tx)
        .await?;
    Ok(ended.is_some())
}

/// Notes that a job has ended, and holds it until the transaction ends. What was noted long ago is forgotten.
pub(crate) async fn upsert_ended(tx: &mut Tx, job: PrincipalId) -> Result<()> {
    diesel::insert_into(lock_jobs::table)
        .values((
            lock_jobs::org_id.eq(tx.org()),
            lock_jobs::job_id.eq(job),
            lock_jobs::ended_at.eq(clock_timestamp().nullable()),
        ))
        .on_conflict((lock_jobs::org_id, lock_jobs::job_id))
        .do_update()
        .set(lock_jobs::ended_at.eq(excluded(lock_jobs::ended_at)))
        .execute(tx)
        .await?;
    diesel::delete(
        lock_jobs::table
            .filter(lock_jobs::org_id.eq(tx.org()))
            .filter(lock_jobs::ended_at.lt(sql::<Nullable<Timestamptz>>(KEPT_SINCE))),
    )
    .execute(tx)
    .await?;
    Ok(())
}
