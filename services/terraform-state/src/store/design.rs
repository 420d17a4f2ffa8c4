//! The projection of designs; written by the worker alone.

use diesel::{ExpressionMethods, QueryDsl, query_dsl::methods::FilterDsl, upsert::excluded};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::{
    model::DesignId,
    schema::{clock_timestamp, designs},
};

/// Notes whether a design is there as of a revision; an older revision than the one known changes nothing.
pub(crate) async fn upsert(tx: &mut Tx, design: DesignId, revision: i64, deleted: bool) -> Result<()> {
    let insert = diesel::insert_into(designs::table)
        .values((
            designs::org_id.eq(tx.org()),
            designs::design_id.eq(design),
            designs::deleted.eq(deleted),
            designs::revision.eq(revision),
        ))
        .on_conflict((designs::org_id, designs::design_id))
        .do_update()
        .set((
            designs::deleted.eq(excluded(designs::deleted)),
            designs::revision.eq(excluded(designs::revision)),
            designs::updated_at.eq(clock_timestamp()),
        ));
    FilterDsl::filter(insert, designs::revision.lt(excluded(designs::revision)))
        .execute(tx)
        .await?;
    Ok(())
}

/// Whether there is such a design, as far as is known here.
pub(crate) async fn exists(tx: &mut Tx, design: DesignId) -> Result<bool> {
    let found = QueryDsl::filter(
        QueryDsl::find(designs::table, (tx.org(), design)),
        designs::deleted.eq(false),
    );
    Ok(diesel::select(diesel::dsl::exists(found)).get_result(tx).await?)
}
