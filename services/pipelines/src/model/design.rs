//! Designs, as their service last told them.

use diesel::prelude::{Queryable, Selectable};
use kit::{Error, Reason, Result};

use super::DesignId;
use crate::schema::designs;

/// What is known of a design.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = designs, check_for_backend(diesel::pg::Pg))]
pub struct Design {
    /// Its id.
    pub design_id: DesignId,
    /// Its name.
    pub name: String,
    /// The number of its newest version, 0 for none.
    pub latest_version: i32,
    /// Whether it is gone.
    pub deleted: bool,
    /// Of two, the higher is newer.
    pub revision: i64,
}

impl Design {
    /// The version that an execution takes: the wanted one, or the newest for 0.
    ///
    /// # Errors
    /// RESOURCE_NOT_FOUND for a design that is gone or a version that there is not, DESIGN_NOT_PUBLISHED without any.
    pub fn version(&self, wanted: i32) -> Result<i32> {
        if self.deleted {
            return Err(Error::not_found("design", self.design_id));
        }
        if self.latest_version == 0 {
            return Err(Error::new(
                Reason::DesignNotPublished,
                "the design has no version yet; publish it",
            ));
        }
        match wanted {
            0 => Ok(self.latest_version),
            wanted if wanted > self.latest_version => Err(Error::not_found("design_version", wanted)),
            wanted => Ok(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_version_is_the_wanted_one_or_the_newest() {
        let design = |latest_version, deleted| Design {
            design_id: DesignId::new(),
            name: "d".to_owned(),
            latest_version,
            deleted,
            revision: 1,
        };
        assert_eq!(design(3, false).version(0).unwrap(), 3);
        assert_eq!(design(3, false).version(2).unwrap(), 2);
        let reason = |design: Design, wanted| design.version(wanted).unwrap_err().reason();
        assert_eq!(reason(design(3, false), 4), Reason::ResourceNotFound);
        assert_eq!(reason(design(3, true), 0), Reason::ResourceNotFound);
        assert_eq!(reason(design(0, false), 0), Reason::DesignNotPublished);
        assert_eq!(reason(design(0, false), 1), Reason::DesignNotPublished);
    }
}
