//! Runners: programs of an organization that work on stages.

use diesel::prelude::{Queryable, Selectable};
use kit::db::About;
use time::OffsetDateTime;

use super::{RunnerId, RunnerName, TerraformVersion};
use crate::schema::runners;

/// A runner's row.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = runners, check_for_backend(diesel::pg::Pg))]
pub struct Runner {
    /// Its id.
    pub id: RunnerId,
    /// Its name.
    pub name: RunnerName,
    /// Its Terraform.
    pub terraform_version: TerraformVersion,
    /// When it first registered.
    pub created_at: OffsetDateTime,
    /// When it was last heard of.
    pub seen_at: OffsetDateTime,
}

impl About for Runner {
    const TYPE: &'static str = "runner";

    fn id(&self) -> String {
        self.id.to_string()
    }
}
