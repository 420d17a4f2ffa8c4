//! What drift is of: kinds, where a finding stands, how bad it is, and what it comes from.

use std::io::Write;

use diesel::{
    deserialize::{self, FromSql},
    pg::{Pg, PgValue},
    serialize::{self, IsNull, Output, ToSql},
};
use serde::Serialize;

use crate::{
    model::stored_enum,
    schema::sql_types::{DriftCauseEnum, DriftEnum, DriftSeverityEnum, DriftStatusEnum},
};

stored_enum! {
    /// What became of a resource.
    #[derive(Serialize)]
    DriftKind as DriftEnum {
        /// An attribute has another value.
        Changed = "changed",
        /// The object is gone.
        Deleted = "deleted",
    }
}

stored_enum! {
    /// Where a drift log stands.
    #[derive(Serialize)]
    DriftStatus as DriftStatusEnum {
        /// Found, and nobody has said anything.
        Open = "open",
        /// Somebody looks after it.
        Acknowledged = "acknowledged",
        /// It may stay so.
        Accepted = "accepted",
        /// Not seen any more, or dealt with.
        Resolved = "resolved",
        /// Seen again after it was resolved.
        Reopened = "reopened",
        /// A rule ignores it.
        Ignored = "ignored",
    }
}

stored_enum! {
    /// How bad drift is.
    #[derive(Serialize, PartialOrd, Ord)]
    Severity as DriftSeverityEnum {
        /// Hardly of interest.
        Info = "info",
        /// Worth a look.
        Warning = "warning",
        /// Something is gone, or safety is touched.
        Critical = "critical",
    }
}

stored_enum! {
    /// How design, state and reality stand to one another.
    #[derive(Serialize)]
    Cause as DriftCauseEnum {
        /// All three are the same.
        InSync = "in_sync",
        /// The design wants what an apply would do.
        PendingApply = "pending_apply",
        /// Reality is another.
        Drifted = "drifted",
        /// Reality is what the design wants, and the state does not know it.
        AdoptedOutside = "adopted_outside",
        /// No two are the same.
        Conflict = "conflict",
        /// In reality alone.
        Unmanaged = "unmanaged",
        /// Gone in reality.
        Missing = "missing",
        /// What the design wants is not known.
        Unknown = "unknown",
    }
}

impl DriftStatus {
    /// Whether it counts as drift.
    pub const fn counts(self) -> bool {
        match self {
            DriftStatus::Open | DriftStatus::Acknowledged | DriftStatus::Reopened => true,
            DriftStatus::Accepted | DriftStatus::Resolved | DriftStatus::Ignored => false,
        }
    }
}
