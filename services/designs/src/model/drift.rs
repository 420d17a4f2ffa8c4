//! What has drifted of a design's resources, by the last check of each state.

use std::collections::BTreeMap;

use diesel::prelude::{Insertable, Queryable, Selectable};
use kit::ids::OrgId;
use time::OffsetDateTime;

use super::{
    DesignId, DriftKind,
    canvas::{ResourceName, ResourceType},
};
use crate::schema::resource_drifts;

kit::id! {
    /// A state of terraform_state.
    StateId
}
kit::id! {
    /// A check of a state for drift.
    CheckId
}

/// A resource's address, `<type>.<name>`, as `Resource` shows it: without module and instance key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, diesel_derive_newtype::DieselNewType)]
pub struct Address(String);

impl Address {
    /// The address of a resource with this type and name.
    pub fn of(resource_type: &ResourceType, name: &ResourceName) -> Address {
        Address(format!("{}.{}", resource_type.as_str(), name.as_str()))
    }

    /// The resource of an instance, as Terraform writes it; none for what cannot be a node of a design: data sources,
    /// and whatever lies in a module.
    pub fn of_instance(instance: &str) -> Option<Address> {
        let (resource, _) = instance.split_once('[').unwrap_or((instance, ""));
        let (resource_type, name) = resource.split_once('.')?;
        let resource_type = ResourceType::parse(resource_type).filter(|found| found.as_str() != "module")?;
        Some(Address::of(&resource_type, &ResourceName::parse(name)?))
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.0
    }
}

/// A part of what a check of a design's state found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The check.
    pub check: CheckId,
    /// The state.
    pub state: StateId,
    /// The state's name.
    pub state_name: String,
    /// The design that the state belongs to.
    pub design: DesignId,
    /// Whether what earlier checks found is over.
    pub first: bool,
    /// When it was found.
    pub detected_at: OffsetDateTime,
    /// What has drifted.
    pub drifted: BTreeMap<Address, DriftKind>,
}

impl Checked {
    /// The worst that became of each resource's instances.
    pub fn worst(instances: impl IntoIterator<Item = (Address, DriftKind)>) -> BTreeMap<Address, DriftKind> {
        let mut worst = BTreeMap::new();
        for (address, kind) in instances {
            let known = worst.entry(address).or_insert(kind);
            *known = kind.max(*known);
        }
        worst
    }
}

/// That a resource has drifted in a state.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = resource_drifts, check_for_backend(diesel::pg::Pg))]
pub struct Drift {
    /// The resource.
    pub address: Address,
    /// The state.
    pub state_id: StateId,
    /// The state's name.
    pub state_name: String,
    /// What became of it.
    pub kind: DriftKind,
    /// When it was found.
    pub detected_at: OffsetDateTime,
}

impl Drift {
    /// Drifts by what has drifted, each in the order given.
    pub fn by_address(drifts: Vec<Drift>) -> BTreeMap<Address, Vec<Drift>> {
        let mut by_address: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for drift in drifts {
            by_address.entry(drift.address.clone()).or_default().push(drift);
        }
        by_address
    }
}

/// A drift's row to insert.
#[derive(Debug, Insertable)]
#[diesel(table_name = resource_drifts, check_for_backend(diesel::pg::Pg))]
pub struct DriftRow<'a> {
    /// Whose it is.
    pub org_id: OrgId,
    /// The state.
    pub state_id: StateId,
    /// The resource.
    pub address: &'a Address,
    /// The state's design.
    pub design_id: DesignId,
    /// The state's name.
    pub state_name: &'a str,
    /// What became of it.
    pub kind: DriftKind,
    /// The check that found it.
    pub check_id: CheckId,
    /// When it was found.
    pub detected_at: OffsetDateTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_belongs_to_its_resource_and_what_no_node_is_to_none() {
        for (instance, resource) in [
            ("terraform_data.x", Some("terraform_data.x")),
            ("terraform_data.x[0]", Some("terraform_data.x")),
            (r#"terraform_data.x-1["a.b[c]"]"#, Some("terraform_data.x-1")),
            ("module.db.terraform_data.x", None),
            (r#"module.db["a"].terraform_data.x"#, None),
            ("data.http.x", None),
            ("terraform_data", None),
            ("terraform_data.", None),
            ("", None),
        ] {
            let found = Address::of_instance(instance).map(String::from);
            assert_eq!(found.as_deref(), resource, "{instance}");
        }
    }

    #[test]
    fn the_worst_instance_speaks_for_its_resource() {
        let x = || Address("terraform_data.x".to_owned());
        let instances = [DriftKind::Changed, DriftKind::Deleted, DriftKind::Changed].map(|kind| (x(), kind));
        assert_eq!(Checked::worst(instances), [(x(), DriftKind::Deleted)].into());
    }
}
