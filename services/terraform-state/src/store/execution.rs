//! The projection of executions: whose states keep all of their versions. Written by the worker alone.

use diesel::{ExpressionMethods, QueryDsl, query_dsl::methods::FilterDsl, upsert::excluded};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};
use uuid::Uuid;

use crate::{model::state::StateName, schema::executions};

/// Notes where an execution stands as of a revision; an older revision than the one known changes nothing.
pub(crate) async fn upsert(tx: &mut Tx, execution: Uuid, state: &StateName, live: bool, revision: i64) -> Result<()> {
    let insert = diesel::insert_into(executions::table)
        .values((
            executions::org_id.eq(tx.org()),
            executions::execution_id.eq(execution),
            executions::state_name.eq(state),
            executions::live.eq(live),
            executions::revision.eq(revision),
        ))
        .on_conflict((executions::org_id, executions::execution_id))
        .do_update()
        .set((
            executions::live.eq(excluded(executions::live)),
            executions::revision.eq(excluded(executions::revision)),
        ));
    FilterDsl::filter(insert, executions::revision.lt(excluded(executions::revision)))
        .execute(tx)
        .await?;
    Ok(())
}

/// Whether an execution of this state has not come to its end.
pub(crate) async fn is_live(tx: &mut Tx, state: &StateName) -> Result<bool> {
    let live = QueryDsl::filter(executions::table, executions::org_id.eq(tx.org()));
    let live = QueryDsl::filter(live, executions::state_name.eq(state));
    let live = QueryDsl::filter(live, executions::live);
    Ok(diesel::select(diesel::dsl::exists(live)).get_result(tx).await?)
}
