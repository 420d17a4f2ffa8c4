//! What users are shown of themselves is kept as a view; every change of a row that it shows names the part that changed.

use kit::ids::{OrgId, UserId};

/// A user: names, second factor, and in which organizations they are.
pub(crate) fn user(user: UserId) -> String {
    format!("user.{user}")
}

/// An organization: its names, its roles and who has which.
pub(crate) fn organization(org: OrgId) -> String {
    format!("organization.{org}")
}
