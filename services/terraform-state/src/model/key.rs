//! Rotations of the keys that data keys and drift's values are sealed by.

use std::io::Write;

use diesel::{
    deserialize::{self, FromSql},
    pg::{Pg, PgValue},
    prelude::{Queryable, Selectable},
    serialize::{self, IsNull, Output, ToSql},
};
use kit::db::About;
use time::OffsetDateTime;
use uuid::Uuid;

use super::stored_enum;
use crate::schema::{key_rotations, sql_types::RotationStageEnum};

kit::id! {
    /// A rotation.
    RotationId
}

stored_enum! {
    /// What of an organization is sealed anew, in this order.
    Stage as RotationStageEnum {
        /// The data keys of versions.
        Versions = "versions",
        /// The values of drift logs.
        DriftLogs = "drift_logs",
        /// The values of three-way views.
        DriftViews = "drift_views",
    }
}

impl Stage {
    fn next(self) -> Option<Stage> {
        match self {
            Stage::Versions => Some(Stage::DriftLogs),
            Stage::DriftLogs => Some(Stage::DriftViews),
            Stage::DriftViews => None,
        }
    }
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
    /// The row after which it goes on: its organization,
    pub after_org: Uuid,
    /// its state, or a drift log's id,
    pub after_state: Uuid,
    /// and a version's number, or a place in a view.
    pub after_number: i64,
    /// When it was asked for.
    pub started_at: OffsetDateTime,
    /// When it came to its end.
    pub finished_at: Option<OffsetDateTime>,
    /// What it is at in that organization.
    pub stage: Stage,
    /// How many values of drift have been sealed by the key.
    pub done_values: i64,
    /// How many cannot be.
    pub failed_values: i64,
}

impl Rotation {
    /// Begins with an organization.
    pub fn enter(&mut self, org: Uuid) {
        self.after_org = org;
        self.begin(Stage::Versions);
    }

    /// Goes on with what is next in the organization; false where nothing is.
    pub fn advance(&mut self) -> bool {
        let next = self.stage.next();
        if let Some(stage) = next {
            self.begin(stage);
        }
        next.is_some()
    }

    fn begin(&mut self, stage: Stage) {
        self.stage = stage;
        (self.after_state, self.after_number) = (Uuid::nil(), 0);
    }
}

impl About for Rotation {
    const TYPE: &'static str = "key_rotation";

    fn id(&self) -> String {
        self.id.to_string()
    }
}
