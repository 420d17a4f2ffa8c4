//! Rotations of keys, in messages.

use api::terraform_state::v1;

use super::timestamp;
use crate::model::key::Rotation;

impl From<Rotation> for v1::KeyRotation {
    fn from(rotation: Rotation) -> Self {
        v1::KeyRotation {
            id: rotation.id.to_string(),
            key_id: hex::encode(&rotation.key_id),
            total_versions: rotation.total,
            done_versions: rotation.done,
            failed_versions: rotation.failed,
            started_at: Some(timestamp(rotation.started_at)),
            finished_at: rotation.finished_at.map(timestamp),
            done_drift_values: rotation.done_values,
            failed_drift_values: rotation.failed_values,
        }
    }
}
