//! What has drifted of resources.

use diesel::{ExpressionMethods, QueryDsl, SelectableHelper, dsl::sql, upsert::excluded};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::{
    model::{
        DesignId,
        drift::{Address, Checked, Drift, DriftRow, StateId},
    },
    schema::{resource_drifts, sql_types::DriftEnum},
};

/// Forgets what was found in a state.
pub(crate) async fn delete(tx: &mut Tx, state: StateId) -> Result<()> {
    diesel::delete(resource_drifts::table)
        .filter(resource_drifts::org_id.eq(tx.org()))
        .filter(resource_drifts::state_id.eq(state))
        .execute(tx)
        .await?;
    Ok(())
}

/// Adds what a part of a check found; of a resource that an earlier part told of too, the worse counts.
pub(crate) async fn upsert(tx: &mut Tx, checked: &Checked) -> Result<()> {
    let rows: Vec<_> = checked
        .drifted
        .iter()
        .map(|(address, kind)| DriftRow {
            org_id: tx.org(),
            state_id: checked.state,
            address,
            design_id: checked.design,
            state_name: &checked.state_name,
            kind: *kind,
            check_id: checked.check,
            detected_at: checked.detected_at,
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    diesel::insert_into(resource_drifts::table)
        .values(rows)
        .on_conflict((
            resource_drifts::org_id,
            resource_drifts::state_id,
            resource_drifts::address,
        ))
        .do_update()
        .set((
            resource_drifts::kind.eq(sql::<DriftEnum>("greatest(resource_drifts.kind, excluded.kind)")),
            resource_drifts::check_id.eq(excluded(resource_drifts::check_id)),
            resource_drifts::detected_at.eq(excluded(resource_drifts::detected_at)),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// What has drifted of some resources of a design, by state.
pub(crate) async fn list(tx: &mut Tx, design: DesignId, resources: &[Address]) -> Result<Vec<Drift>> {
    Ok(resource_drifts::table
        .filter(resource_drifts::org_id.eq(tx.org()))
        .filter(resource_drifts::design_id.eq(design))
        .filter(resource_drifts::address.eq_any(resources))
        .order((resource_drifts::state_name, resource_drifts::state_id))
        .select(Drift::as_select())
        .load(tx)
        .await?)
}
