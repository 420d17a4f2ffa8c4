//! Resources of designs.

use std::collections::HashMap;

use diesel::{ExpressionMethods, QueryDsl, SelectableHelper, upsert::excluded};
use diesel_async::RunQueryDsl;
use kit::{Result, db::Tx};

use crate::{
    model::{
        DesignId, ResourceId,
        canvas::{Node, NodeId, ResourceName, ResourceType},
        resource::{Resource, ResourceRow},
    },
    schema::{clock_timestamp, resources},
};

/// Makes a design's resources those of its nodes; a node that stays keeps its resource's id.
pub(crate) async fn update(tx: &mut Tx, design: DesignId, nodes: &[Node]) -> Result<()> {
    let rows: Vec<(NodeId, ResourceType, ResourceName)> = resources::table
        .filter(resources::org_id.eq(tx.org()))
        .filter(resources::design_id.eq(design))
        .select((resources::node_id, resources::resource_type, resources::name))
        .load(tx)
        .await?;
    let mut known: HashMap<_, _> = rows
        .into_iter()
        .map(|(node, kind, name)| (node, (kind, name)))
        .collect();
    let mut changed = Vec::new();
    for node in nodes {
        let stands = known.remove(&node.id);
        if !stands.is_some_and(|(kind, name)| kind == node.resource_type && name == node.name) {
            changed.push(ResourceRow {
                org_id: tx.org(),
                id: ResourceId::new(),
                design_id: design,
                node_id: &node.id,
                resource_type: &node.resource_type,
                name: &node.name,
            });
        }
    }
    if !known.is_empty() {
        let gone: Vec<NodeId> = known.into_keys().collect();
        diesel::delete(resources::table)
            .filter(resources::org_id.eq(tx.org()))
            .filter(resources::design_id.eq(design))
            .filter(resources::node_id.eq_any(gone))
            .execute(tx)
            .await?;
    }
    if !changed.is_empty() {
        diesel::insert_into(resources::table)
            .values(&changed)
            .on_conflict((resources::org_id, resources::design_id, resources::node_id))
            .do_update()
            .set((
                resources::resource_type.eq(excluded(resources::resource_type)),
                resources::name.eq(excluded(resources::name)),
                resources::updated_at.eq(clock_timestamp()),
            ))
            .execute(tx)
            .await?;
    }
    Ok(())
}

/// The resources of a design after a node, by node id; at most `limit`.
pub(crate) async fn list(tx: &mut Tx, design: DesignId, after: Option<String>, limit: i64) -> Result<Vec<Resource>> {
    Ok(resources::table
        .filter(resources::org_id.eq(tx.org()))
        .filter(resources::design_id.eq(design))
        .filter(resources::node_id.gt(after.unwrap_or_default()))
        .order(resources::node_id)
        .limit(limit)
        .select(Resource::as_select())
        .load(tx)
        .await?)
}
