//! Resources: the nodes of a design's canvas, with ids of their own.

use diesel::prelude::{Insertable, Queryable, Selectable};
use kit::ids::OrgId;

use super::{
    DesignId, ResourceId,
    canvas::{NodeId, ResourceName, ResourceType},
    drift::Address,
};
use crate::schema::resources;

/// A resource's row.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = resources, check_for_backend(diesel::pg::Pg))]
pub struct Resource {
    /// Its id, the same as long as the node's id is.
    pub id: ResourceId,
    /// The node's id.
    pub node_id: NodeId,
    /// Terraform's type.
    pub resource_type: ResourceType,
    /// Terraform's name.
    pub name: ResourceName,
}

impl Resource {
    /// Terraform's address of it.
    pub fn address(&self) -> Address {
        Address::of(&self.resource_type, &self.name)
    }
}

/// A resource's row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = resources, check_for_backend(diesel::pg::Pg))]
pub struct ResourceRow<'a> {
    /// Whose it is.
    pub org_id: OrgId,
    /// Its id.
    pub id: ResourceId,
    /// Its design.
    pub design_id: DesignId,
    /// The node's id.
    pub node_id: &'a NodeId,
    /// Terraform's type.
    pub resource_type: &'a ResourceType,
    /// Terraform's name.
    pub name: &'a ResourceName,
}
