//! Rotations of the keys that data keys are sealed by.

use diesel::prelude::{Queryable, Selectable};
use kit::db::About;
use time::OffsetDateTime;
use uuid::Uuid;

use super::StateId;
use crate::schema::key_rotations;

kit::id! {
    /// A rotation.
    RotationId
}

/// A rotation as it stands in its row.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = key_rotations)]
pub struct Rotation {
    /// Its id.
    pub id: RotationId,
    /// The key that data keys are sealed by in the end.
    pub key_id: Vec<u8>,
    /// How many versions were sealed otherwise at its start.
    pub total: i64,
    /// How many have been sealed by the key.
    pub done: i64,
    /// How many cannot be: their key is missing, or they are corrupt.
    pub failed: i64,
    /// The version after which it goes on: its organization,
    pub after_org: Uuid,
    /// its state
    pub after_state: StateId,
    /// and its number.
    pub after_number: i64,
    /// When it was asked for.
    pub started_at: OffsetDateTime,
    /// When it came to its end.
    pub finished_at: Option<OffsetDateTime>,
}

impl About for Rotation {
    const TYPE: &'static str = "key_rotation";

    fn id(&self) -> String {
        self.id.to_string()
    }
}
