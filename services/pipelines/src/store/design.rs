//! The projection of designs; written by the worker alone.

use diesel::{
    ExpressionMethods, OptionalExtension, QueryDsl, SelectableHelper, query_dsl::methods::FilterDsl, upsert::excluded,
};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::{
    model::{DesignId, design::Design},
    schema::{clock_timestamp, designs},
};

/// Notes a design as of a revision; an older revision than the one known changes nothing.
pub(crate) async fn upsert(tx: &mut Tx, design: &Design) -> Result<()> {
    let insert = diesel::insert_into(designs::table)
        .values((
            designs::org_id.eq(tx.org()),
            designs::design_id.eq(design.design_id),
            designs::name.eq(&design.name),
            designs::latest_version.eq(design.latest_version),
            designs::deleted.eq(design.deleted),
            designs::revision.eq(design.revision),
        ))
        .on_conflict((designs::org_id, designs::design_id))
        .do_update()
        .set((
            designs::name.eq(excluded(designs::name)),
            designs::latest_version.eq(excluded(designs::latest_version)),
            designs::deleted.eq(excluded(designs::deleted)),
            designs::revision.eq(excluded(designs::revision)),
            designs::updated_at.eq(clock_timestamp()),
        ));
    FilterDsl::filter(insert, designs::revision.lt(excluded(designs::revision)))
        .execute(tx)
        .await?;
    Ok(())
}

/// What is known of a design.
pub(crate) async fn find(tx: &mut Tx, id: DesignId) -> Result<Option<Design>> {
    Ok(QueryDsl::find(designs::table, (tx.org(), id))
        .select(Design::as_select())
        .first(tx)
        .await
        .optional()?)
}
