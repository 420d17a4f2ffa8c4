//! Versions: canvases frozen by publishing.

use diesel::prelude::{Queryable, Selectable};
use time::OffsetDateTime;

use super::{Message, PrincipalId, canvas::CanvasHash};
use crate::schema::design_versions;

/// A version's row without its canvas; it never changes.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = design_versions, check_for_backend(diesel::pg::Pg))]
pub struct Version {
    /// 1, 2, 3, …
    pub number: i32,
    /// What changed.
    pub message: Message,
    /// The hash of its canvas.
    pub canvas_hash: CanvasHash,
    /// Who published it.
    pub author_id: PrincipalId,
    /// When.
    pub created_at: OffsetDateTime,
}
